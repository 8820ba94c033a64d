"""An encoder of ours in the files of another library: written, opened by that library, compared, and only then kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mim_mm import files
from mim_mm.checkpoint.atomic import to_plain
from mim_mm.checkpoint.function import function_of
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.tensor_file import write_tensors
from mim_mm.config_parts import type_name
from mim_mm.encoders import encoder_of
from mim_mm.weights import verify
from mim_mm.weights.card import Card, write_card
from mim_mm.weights.own import Own
from mim_mm.weights.targets import for_hugging_face, for_timm, for_torchvision

TARGETS = ('timm', 'hf', 'safetensors', 'torchvision', 'mmpretrain')
PARTS = ('encoder', 'decoder', 'whole')
_LIBRARIES = ('timm', 'hf', 'torchvision')
_FAMILIES = ('VisionTransformer', 'RegisterViT', 'BEiTViT', 'SwinTransformer')


@dataclass(frozen=True)
class Exported:
    """What was written.

    folder: of the files. opened_by: the Python lines that open it. difference: of features, None where nothing was
    compared; why_not: the reason for that.
    """

    folder: Path
    opened_by: str
    difference: float | None
    why_not: str = ''


def export(
    own: Own,
    target: str,
    folder: str | Path,
    part: str = 'encoder',
    licence: str | None = None,
    runs: Sequence[str | Path] = (),
) -> Exported:
    """Write a checkpoint for ``target``.

    Args:
        own: what is exported.
        target: of :data:`TARGETS`.
        folder: a new one.
        part: of :data:`PARTS`; decoder and whole go to safetensors and mmpretrain, under our names.
        licence: for the card; by default that of what the weights were imported from, else that it is not stated.
        runs: work dirs of stages whose results the card should have, beside the run of the checkpoint itself.

    Raises:
        FileExistsError: the folder exists.
        LoadError: the library cannot compute this encoder, or there is no such part, or its features differ.
        NotWritten: the disk does not take it.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"'{folder}' exists: choose another folder, nothing is overwritten")
    if part != 'encoder' and target not in ('safetensors', 'mmpretrain'):
        raise LoadError(
            f'--part {part} to {target}: other libraries take an encoder; --to safetensors or mmpretrain has {part}.'
        )
    if target in _LIBRARIES and type_name(own.config) not in _FAMILIES:
        raise LoadError(
            f'{own.config["type"]}: {target} has no such encoder; --to mmpretrain or safetensors, under our names.'
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        lines, theirs = _WRITERS[target](own, temporary, part)
        found, why_not = None, 'nothing but names is another' if part == 'decoder' else ''
        if part != 'decoder':
            found, why_not = _compared(own, theirs)
        card = Card(own, target, part, lines, found, why_not, licence, tuple(runs))
        write_card(temporary / 'README.md', card)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        raise files.not_written(error, folder) or error from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, lines, found, why_not)


def _compared(own: Own, theirs) -> tuple[float | None, str]:
    try:
        found = verify.difference(own.backbone, theirs(), own.config)
    except verify.Missing as missing:
        return None, str(missing)
    if not found <= verify.TOLERANCE:
        raise LoadError(
            f'{own.path}: features differ by {found:.2g} after the export, at most {verify.TOLERANCE:g} is right; '
            'nothing was written. Please report this with the config of the backbone.'
        )
    return found, ''


def _about(own: Own) -> dict[str, Any]:
    """What a file says of its encoder, for our own reader."""
    kept = {key: own.about[key] for key in ('origin', 'licence', 'pixels') if key in own.about}
    return to_plain({**kept, **function_of(own.backbone), 'config': own.config})


def _tensors(own: Own, part: str, buffers: bool = False) -> dict[str, Tensor]:
    """Under our names; with the buffers that follow from the sizes where the reader may be strict."""
    found = own.backbone.state_dict() if buffers else own.encoder()
    encoder = {f'backbone.{name}': value for name, value in found.items()}
    return {'encoder': lambda: encoder, 'decoder': own.decoder, 'whole': lambda: own.tensors}[part]()


def _pooled(state: Mapping[str, Tensor]) -> bool:
    return 'ln2.weight' in state


