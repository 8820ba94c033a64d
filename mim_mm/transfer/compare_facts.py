"""What a comparison has to say of its arms and recipes, read from resolved configs and from checkpoint files.

Every fact is a number or a short word under the name that the columns of the published table use, so that differences
are computed and not written by hand. None means: not known here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.config import Config

from mim_mm.checkpoint.keymap import PREFIXES, rename_key
from mim_mm.checkpoint.read import LoadError, read_checkpoint

from .chain import ChainError
from .manifest import DamagedManifest, read_record

PLAIN_VITS = {
    (384, 12, 16): 'ViT-S/16', (768, 12, 16): 'ViT-B/16', (1024, 24, 16): 'ViT-L/16', (1280, 32, 14): 'ViT-H/14',
}  # fmt: skip
ENCODER_KEYS = ('cls_token', 'pos_embed', 'patch_embed.', 'layers.', 'ln1.', 'ln2.', 'pre_norm.')
POOLING = {'cls_token': 'cls', 'avg_featmap': 'mean', 'with_cls_token': 'cls'}


def square(size: Any) -> Optional[Any]:
    """``224`` and ``(224, 224)`` -> 224; other pairs stay pairs."""
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]) if size[0] == size[1] else [int(size[0]), int(size[1])]
    return int(size) if isinstance(size, int) else None


def backbone_name(kind: str, width: Any, depth: Any, patch: Any) -> str:
    """``ViT-B/16`` for a plain ViT of a published size, else the sizes in words."""
    plain = PLAIN_VITS.get((width, depth, patch)) if 'vi' in kind.lower() and 'hivit' not in kind.lower() else None
    sizes = f'width {width}, depth {depth}' + (f', patch {patch}' if patch else '')
    return plain or f'{kind} ({sizes})'


def encoder(config: Config) -> Dict[str, Any]:
    """Type, name, width, depth, heads, patch_size, img_size and parameters of ``model.backbone``; {} without one.

    The backbone is built without memory where it can be (ViTs), so that the numbers are those of the real module.

    Raises:
        ChainError: the backbone cannot be built.
    """
    from mmengine.registry import MODELS, DefaultScope
    from torch import device, nn

    settings = (config.get('model') or {}).get('backbone')
    if not settings:
        return {}
    settings = settings.to_dict() if hasattr(settings, 'to_dict') else dict(settings)
    settings.pop('init_cfg', None)

    def build(where: str) -> nn.Module:
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mim_mm'), device(where):
            return MODELS.build(dict(settings))

    try:
        try:
            module = build('meta')
        except (RuntimeError, NotImplementedError):  # Swin and HiViT read values of tensors while they are built
            module = build('cpu')
    except Exception as error:
        what = f'{config.filename}: model.backbone cannot be built'
        raise ChainError(f'{what}: {type(error).__name__}: {error}') from error
    arch = getattr(module, 'arch_settings', None) or {}
    projection = getattr(getattr(module, 'patch_embed', None), 'projection', None)
    patch = square(getattr(projection, 'kernel_size', None))
    depth = getattr(module, 'num_layers', None)
    if not isinstance(depth, int):
        depth = str(arch.get('depths') or depth)
    kind, width = type(module).__name__, getattr(module, 'embed_dims', None)
    return dict(
        type=kind,
        name=backbone_name(kind, width, depth, patch),
        width=width,
        depth=depth,
        heads=arch.get('num_heads') if isinstance(arch.get('num_heads'), int) else None,
        patch_size=patch,
        img_size=square(settings.get('img_size')) or square(getattr(module, 'img_size', None)),
        parameters=sum(p.numel() for p in module.parameters()),
    )


def encoder_of_file(path: Path) -> Dict[str, Any]:
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


def _variant(masker: Dict[str, Any]) -> Optional[str]:
    """The mask in the words of the published table: ``random r=3/4``, ``parallel K=4``, ``salience``."""
    kind = str(masker.get('type', '')).split('.')[-1].replace('Masking', '')
    ratio = masker.get('ratio')
    if kind == 'Parallel':
        return f'parallel K={masker["num_parts"]}' if 'num_parts' in masker else None
    if kind == 'Salience':
        return 'salience'
    text = re.sub(r'(?<!^)([A-Z])', r' \1', kind).lower()
    if isinstance(ratio, (int, float)):
        text += f' r={Fraction(ratio).limit_denominator(20)}'
    return text or None


def _views(masker: Dict[str, Any]) -> Optional[int]:
    """K: how often an image is encoded in an iteration."""
    kind = str(masker.get('type', '')).split('.')[-1]
    if kind == 'ComplementaryMasking':
        return 2  # its num_parts is the share that the first part sees
    if 'num_parts' in masker:
        return int(masker['num_parts'])
    return None if 'Parallel' in kind or 'Independent' in kind else 1  # a default of the class, not stated


def schedule(config: Config) -> Dict[str, Any]:
    """``epochs`` or ``iters`` (the other is None) and ``batch_per_device`` (accumulation included)."""
    train, loader = config.get('train_cfg') or {}, config.get('train_dataloader') or {}
    size = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size')
    steps = (config.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    by_iters = train.get('max_iters')
    return dict(
        epochs=None if by_iters else train.get('max_epochs'),
        iters=by_iters,
        batch_per_device=size * steps if size else None,
    )


def pretraining(config: Config) -> Dict[str, Any]:
    """Method, mask, duration, batch and views of a pretraining config."""
    model = config.get('model') or {}
    masker = dict(model.get('masker') or {})
    method = str(model.get('type', '')).split('.')[-1] or None
    if str(masker.get('type', '')).split('.')[-1] == 'SalienceMasking' and method:
        method += ' + SBAM'  # what the published table calls it
    return dict(method=method, mask_variant=_variant(masker), views=_views(masker), **schedule(config))


def downstream(config: Config) -> Dict[str, Any]:
    """Duration, batch, resolution and head of a downstream config.

    ``head`` for classifiers: what is pooled, and the norm before the linear layer (``cls + BN``); for detectors the
    pyramid (``fpn`` or ``simple pyramid``).
    """
    model = config.get('model') or {}
    backbone, neck = model.get('backbone') or {}, model.get('neck') or {}
    neck_type = str(neck.get('type', '') if isinstance(neck, dict) else '').split('.')[-1]
    if model.get('roi_head'):
        head = {'SimplePyramid': 'simple pyramid', 'DeconvPyramid': 'fpn', 'FPN': 'fpn'}.get(neck_type)
    else:
        pooling = POOLING.get(backbone.get('out_type', 'cls_token'))
        pooling = 'mean' if neck_type == 'GlobalAveragePooling' else pooling
        head = f'{pooling} + BN' if pooling and neck_type == 'ClsBatchNormNeck' else pooling
    return dict(resolution=square(backbone.get('img_size')), head=head, **schedule(config))


def of_checkpoint(path: Path) -> Dict[str, Any]:
    """All that a checkpoint and the run it lies in say about its pretraining.

    Our own runs leave the config (mmengine's dump) and run.json beside the file; a file that stands alone keeps its
    duration, data and method to itself.
    """
    facts: Dict[str, Any] = dict(encoder=encoder_of_file(path), data=None, pretraining={}, gpus=None)
    dumps: List[Path] = sorted(path.parent.glob('*.py'))
    if len(dumps) == 1:
        try:
            config = Config.fromfile(str(dumps[0]))
        except Exception:  # any .py may lie beside a downloaded file
            config = None
        if config is not None and (config.get('model') or {}).get('backbone') and config.get('train_cfg'):
            facts['pretraining'] = _until(pretraining(config), path)
    try:
        record = read_record(path.parent)
    except DamagedManifest:
        record = None
    if record is not None and record.kind == 'pretrain' and record.checkpoint == path.name:
        facts.update(data=record.data or None, gpus=record.gpus)
    return facts


def _until(facts: Dict[str, Any], path: Path) -> Dict[str, Any]:
    """``epoch_100.pth`` of a run of 300 epochs has seen 100."""
    found = re.search(r'(epoch|iter)_(\d+)$', path.stem)
    if found:
        facts['epochs' if found[1] == 'epoch' else 'iters'] = int(found[2])
    return facts
