"""Another project's file as a checkpoint of ours: recognised, rebuilt, filled to the last tensor, and written.

Nothing is guessed: what decides the features and stands in no tensor (heads, epsilon, activation) is a fact of the
project, of the ``config.json`` beside the file, or said by the user; else the file is refused. The built encoder is
filled by the one loader, which lets no tensor of an encoder be left over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mim_mm import files
from mim_mm.checkpoint.config_text import parse_config
from mim_mm.checkpoint.keymap import PREFIXES
from mim_mm.checkpoint.load import fill_encoder
from mim_mm.checkpoint.read import LoadError, Weights, read_content, read_weights, resolve_checkpoint
from mim_mm.checkpoint.report import LoadReport
from mim_mm.encoders import class_of, grid_of
from mim_mm.registry import MODELS
from mim_mm.weights.architecture import backbone_of, facts_of
from mim_mm.weights.bootmae_release import from_bootmae_release
from mim_mm.weights.data2vec2_release import from_data2vec2_release
from mim_mm.weights.mae_release import from_mae_release
from mim_mm.weights.names import from_hugging_face, from_swin
from mim_mm.weights.origins import ORIGINS, recognise

_FOLDER = ('model.safetensors', 'pytorch_model.bin')  # of a model that Hugging Face or timm saved
_STEM = re.compile(r'^(.*?)patch_embed\.proj(?:ection)?\.weight$')
_HF_ACTIVATIONS = {
    'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh', 'quick_gelu': 'quick_gelu',
}  # fmt: skip
_HF_KINDS = (
    'vit', 'vit_mae', 'vit_msn', 'beit', 'data2vec-vision', 'dinov2', 'dinov2_with_registers', 'ijepa', 'deit',
)  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """A file of another project, as it will be written.

    origin: name in ``ORIGINS``. backbone: the filled encoder; config: that it was built from. report: of the loading.
    others: further tensors under our names (decoders, a teacher). pixels: (mean, std) of images, None: not known.
    """

    path: Path
    origin: str
    config: dict[str, Any]
    backbone: nn.Module
    report: LoadReport
    others: dict[str, Tensor]
    pixels: tuple | None

    def write(self, destination: str | Path) -> dict[str, Tensor]:
        """``{'state_dict': ...}`` with ``backbone.*``, what else it has, and in ``meta`` what the encoder is.

        Raises:
            FileExistsError: the destination exists.
            NotWritten: the disk does not take it.
        """
        if Path(destination).exists():
            raise FileExistsError(f"'{destination}' exists: choose another name, nothing is overwritten")
        state = {f'backbone.{name}': value for name, value in self.backbone.state_dict().items()} | self.others
        with files.replacing(destination) as temporary, open(temporary, 'wb') as stream:
            torch.save({'state_dict': state, 'meta': {'encoder': self.about()}}, stream)
        return state

    def about(self) -> dict[str, Any]:
        """Plain types: what decides the features, the config, whose it is, its licence, its images, its source."""
        origin = ORIGINS[self.origin]
        return {
            **facts_of(self.config, self.backbone),
            'origin': origin.label,
            'licence': origin.licence,
            'pixels': self.pixels,
            'source': {'file': self.path.name, 'sha256': sha256_of(self.path), 'entry': self.report.entry},
        }


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def open_foreign(
    source: str | Path,
    origin: str | None = None,
    entry: str | None = None,
    prefix: str | None = None,
    image_size: tuple[int, int] | None = None,
    skip: Sequence[str] = (),
    **said: Any,
) -> Foreign:
    """Recognise a file, build its encoder and fill it.

    Args:
        source: a file, or a folder that Hugging Face or timm saved.
        origin: name in ``ORIGINS``, where a file does not tell.
        entry: which model of a file with several.
        prefix: where its encoder lies, where there are several.
        image_size: (height, width) of a position table that is not square.
        skip: regular expressions of tensors that are left out on purpose.
        said: ``heads``, ``norm_eps``, ``activation``, where nothing else says them.

    Raises:
        LoadError: see the module.
    """
    path = _file(source)
    try:
        beside = _config_beside(path)
        weights, tops = read_weights(path, entry=entry), _tops(path)
        name = origin or recognise(weights.tensors.keys(), weights.tensors, tops, weights.entry, beside)
        facts = _facts(name, beside, said)
        if name == 'hf':
            facts['pixels'] = _processed(path)
            weights = replace(weights, tensors=from_hugging_face(weights.tensors))
        if name == 'data2vec2':
            weights = replace(weights, tensors=from_data2vec2_release(weights.tensors))
        weights, stem = _without_prefix(weights, prefix)
        if any(re.match(r'layers\.\d+\.blocks\.', n) for n in weights.tensors):
            weights = replace(weights, tensors=from_swin(weights.tensors))
        config = _config(name, path, weights, facts, image_size or facts.get('image_size'))
        module = MODELS.build(dict(config))
        module.eval()
        report = fill_encoder(module, weights, path, '', 1.0, skip, grid=grid_of(module))
        report.prefix = stem
        left = [n for n, why in report.by_design.items() if 'mask token' not in why]
        if report.random or left:
            raise LoadError(f'the file has no value for {", ".join([*report.random, *left][:4])}: an encoder is whole.')
    except LoadError as error:
        text = str(error)
        raise LoadError(text if text.startswith(str(path)) else f'{path}: {text}') from error
    return Foreign(path, name, config, module, report, _others(name, path, weights), facts['pixels'])


def _file(source: str | Path) -> Path:
    path = Path(source).expanduser()
    inside = next((path / name for name in _FOLDER if (path / name).is_file()), None) if path.is_dir() else None
    return inside or resolve_checkpoint(path)


def _processed(path: Path) -> tuple | None:
    """Mean and std in 0..255 of the ``preprocessor_config.json`` beside a file of Hugging Face."""
    told = _config_beside(path, 'preprocessor_config.json')
    values = [told.get(key) for key in ('image_mean', 'image_std')]
    if not all(isinstance(value, list) and all(isinstance(x, (int, float)) for x in value) for value in values):
        return None
    return tuple(tuple(round(255 * x, 3) for x in value) for value in values)


def _config_beside(path: Path, name: str = 'config.json') -> Mapping[str, Any]:
    found = path.with_name(name)
    if not found.is_file():
        return {}
    try:
        content = json.loads(files.known_text(found))
    except ValueError as error:
        raise LoadError(f'{found} beside it is no JSON ({error}): copy it again, or move it away.') from error
    return content if isinstance(content, dict) else {}


def _tops(path: Path) -> list[str]:
    content = read_content(path, mmap=True, verify=False)
    return [key for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []


def _facts(origin: str, beside: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, epsilon, activation and pixels: of the user, of ``config.json``, of the project, in this order."""
    known = ORIGINS[origin]
    facts: dict[str, Any] = dict(
        heads=known.heads, norm_eps=known.norm_eps, activation=known.activation, pixels=known.pixels
    )
    if origin == 'hf':
        if beside.get('model_type') not in _HF_KINDS:
            raise LoadError(
                f'model_type {beside.get("model_type")!r} of config.json: known are {", ".join(_HF_KINDS)}; the others '
                'compute something else.'
            )
        act = beside.get('hidden_act', 'gelu')
        facts.update(
            heads=beside.get('num_attention_heads'),
            norm_eps=beside.get('layer_norm_eps'),
            activation=_HF_ACTIVATIONS.get(act, act),
        )
    elif origin == 'timm' and beside:
        facts.update(_of_timm(beside))
    facts.update({key: value for key, value in said.items() if value is not None})
    return facts


