"""A checkpoint of ours (or of mmpretrain, or an imported one) as an encoder and what it was trained with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.models import BEiTViT, SwinTransformer, VisionTransformer
from torch import Tensor, nn

from mim_mm.checkpoint.config_text import parse_config
from mim_mm.checkpoint.function import function_of
from mim_mm.checkpoint.leftovers import DERIVED_BUFFERS
from mim_mm.checkpoint.load import fill_encoder
from mim_mm.checkpoint.read import LoadError, Weights, read_content, read_weights, resolve_checkpoint
from mim_mm.encoders import grid_of, reader_of
from mim_mm.registry import MODELS
from mim_mm.weights.architecture import backbone_of

_DECODER = re.compile(r'^(\w*decoder|neck|regressor|head|\w*projector|\w*predictor)\.')
# Of a training alone: not part of what an encoder computes of an image.
_TRAINING = ('init_cfg', 'frozen_stages', 'drop_path_rate', 'drop_rate', 'with_cp', 'norm_eval', 'out_indices')


@dataclass(frozen=True)
class Own:
    """A checkpoint that is given away.

    config: of the canonical backbone, mmpretrain's class of downstream recipes; backbone: that, filled. tensors: all of
    the file. about: what it says of an import, {}. training: the config that it was trained with, {} where it has none;
    config_text: that as text. meta: what mmengine keeps beside the weights.
    """

    path: Path
    config: dict[str, Any]
    backbone: nn.Module
    tensors: dict[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ''
    meta: Mapping[str, Any] = field(default_factory=dict)

    def encoder(self) -> dict[str, Tensor]:
        """Tensors of the backbone under mmpretrain's names, without buffers that follow from the sizes."""
        return {n: v for n, v in self.backbone.state_dict().items() if not DERIVED_BUFFERS.search(n)}

    def decoder(self) -> dict[str, Tensor]:
        """What predicts: decoders, heads, projectors.

        Raises:
            LoadError: the checkpoint has none.
        """
        found = {name: value for name, value in self.tensors.items() if _DECODER.match(name)}
        if not found:
            raise LoadError(f'{self.path} holds no decoder: --part encoder, or the checkpoint of a pretraining.')
        return found


def open_own(
    checkpoint: str | Path,
    config: str | Path | None = None,
    prefix: str = 'backbone.',
    entry: str | None = None,
    skip: Sequence[str] = (),
) -> Own:
    """Read a checkpoint and build its encoder.

    Args:
        checkpoint: a file, or a work dir.
        config: that it was trained with; by default the one inside.
        prefix: where the encoder lies: ``teacher.backbone.`` of DINO and iBOT.
        entry: which model of a file with several.
        skip: regular expressions of tensors that are left out on purpose.

    Raises:
        LoadError: it does not say how its encoder is built, or does not fill it.
    """
    path = resolve_checkpoint(checkpoint)
    weights = read_weights(path, entry=entry)
    content = read_content(path, mmap=True, verify=False)
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    training, text = _training(path, meta, config)
    stated = weights.about.get('config') if config is None else None
    stated = stated or (training.get('model') or {}).get('backbone')
    if not isinstance(stated, Mapping):
        raise LoadError(
            f'{path} does not say how its encoder is built (no config inside): give the config that it was trained '
            'with, --config CONFIG, or import it first with tools/import_weights.py if it is not of mim_mm.'
        )
    canonical, module = _canonical(stated, weights, path, prefix, skip)
    return Own(path, canonical, module, weights.tensors, weights.about, training, text, meta)


def _training(path: Path, meta: Mapping, config: str | Path | None) -> tuple[Mapping[str, Any], str]:
    if config is not None:
        try:
            read = Config.fromfile(str(config))
        except (OSError, SyntaxError, ValueError) as error:
            raise LoadError(f'{config} cannot be read as a config ({error}).') from error
        return read.to_dict(), read.pretty_text
    text = meta.get('cfg') or ''
    try:
        return (parse_config(text), text) if text else ({}, '')
    except ValueError as error:
        raise LoadError(f'{path}: its config is no plain data ({error}): give it with --config CONFIG.') from error


def _canonical(
    stated: Mapping[str, Any], weights: Weights, path: Path, prefix: str, skip: Sequence[str]
) -> tuple[dict[str, Any], nn.Module]:
    """The encoder of a pretraining or a downstream model in the class that downstream recipes build.

    A family that no other library has (HiViT) stays as it is.
    """
    stages = 'depths' in stated.get('arch', ())  # a pyramid puts out its last stage, whichever number that is
    settings = {key: value for key, value in stated.items() if key not in _TRAINING or stages and key == 'out_indices'}
    source = MODELS.build(dict(settings))
    report = fill_encoder(source, weights, path, prefix, 1.0, skip, grid=grid_of(source))
    source.eval()
    if not isinstance(source, (VisionTransformer, BEiTViT, SwinTransformer)):
        return settings, source
    absent = {name for name, why in report.by_design.items() if 'start at zero' not in why} | {'mask_token'}
    facts, patch = function_of(source), reader_of(source).grid
    size = patch.height * patch.patch_size, patch.width * patch.patch_size
    state = {n: v for n, v in source.state_dict().items() if n not in absent and not DERIVED_BUFFERS.search(n)}
    known = dict(heads=facts.get('num_heads'), norm_eps=facts.get('norm_eps'), activation=facts.get('activation'))
    config = backbone_of(state, known, size)
    module = MODELS.build(dict(config))
    fill_encoder(module, Weights(state, '', ()), path, '', 1.0, grid=grid_of(module))
    module.eval()
    _same(source, module, size, path)
    return config, module


def _same(source: nn.Module, module: nn.Module, size: tuple[int, int], path: Path) -> None:
    """LoadError where a class derived from a family computes otherwise than the family (DeiT III, EVA-02)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, reader_of(module).grid.in_channels, *size, generator=generator)
    wanted, found = (_last(backbone, images) for backbone in (source, module))
    if wanted.shape != found.shape or (wanted - found).abs().max() > 1e-3 * wanted.abs().max().clamp(min=1):
        raise LoadError(
            f'{path}: {type(source).__name__} computes otherwise than {type(module).__name__} from the same tensors: '
            'it is not exported.'
        )


def _last(backbone: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        if isinstance(backbone, SwinTransformer):
            options = {'mask': None} if 'mask' in inspect.signature(backbone.forward).parameters else {}
            return backbone(images, **options)[-1]
        reader = reader_of(backbone)
        return reader.read(images, [reader.depth - 1], norm=False)[0]
