"""What a comparison says of encoders, built ones and those in files; what configs say: ``mim_mm.recipe_facts``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm import recipe_facts
from mim_mm.checkpoint.keymap import PREFIXES, rename_key
from mim_mm.checkpoint.read import LoadError, read_checkpoint
from mim_mm.recipe_facts import backbone_name, downstream, square, until
from mim_mm.transfer.chain import ChainError
from mim_mm.transfer.manifest import DamagedManifest, read_record

__all__ = ['downstream', 'encoder', 'encoder_of_file', 'of_checkpoint', 'pretraining']

# Of an image of 224 px; how many parts a masker makes depends on it only where there are fewer patches than parts.
PATCHES = 196
ENCODER_KEYS = ('cls_token', 'pos_embed', 'patch_embed.', 'layers.', 'ln1.', 'ln2.', 'pre_norm.')


def encoder(config: Config) -> dict[str, Any]:
    """Type, name, width, depth, heads, patch_size, img_size and parameters of ``model.backbone``; {} without one.

    Width is that of the first tokens, depth the number of blocks, as text of a list where there are stages. Of
    backbones without an Encoder (ConvNeXt) type and parameters alone are known.

    Raises:
        ChainError: the backbone cannot be built.
    """
    from mmengine.registry import DefaultScope

    from mim_mm.encoders import UnsupportedBackbone, reader_of, sketch

    settings = (config.get('model') or {}).get('backbone')
    if not settings:
        return {}
    settings = settings.to_dict() if hasattr(settings, 'to_dict') else dict(settings)
    try:
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mim_mm'):
            module = sketch(settings)
    except Exception as error:
        what = f'{config.filename}: model.backbone cannot be built'
        raise ChainError(f'{what}: {type(error).__name__}: {error}') from error
    width = depth = heads = patch = None
    try:
        known = reader_of(module)
        width, heads, patch = known.grid.embed_dims, known.heads, known.grid.patch_size
        depth = known.depth if len(known.stages) == 1 else str(known.stages)
    except UnsupportedBackbone:
        pass
    kind = type(module).__name__
    return dict(
        type=kind,
        name=backbone_name(kind, width, depth, patch, heads),
        width=width,
        depth=depth,
        heads=heads,
        patch_size=patch,
        img_size=square(settings.get('img_size')) or square(getattr(module, 'img_size', None)),
        parameters=sum(p.numel() for p in module.parameters()),
    )


def pretraining(config: Config) -> dict[str, Any]:
    """:func:`mim_mm.recipe_facts.pretraining` with what the masker says of itself, where it can be built here."""
    facts, masker = recipe_facts.pretraining(config), (config.get('model') or {}).get('masker')
    if not masker:
        return facts
    from mmengine.registry import MODELS, DefaultScope

    from mim_mm.masking.base import counts, published

    try:
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mim_mm'):
            built = MODELS.build(masker)
        return dict(facts, mask_variant=published(built), views=len(counts(built, PATCHES)))
    except Exception:  # a class of the run's own that this process does not have
        return facts


def encoder_of_file(path: Path) -> dict[str, Any]:
    """The same facts from a checkpoint's tensors, ours or with timm's names; heads are not in a file.

    Raises:
        ChainError: the file cannot be read as tensors.
    """
    try:
        state = read_checkpoint(path)
    except LoadError as error:
        raise ChainError(str(error)) from error
    for prefix in PREFIXES:
        names = {rename_key(k[len(prefix) :]): v for k, v in state.items() if k.startswith(prefix)}
        projection = names.get('patch_embed.projection.weight')
        if projection is None or projection.ndim != 4:
            continue
        mine = {k: v for k, v in names.items() if k.startswith(ENCODER_KEYS)}
        layers = {int(found[1]) for found in (re.match(r'layers\.(\d+)\.', key) for key in mine) if found}
        width, depth, patch = int(projection.shape[0]), len(layers), int(projection.shape[-1])
        rows = names['pos_embed'].shape[1] if 'pos_embed' in names and names['pos_embed'].ndim == 3 else 0
        side = int(rows**0.5)
        return dict(
            type='checkpoint',
            name=backbone_name('ViT', width, depth, patch),
            width=width,
            depth=depth,
            heads=None,
            patch_size=patch,
            img_size=side * patch if rows and rows - side * side in (0, 1) else None,
            parameters=sum(v.numel() for v in mine.values()),
        )
    return {}


def of_checkpoint(path: Path) -> dict[str, Any]:
    """All that a checkpoint and the run it lies in say about its pretraining.

    Our own runs leave the config (mmengine's dump) and run.json beside the file; a file that stands alone keeps its
    duration, data and method to itself.
    """
    facts: dict[str, Any] = dict(encoder=encoder_of_file(path), data=None, pretraining={}, gpus=None)
    dumps: list[Path] = sorted(path.parent.glob('*.py'))
    if len(dumps) == 1:
        try:
            config = Config.fromfile(str(dumps[0]))
        except Exception:  # any .py may lie beside a downloaded file
            config = None
        if config is not None and (config.get('model') or {}).get('backbone') and config.get('train_cfg'):
            facts['pretraining'] = until(pretraining(config), path.name)
    try:
        record = read_record(path.parent)
    except DamagedManifest:
        record = None
    if record is not None and record.kind == 'pretrain' and record.checkpoint == path.name:
        facts.update(data=record.data or None, gpus=record.gpus)
    return facts
