"""Where the time of a detector's training step goes, and how much arithmetic each part does in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mim_mm.benchmarks.timing import synchronize
from mim_mm.encoders import reader_of, sketch
from mim_mm.registry import MODELS

RECIPE = Path(__file__).resolve().parents[2] / 'configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py'
ARCHS = {
    'small': 'deit-small',
    'base': 'base',
    'large': 'large',
    'tiny': dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),  # for trying the tool
}
# What a part is called, and which method of the detector is it. The inner ones are taken out of the outer ones.
PARTS = {
    'preprocessing': 'data_preprocessor.forward',
    'backbone': 'backbone.forward',
    'neck': 'neck.forward',
    'rpn': 'rpn_head.loss_and_predict',
    'assign, sample': 'roi_head.loss',
    'box head': 'roi_head.bbox_loss',
    'mask head': 'roi_head.mask_loss',
}


def recipe(path: Path | str, arch: str | None, size: int, data: Path | str | None = None) -> Config:
    """A COCO recipe of a plain ViT at another size and, if given, on another COCO folder.

    Raises:
        FileNotFoundError: no annotations where ``data`` should have them.
    """
    if data is not None:
        annotations = Path(data, 'annotations', 'instances_train2017.json')
        if not annotations.is_file():
            raise FileNotFoundError(f'no {annotations}: --data needs a folder laid out as COCO')
    before = os.environ.get('COCO_ROOT')
    try:
        if data is not None:
            os.environ['COCO_ROOT'] = str(data)
        cfg = Config.fromfile(path)
    finally:
        if data is not None:
            os.environ.pop('COCO_ROOT') if before is None else os.environ.update(COCO_ROOT=before)
    side = cfg.model.backbone.img_size
    cfg.model.backbone.img_size = cfg.model.data_preprocessor.pad_size_divisor = size
    if arch:
        cfg.model.backbone.arch = ARCHS[arch]
        if arch == 'tiny':
            cfg.model.backbone.out_indices = (0, 1, 2, 3)
        cfg.model.neck.in_channels = reader_of(sketch(cfg.model.backbone.to_dict())).width
    for step in cfg.train_dataloader.dataset.pipeline:
        for key in ('scale', 'crop_size'):
            if key in step:
                step[key] = tuple(size if v == side else v for v in step[key])
    return cfg


def build(cfg: Config, device: torch.device, lr: float | None = None) -> tuple[nn.Module, object]:
    """The detector, in training mode, and its optimizer wrapper (bf16 where the recipe and the device have it)."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    model = revert_sync_batchnorm(model).to(device).train()  # as mmengine's Runner does on one process
    if lr:
        cfg.optim_wrapper.optimizer.lr = lr
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def batch(images: int, size: int, classes: int, objects: int = 7, seed: int = 0) -> dict:
    """Noise with ``objects`` boxes and masks an image, as a loader gives it: uint8 images on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(images):
        sides = (torch.rand(objects, 2, generator=generator) * 0.5 + 0.05) * size
        corner = torch.rand(objects, 2, generator=generator) * (size - sides)
        boxes = torch.cat([corner, corner + sides], 1)
        masks = np.zeros((objects, size, size), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        labels = torch.randint(classes, (objects,), generator=generator)
        truth = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, size, size))
        meta = dict(img_id=1, img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        samples.append(DetDataSample(metainfo=meta, gt_instances=truth))
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(pixels), data_samples=samples)


class Ledger:
    """Adds up what a counter advances within each part; a part inside another counts for itself alone.

    Args:
        read: the counter: seconds, or FLOPs.
    """

    def __init__(self, read: Callable[[], float]):
        self.read, self.total, self._inner = read, {}, []

    @contextmanager
    def part(self, name: str):
        """Counts what happens inside for ``name``."""
        self._inner.append(0.0)
        start = self.read()
        try:
            yield
        finally:
            spent = self.read() - start
            self.total[name] = self.total.get(name, 0.0) + spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    @contextmanager
    def watching(self, model: nn.Module):
        """The methods in ``PARTS`` are parts while this lasts."""
        changed = []
        for name, path in PARTS.items():
            owner_path, method = path.rsplit('.', 1)
            owner = model.get_submodule(owner_path)
            original = getattr(owner, method)
            setattr(owner, method, self._counted(name, original))
            changed.append((owner, method))
        try:
            yield
        finally:
            for owner, method in changed:
                delattr(owner, method)

    def _counted(self, name: str, method: Callable) -> Callable:
        @wraps(method)
        def counted(*args, **kwargs):
            with self.part(name):
                return method(*args, **kwargs)

        return counted


def step(model: nn.Module, wrapper, data: dict, ledger: Ledger | None = None) -> torch.Tensor:
    """One training step; the sum of the losses, detached."""
    ledger = ledger or Ledger(lambda: 0.0)
    with ledger.part('other'):
        with wrapper.optim_context(model):
            inputs = model.data_preprocessor(data, True)
            losses = model(**inputs, mode='loss')
            total, _ = model.parse_losses(losses)
        with ledger.part('backward'):
            wrapper.backward(total)
        with ledger.part('optimizer'):
            wrapper.step()
            wrapper.zero_grad()
    return total.detach()


def account(cfg: Config, images: int, size: int, device: torch.device, rounds: int, say) -> dict:
    """Seconds (median of ``rounds``) and FLOPs of each part of a step on synthetic images.

    FLOPs are torch's count of matrix products, convolutions and attention as they are carried out; sorting, RoIAlign,
    normalisation and the optimizer count as none.

    Returns:
        ``dict(seconds={part: s}, flops={part: n}, step=s, images_s, peak_gib)``; ``step`` without the waits in between.
    """
    model, wrapper = build(cfg, device)
    data = batch(images, size, cfg.model.roi_head.bbox_head.num_classes)
    step(model, wrapper, data)
    say('detector: counting FLOPs')
    with FlopCounterMode(display=False) as counter:
        flops = Ledger(counter.get_total_flops)
        with flops.watching(model):
            step(model, wrapper, data, flops)

    def now() -> float:
        synchronize(device)
        return time.perf_counter()

    plain, parts = [], []
    for turn in range(rounds):
        say(f'detector: round {turn + 1} of {rounds}')
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)
        start = now()
        step(model, wrapper, data)
        plain.append(now() - start)
        ledger = Ledger(now)
        with ledger.watching(model):
            step(model, wrapper, data, ledger)
        parts.append(ledger.total)
    seconds = {name: median(p[name] for p in parts) for name in [*PARTS, 'backward', 'optimizer', 'other']}
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == 'cuda' else None
    return dict(
        seconds=seconds,
        flops={name: flops.total[name] for name in seconds},
        step=median(plain),
        images_s=images / median(plain),
        peak_gib=peak,
        batch=images,
        size=size,
    )


def train(cfg: Config, steps: int, images: int, device: torch.device, workers: int, lr: float, say) -> dict:
    """Train on the recipe's own loader; the rate rises over a tenth of the steps and stays.

    Returns:
        ``dict(losses=[...], images_s, waited, peak_gib)``; speed and share of waiting for data of the second half.
    """
    from mmengine.runner import Runner

    torch.manual_seed(0)
    model, wrapper = build(cfg, device, lr)
    loader = dict(cfg.train_dataloader, batch_size=images, num_workers=workers, persistent_workers=False)
    batches = iter(Runner.build_dataloader(loader, seed=0))
    losses, waited, middle, start = [], 0.0, steps // 2, 0.0
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    rates = [group['lr'] for group in wrapper.optimizer.param_groups]
    for number in range(steps):
        if number == middle:
            synchronize(device)
            waited, start = 0.0, time.perf_counter()
        for group, rate in zip(wrapper.optimizer.param_groups, rates):
            group['lr'] = rate * min(1.0, (number + 1) / max(1, steps // 10))
        asked = time.perf_counter()
        data = next(batches)
        waited += time.perf_counter() - asked
        losses.append(step(model, wrapper, data))
        if number % max(1, steps // 10) == 0:
            say(f'training: step {number + 1} of {steps}, loss {losses[-1].item():.3f}')
    synchronize(device)
    taken = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == 'cuda' else None
    values = torch.stack(losses).tolist()
    return dict(
        losses=values, images_s=(steps - middle) * images / taken, waited=waited / taken, peak_gib=peak, batch=images
    )
