"""Frozen features of any mmpretrain backbone, extracted once and reused by k-NN and low-shot evaluation.

A stored file is used again only when backbone, weights, transform, precision and the
listing of the images are the same; otherwise features are computed anew.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mim_mm import files
from mim_mm.checkpoint.load import WHOLE, LoadReport, load_encoder, resolve_checkpoint
from mim_mm.checkpoint.read import read_content
from mim_mm.data.workers import shield_workers
from mim_mm.encoders import grid_of
from mim_mm.evaluation.frozen.folder_images import FolderImages, Preprocess
from mim_mm.registry import MODELS

__all__ = [
    'Features',
    'FolderImages',
    'Preprocess',
    'Source',
    'build_encoder',
    'built_once',
    'encode',
    'extract',
    'forward',
    'load_or_extract',
]

SCHEMA = 2  # 1: features of encoders that were loaded before anything left over stopped the load
POOLINGS = ('cls', 'mean', 'cls_mean')
AMP = {'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass(frozen=True)
class Source:
    """What the features come from.

    Args:
        cfg: any config with ``model.backbone``, of a classifier or of a pretraining.
        checkpoint: file or work dir; None: a random encoder drawn with ``seed``, the control of every comparison.
        preprocess: how images are prepared.
        prefix, min_loaded, entry, skip: see :func:`mim_mm.checkpoint.load.load_encoder`.
        amp: None, 'bf16' or 'fp16' autocast.
    """

    cfg: Config
    checkpoint: str | Path | None
    preprocess: Preprocess
    prefix: str = 'backbone.'
    min_loaded: float = 0.95
    amp: str | None = None
    seed: int = 0
    entry: str | None = None
    skip: tuple[str, ...] = ()

    def identity(self, data: FolderImages) -> dict:
        """Everything that decides the features; equal identities, equal features (up to the device's rounding)."""
        import mmpretrain

        weights = f'random, seed {self.seed}'
        if self.checkpoint is not None:
            weights = hashlib.sha256(np.memmap(resolve_checkpoint(self.checkpoint), mode='r')).hexdigest()
        found = dict(schema=SCHEMA, mmpretrain=mmpretrain.__version__, backbone=backbone_config(self.cfg), amp=self.amp)
        found.update(checkpoint=weights, prefix=self.prefix, entry=self.entry, skip=sorted(self.skip))
        # What was stored of a part of an encoder is not for those who want the whole.
        found.update(partial=self.min_loaded < WHOLE, preprocess=vars(self.preprocess))
        found.update(data=data.digest(), classes=data.classes)
        return json.loads(json.dumps(found, default=str))


@dataclass
class Features:
    """Features of one split: ``pooled`` maps 'cls' (absent without class token) and 'mean' (of patches) to float32
    (N, D); ``labels`` int64 (N,); ``names`` relative to the split's folder; ``classes`` in label order."""

    pooled: dict[str, Tensor]
    labels: Tensor
    names: list[str]
    classes: tuple[str, ...]
    provenance: dict

    @property
    def poolings(self) -> tuple[str, ...]:
        return POOLINGS if 'cls' in self.pooled else ('mean',)

    def get(self, pooling: str) -> Tensor:
        """(N, D); 'cls_mean' is class token and mean side by side, (N, 2D). ValueError for what there is not."""
        if pooling not in self.poolings:
            raise ValueError(f'pooling {pooling!r} must be one of {self.poolings} (cls needs a class token)')
        parts = [self.pooled[part] for part in pooling.split('_')]
        return torch.cat(parts, 1) if parts[1:] else parts[0]  # one part is not copied: it may be gigabytes


def backbone_config(cfg: Config) -> dict:
    """The backbone as it is built for features: all tokens put out, final norm on. ValueError without a known one."""
    if 'backbone' not in (cfg.get('model') or {}):
        raise ValueError('the config has no model.backbone: give a classification or pretraining config')
    options = cfg.model.backbone.to_dict()
    scope = options.pop('_scope_', None) or cfg.model.get('_scope_') or cfg.get('default_scope') or 'mmpretrain'
    with MODELS.switch_scope_and_registry(scope) as registry:
        kind = registry.get(options['type'])
    if kind is None:
        raise ValueError(f'backbone type {options["type"]!r} is not registered in scope {scope!r}: check the name')
    if 'raw' in getattr(kind, 'OUT_TYPES', ()):
        options['out_type'] = 'raw'
        if 'final_norm' in inspect.signature(kind.__init__).parameters:
            options['final_norm'] = True
    return dict(options, _scope_=scope)


def build_encoder(source: Source) -> tuple[nn.Module, LoadReport | None]:
    """The backbone with the source's weights (else LoadError), in eval mode, on the CPU; the global RNG stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        backbone = MODELS.build(backbone_config(source.cfg))
        if source.checkpoint is None:
            backbone.init_weights()
    report = None
    if source.checkpoint is not None:
        options = dict(skip=source.skip, entry=source.entry, grid=grid_of(backbone))
        report = load_encoder(backbone, source.checkpoint, source.prefix, source.min_loaded, **options)
    backbone.eval()  # mmpretrain's returns None
    return backbone.requires_grad_(False), report


@contextmanager
def evaluating(module: nn.Module):
    """Every submodule in eval mode inside, each in its former mode afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in modes:
            m.training = False
        yield
    finally:
        for m, training in modes:
            m.training = training


def forward(backbone: nn.Module, images: Tensor, amp: str | None = None) -> Tensor:
    """What the backbone puts out last, float32: (B, P+N, D), a map (B, D, H, W), or (B, D); see :func:`encode`."""
    autocast = torch.autocast(images.device.type, AMP[amp]) if amp else nullcontext()
    # Pretraining backbones of mmpretrain (MAEViT, SimMIMSwinTransformer ...) mask unless they are told not to.
    options = {'mask': None} if 'mask' in inspect.signature(backbone.forward).parameters else {}
    with evaluating(backbone), torch.no_grad(), autocast:
        out = backbone(images, **options)
    out = out[-1] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(out, Tensor) or out.ndim not in (2, 3, 4):
        raise TypeError(f'{type(backbone)} puts out no (B, L, D), (B, D, H, W) or (B, D): see its out_indices')
    return out.float()


def encode(backbone: nn.Module, images: Tensor, amp: str | None = None) -> dict[str, Tensor]:
    """Pooled features of normalised images, without dropout, drop path and gradient, whatever mode the backbone is in.

    Args:
        images: (B, C, H, W), on the backbone's device.

    Returns:
        {'cls': (B, D), 'mean': (B, D)} float32, only 'mean' for backbones that put out maps (HiViT, Swin, ConvNeXt).
    """
    out = forward(backbone, images, amp)
    if out.ndim != 3:
        return {'mean': out.flatten(2).mean(2) if out.ndim == 4 else out}
    extra = getattr(backbone, 'num_extra_tokens', 0)
    mean = out[:, extra:].mean(1)
    return {'cls': out[:, 0], 'mean': mean} if extra else {'mean': mean}


def extract(backbone, data, preprocess, amp=None, batch_size=128, workers=0, device='cpu') -> Features:
    """Features of all images of a :class:`FolderImages`, in its order; FloatingPointError if one is not finite."""
    backbone.to(device)
    # An own generator: without it the loader draws its seed from the global one and shifts a training run around it.
    options = dict(num_workers=workers, pin_memory=torch.device(device).type == 'cuda')
    loader = DataLoader(data, batch_size, generator=torch.Generator().manual_seed(0), **options)
    shield_workers(loader)
    pooled, done, waiting = {}, 0, None
    # A GPU works on one batch while the one before is fetched from it and the next one is read.
    for batch in chain(loader, [None]):
        found = batch and encode(backbone, preprocess.normalize(batch[0].to(device, non_blocking=True)), amp)
        for name, value in (waiting or {}).items():
            value = value.cpu()
            if not value.isfinite().all():
                first = data.items[done][0]
                raise FloatingPointError(f'features from {first} on are not finite (amp={amp}): use amp=None')
            if not done:
                pooled[name] = torch.empty(len(data), value.shape[1])
            pooled[name][done : done + len(value)] = value
        done += len(value) if waiting else 0
        waiting = found
    names, labels = zip(*data.items)
    return Features(pooled, torch.tensor(labels), list(names), data.classes, {})


def built_once(source: Source) -> Callable[[], tuple[nn.Module, LoadReport | None]]:
    """:func:`build_encoder` for several calls of :func:`load_or_extract` with this source, built by the first."""
    return functools.cache(lambda: build_encoder(source))


def load_or_extract(
    source: Source, data: FolderImages, folder: str | Path, build: Callable | None = None, **extraction
) -> Features:
    """Features from ``folder`` if there for exactly this source and data; else computed (:func:`extract`) and saved.

    ``build``: of :func:`built_once`, where there is more than one call.
    ``provenance``: identity, load report, device, seconds, ``file``, ``reused``. The file appears whole or not at all.
    """
    identity = source.identity(data)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = Path(folder) / f'{data.root.name}-{key[:16]}.pth'
    try:
        found = read_content(file, mmap=True)
        note = found['provenance']
        if note['identity'] == identity and (note['load_report'] or {}).get('fraction', 1.0) >= source.min_loaded:
            return Features(**dict(found, classes=data.classes, provenance=dict(note, reused=True)))
    except Exception:  # none there, or damaged in whatever way: computing it anew is right
        found = None
    start, (backbone, report) = time.time(), (build or built_once(source))()
    features = extract(backbone, data, source.preprocess, source.amp, **extraction)
    features.provenance = dict(identity=identity, checkpoint=source.checkpoint and str(source.checkpoint))
    features.provenance.update(load_report=report and json.loads(json.dumps(report.as_dict())), reused=False)
    features.provenance.update(device=str(extraction.get('device', 'cpu')), seconds=round(time.time() - start, 1))
    features.provenance.update(torch=str(torch.__version__), file=str(file))
    # Gigabytes: straight to disk, not through a buffer as checkpoints.
    with files.replacing(file) as temporary, open(temporary, 'wb') as stream:
        torch.save(dict(vars(features), classes=list(features.classes)), stream)
    return features
