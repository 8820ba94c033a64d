"""Frozen features of any mmpretrain backbone, extracted once and reused by k-NN and low-shot evaluation.

The eval transform is the one of the published k-NN protocols (DINO eval_knn.py, iBOT, CAPI): short edge 256 bicubic,
centre crop 224, no augmentation. A stored file is used again only when backbone, weights, transform, precision and the
listing of the images are the same; otherwise features are computed anew.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mim_mm import files
from mim_mm.checkpoint.load import WHOLE, LoadReport, load_encoder, resolve_checkpoint
from mim_mm.data.class_dataset import ClassFolders
from mim_mm.data.unlabelled import NoImages
from mim_mm.folders import subfolders
from mim_mm.registry import MODELS

__all__ = ['Features', 'FolderImages', 'Preprocess', 'Source', 'build_encoder', 'encode', 'extract', 'load_or_extract']

SCHEMA = 2  # 1: features of encoders that were loaded before anything left over stopped the load
POOLINGS = ('cls', 'mean', 'cls_mean')
AMP = {'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass(frozen=True)
class Preprocess:
    """What happens between an image file and the backbone.

    resize: short edge in pixels, bicubic (Pillow). crop: side of the centre crop in pixels, at most ``resize``.
    mean, std: of the pixel values 0..255, in the order in which the channels reach the backbone.
    to_rgb: files are read as BGR; True turns them into RGB before mean and std.
    value_range: black and white of files of more than 8 bits, see ``mim_mm.data.pixel_values``.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple = (123.675, 116.28, 103.53)
    std: tuple = (58.395, 57.12, 57.375)
    to_rgb: bool = True
    value_range: tuple | dict | None = None

    def __post_init__(self):
        if not 0 < self.crop <= self.resize:
            raise ValueError(f'crop {self.crop} must be 1 to resize ({self.resize}): change one of them')

    @classmethod
    def from_config(cls, cfg: Config, resize: int | None = None, crop: int | None = None) -> Preprocess:
        """Mean, std, channel order and value range of a config; crop: its ``img_size`` or 224; resize: crop * 8 / 7."""
        model = cfg.get('model') or {}
        given = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        size = (model.get('backbone') or {}).get('img_size', 224)
        crop = crop or (size if isinstance(size, int) else min(size))
        values = dict(resize=resize or round(crop * 8 / 7), crop=crop, value_range=cfg.get('value_range'))
        if given.get('mean') is not None:
            # Our pretraining swaps the channels when it packs an image, other configs in the preprocessor.
            dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
            last = (dataset.get('pipeline') or [{}])[-1]
            packed = last.get('type', '').endswith('PackImage') and last.get('to_rgb', True)
            swapped = any(given.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
            values.update(mean=tuple(given['mean']), std=tuple(given['std']), to_rgb=bool(packed) != swapped)
        return cls(**values)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 BGR (B, 3, H, W) -> float32 (B, 3, H, W) as the backbone expects it, on the same device."""
        images = (images.flip(1) if self.to_rgb else images).float()
        mean, std = (_channels(tuple(v), images.device) for v in (self.mean, self.std))
        return (images - mean) / std


@lru_cache(maxsize=16)
def _channels(values: tuple, device: torch.device) -> Tensor:
    """(1, C, 1, 1); kept, because copying it to a GPU for every batch would wait for the batch before."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


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


class FolderImages(Dataset):
    """``root/split/<class>/**`` as training lists it (ClassFolders); item: (uint8 BGR (3, crop, crop), label).

    Args:
        classes: class names in label order. None: the folders of this split. Give those of train for val, so that a
            class that val lacks does not shift the labels of the others.
        share: (i, n): only the i-th of n consecutive parts of nearly equal size, for n processes.

    Raises:
        FileNotFoundError: no such folder, or no image in its class folders.
        ValueError: a class that is not among ``classes``; fewer images than parts.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        preprocess: Preprocess,
        classes: tuple[str, ...] | None = None,
        share: tuple[int, int] = (0, 1),
    ):
        self.root = Path(root) / split
        if not self.root.is_dir():
            raise NoImages(f'no folder {self.root}: lay images out as ROOT/{split}/<class>/*, or name ROOT')
        size = dict(scale=preprocess.resize, edge='short', backend='pillow', interpolation='bicubic')
        load = dict(type='mim_mm.LoadImageFromFile', value_range=preprocess.value_range)
        pipeline = [load, dict(type='mmpretrain.ResizeEdge', **size)]
        pipeline.append(dict(type='mmpretrain.CenterCrop', crop_size=preprocess.crop))
        trained = Path(root).absolute() / 'train'
        if classes is not None and trained.is_dir() and subfolders(trained) == list(classes):
            classes = str(trained)  # the folder says more than the names: which of them are empty
        self.images = ClassFolders(data_prefix=str(self.root), pipeline=pipeline, classes_from=classes)
        self.classes = tuple(self.images.metainfo['classes'])
        infos = map(self.images.get_data_info, self._take(share))
        self.items = [(os.path.relpath(d['img_path'], self.root), d['gt_label']) for d in infos]

    def _take(self, share: tuple[int, int]) -> range:
        """The images of this share; sets where it starts."""
        (part, parts), count = share, len(self.images)
        if not 0 <= part < parts <= count:
            raise ValueError(f'{self.root} has {count} images, not enough for part {part} of {parts}: lower GPUS')
        self.start = part * count // parts
        return range(self.start, (part + 1) * count // parts)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.images[self.start + index]['img'].transpose(2, 0, 1).copy()), self.items[index][1]

    def digest(self) -> str:
        """sha256 of names, labels, sizes and modification times; where the folder lies does not count."""
        sha = hashlib.sha256()
        for name, label in self.items:
            state = os.stat(self.root / name)
            sha.update(f'{name}\0{label}\0{state.st_size}\0{state.st_mtime_ns}\n'.encode('utf-8', 'surrogateescape'))
        return sha.hexdigest()


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
        options = dict(skip=source.skip, entry=source.entry)
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


def encode(backbone: nn.Module, images: Tensor, amp: str | None = None) -> dict[str, Tensor]:
    """Pooled features of normalised images, without dropout, drop path and gradient, whatever mode the backbone is in.

    Args:
        images: (B, C, H, W), on the backbone's device.

    Returns:
        {'cls': (B, D), 'mean': (B, D)} float32, only 'mean' for backbones that put out maps (HiViT, Swin, ConvNeXt).
    """
    autocast = torch.autocast(images.device.type, AMP[amp]) if amp else nullcontext()
    # Pretraining backbones of mmpretrain (MAEViT, SimMIMSwinTransformer ...) mask unless they are told not to.
    options = {'mask': None} if 'mask' in inspect.signature(backbone.forward).parameters else {}
    with evaluating(backbone), torch.no_grad(), autocast:
        out = backbone(images, **options)
    out = out[-1] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(out, Tensor) or out.ndim not in (2, 3, 4):
        raise TypeError(f'{type(backbone)} puts out no (B, L, D), (B, D, H, W) or (B, D): see its out_indices')
    out = out.float()
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


def load_or_extract(source: Source, data: FolderImages, folder: str | Path, **extraction) -> Features:
    """Features from ``folder`` if there for exactly this source and data; else computed (:func:`extract`) and saved.

    ``provenance``: identity, load report, device, seconds, ``file``, ``reused``. The file appears whole or not at all.
    """
    identity = source.identity(data)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = Path(folder) / f'{data.root.name}-{key[:16]}.pth'
    try:
        found = torch.load(file, map_location='cpu', weights_only=True, mmap=True)
        note = found['provenance']
        if note['identity'] == identity and (note['load_report'] or {}).get('fraction', 1.0) >= source.min_loaded:
            return Features(**dict(found, classes=data.classes, provenance=dict(note, reused=True)))
    except Exception:  # none there, or damaged in whatever way: computing it anew is right
        found = None
    start, (backbone, report) = time.time(), build_encoder(source)
    features = extract(backbone, data, source.preprocess, source.amp, **extraction)
    features.provenance = dict(identity=identity, checkpoint=source.checkpoint and str(source.checkpoint))
    features.provenance.update(load_report=report and json.loads(json.dumps(report.as_dict())), reused=False)
    features.provenance.update(device=str(extraction.get('device', 'cpu')), seconds=round(time.time() - start, 1))
    features.provenance.update(torch=str(torch.__version__), file=str(file))
    # Gigabytes: straight to disk, not through a buffer as checkpoints.
    with files.replacing(file) as temporary, open(temporary, 'wb') as stream:
        torch.save(dict(vars(features), classes=list(features.classes)), stream)
    return features