def _timm(own: Own, folder: Path, part: str):
    state = own.encoder()
    architecture, args, tensors = for_timm(own.config, state)
    write_tensors(folder / 'model.safetensors', tensors)
    pixels = Card.pixels_of(own)
    scaled = [[round(x / 255, 6) for x in values] for values in pixels] if pixels else [None, None]
    size = own.config['img_size']
    sides = [size, size] if isinstance(size, int) else list(size)
    config = dict(
        architecture=architecture, num_classes=0, num_features=encoder_of(own.backbone).width,
        model_args=args,
        pretrained_cfg=dict(
            input_size=[own.config['in_channels'], *sides], fixed_input_size=True, interpolation='bicubic',
            crop_pct=1.0,
            **({'mean': scaled[0], 'std': scaled[1]} if pixels else {}), num_classes=0,
        ),
    )  # fmt: skip
    files.write_json(folder / 'config.json', config)
    shown = ', '.join(f'{key}={value!r}' for key, value in args.items())
    lines = f"model = timm.create_model({architecture!r}, checkpoint_path='model.safetensors', {shown})"
    return lines, lambda: verify.open_timm(folder, architecture, args, _pooled(state))


def _hugging_face(own: Own, folder: Path, part: str):
    state = own.encoder()
    name, config, tensors = for_hugging_face(own.config, state)
    write_tensors(folder / 'model.safetensors', tensors)
    files.write_json(folder / 'config.json', config)
    pixels = Card.pixels_of(own)
    if pixels:
        side = own.config['img_size']
        settings = dict(
            image_processor_type='ViTImageProcessor', do_resize=True, size=dict(height=side, width=side), resample=3,
            do_rescale=True, rescale_factor=1 / 255, do_normalize=True,
            image_mean=[x / 255 for x in pixels[0]], image_std=[x / 255 for x in pixels[1]],
        )  # fmt: skip
        files.write_json(folder / 'preprocessor_config.json', settings)
    poolless = '' if _pooled(state) or name not in ('ViTModel', 'BeitModel') else ', add_pooling_layer=False'
    lines = f"model = transformers.{name}.from_pretrained('FOLDER'{poolless})"
    return lines, lambda: verify.open_hugging_face(folder, name, _pooled(state))


def _torchvision(own: Own, folder: Path, part: str):
    args, eps, tensors = for_torchvision(own.config, own.encoder())
    with files.replacing(folder / 'model.pth') as temporary:
        torch.save(tensors, temporary)
    shown = ', '.join(f'{key}={value!r}' for key, value in args.items())
    norm = f'partial(torch.nn.LayerNorm, eps={eps:g})'
    lines = (
        f'model = torchvision.models.VisionTransformer({shown}, norm_layer={norm})\n'
        "model.heads = torch.nn.Identity()\nmodel.load_state_dict(torch.load('model.pth', weights_only=True))"
    )
    return lines, lambda: verify.open_torchvision(folder, args, eps)


def _safetensors(own: Own, folder: Path, part: str):
    about = {'encoder': json.dumps(_about(own))}
    write_tensors(folder / 'model.safetensors', _tensors(own, part), about)
    lines = "tensors = safetensors.torch.load_file('model.safetensors')  # or init=model.safetensors of a recipe"
    return lines, lambda: verify.open_ours(folder / 'model.safetensors', own.config)


def _mmpretrain(own: Own, folder: Path, part: str):
    with files.replacing(folder / 'model.pth') as temporary:
        torch.save({'state_dict': _tensors(own, part, buffers=True), 'meta': {'encoder': _about(own)}}, temporary)
    settings = {**own.config, 'init_cfg': dict(type='Pretrained', checkpoint='model.pth', prefix='backbone.')}
    files.write_text(folder / 'backbone.py', f'model = dict(backbone={settings!r})\n')
    lines = "_base_ = 'backbone.py'  # in a config of mmpretrain; or init=model.pth of a recipe of mim_mm"
    open_it = verify.open_mmpretrain if part == 'encoder' else verify.open_ours
    return lines, lambda: open_it(folder / 'model.pth', own.config)


_WRITERS = {
    'timm': _timm, 'hf': _hugging_face, 'safetensors': _safetensors, 'torchvision': _torchvision,
    'mmpretrain': _mmpretrain,
}  # fmt: skip