def _of_timm(beside: Mapping[str, Any]) -> dict[str, Any]:
    """timm's ``config.json`` names the architecture; some of them have other norms or activations than its default."""
    architecture, options = str(beside.get('architecture')), beside.get('model_args') or {}
    found: dict[str, Any] = {}
    other = re.search('clip|siglip|so400m|quickgelu|aimv2|sam|mci|pe_', architecture)
    if other or 'norm_layer' in options:
        found.update(norm_eps=None, activation=None)
    if 'act_layer' in options:
        found['activation'] = options['act_layer']
    if 'num_heads' in options:
        found['heads'] = options['num_heads']
    pretrained = beside.get('pretrained_cfg') or {}
    if pretrained.get('mean') and pretrained.get('std'):
        found['pixels'] = tuple(tuple(round(255 * x, 3) for x in pretrained[key]) for key in ('mean', 'std'))
    return found


def _without_prefix(weights: Weights, prefix: str | None) -> tuple[Weights, str]:
    """The encoder's names without their prefix; what lies beside them keeps its own, and is no encoder's."""
    stems = [found[1] for name in weights.tensors if (found := _STEM.match(name))]
    if prefix is not None and prefix not in stems:
        raise LoadError(f'no encoder under {prefix!r}; they lie under {", ".join(map(repr, stems)) or "nothing"}.')
    order = {name: place for place, name in enumerate(PREFIXES)}
    stem = min(stems, key=lambda s: order.get(s, len(order))) if prefix is None and stems else prefix or ''
    if not stem:
        return weights, stem
    inside = {name.removeprefix(stem): value for name, value in weights.tensors.items() if name.startswith(stem)}
    copies = [s for s in stems if s != stem]
    notes = [f'The encoder under {stem!r} was taken; others lie under {copies} (--prefix).'] if copies else []
    return replace(weights, tensors=inside, notes=(*weights.notes, *notes)), stem


def _config(
    origin: str, path: Path, weights: Weights, facts: Mapping[str, Any], image_size: tuple[int, int] | None
) -> dict[str, Any]:
    if origin in ('openmmlab', 'cmae'):
        stated = weights.about.get('config') or _config_inside(path)
        if stated:
            kind = class_of(dict(stated))
            if kind is not None:
                return dict(stated)
    config = backbone_of(weights.tensors, facts, image_size)
    if origin == 'data2vec2':
        config = {k: v for k, v in config.items() if k not in ('pre_norm', 'patch_cfg')} | dict(
            type='mim_mm.PostNormViT'
        )
    return config


def _config_inside(path: Path) -> dict[str, Any] | None:
    """``model.backbone`` of the config that mmengine writes into its checkpoints."""
    content = read_content(path, mmap=True, verify=False)
    meta = content.get('meta') if isinstance(content, Mapping) else None
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    try:
        model = parse_config(text).get('model') if text else None
    except ValueError:
        return None
    backbone = model.get('backbone') if isinstance(model, Mapping) else None
    return dict(backbone) if isinstance(backbone, Mapping) else None


def _others(origin: str, path: Path, weights: Weights) -> dict[str, Tensor]:
    """Decoders and teachers of MAE, BootMAE and data2vec 2.0 (the decoder), with which their pretraining goes on."""
    if origin == 'data2vec2':
        return {name: value for name, value in weights.tensors.items() if name.startswith('decoder.')}
    try:
        if origin == 'bootmae':
            both = [read_weights(path, entry=name).tensors for name in ('model', 'model_ema') if name in _tops(path)]
            found = from_bootmae_release(*(both or [weights.tensors]))
        elif origin == 'mae' or any(name.startswith('decoder_blocks.') for name in weights.tensors):
            found = from_mae_release(weights.tensors)
        else:
            return {}
    except ValueError as error:
        raise LoadError(str(error)) from error
    return {name: value for name, value in found.items() if not name.startswith('backbone.')}
