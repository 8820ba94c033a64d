"""How good an encoder is right now: k-NN and many linear heads on its frozen features, in seconds, on labelled folders.

One forward pass of a bounded number of images, stored as two vectors a block and image, then k-NN (Caron et al., DINO,
2021) and the grid of heads of the quick probe (Oquab et al., DINOv2, 2024; ``multi_probe.py``) on what was stored.
Images are not augmented and few, so the figures follow a training, and are no substitute for the published protocols.

All choices (pooling and k of k-NN, the head of the probe) are made on images held out of the training folder; the test
folder is read off for what was chosen.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_dist_info
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from mim_mm.evaluation.frozen.config_images import labelled_images
from mim_mm.evaluation.frozen.features import AMP
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.frozen.knn import knn_accuracy
from mim_mm.evaluation.probes.multi_probe import ProbeGrid
from mim_mm.evaluation.probes.probe_features import POOLINGS
from mim_mm.evaluation.quality.quality_features import extract_tokens
from mim_mm.evaluation.quality.random_state import preserved_random_state
from mim_mm.evaluation.quality.variety import variety

__all__ = ['QualityData', 'QualitySettings', 'measure_quality']


@dataclass(frozen=True)
class QualitySettings:
    """What is measured, on what, and how much of it.

    Args:
        data: folder with train/<class>/* and val/<class>/*.
        max_train_per_class, max_val_per_class: images of a class that are used, drawn by ``seed``; None: all.
        resize, crop: pixels, see :class:`mim_mm.evaluation.frozen.folder_images.Preprocess`; None: by the backbone's
            img_size.
        probe: ``blocks``, ``norm`` and ``lrs`` of :class:`mim_mm.evaluation.probes.multi_probe.ProbeGrid`, ``iters``
            and ``batch_size`` of their training (SGD, momentum 0.9, cosine to 0). What is left out is as in ``PROBE``.
        ks: numbers of neighbours to choose from; those above the number of images are left out.
        fraction: part of each class of the training images on which choices are made.
        amp: None, 'bf16' or 'fp16' autocast of the encoder.
        seed: of every draw.
        batch_size, workers: of the image loader; they change time only.

    Raises:
        ValueError: a limit below 2 (training) or 1 (test), a fraction outside (0, 1), an unknown amp or key of probe.
    """

    PROBE = dict(blocks=(1, 4), norm=(False, True), lrs=(0.01, 0.03, 0.1, 0.3, 1.0), iters=300, batch_size=256)

    data: str
    max_train_per_class: int | None = 50
    max_val_per_class: int | None = 20
    resize: int | None = None
    crop: int | None = None
    probe: dict | None = None
    ks: Sequence[int] = (5, 10, 20)
    fraction: float = 0.2
    amp: str | None = None
    seed: int = 0
    batch_size: int = 128
    workers: int = 2

    def __post_init__(self):
        for name, least in (('max_train_per_class', 2), ('max_val_per_class', 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f'{name}={value}: at least {least} (one to train on, one to choose by), or None')
        if not 0 < self.fraction < 1:
            raise ValueError(f'fraction={self.fraction}: the part of train to choose on lies between 0 and 1, e.g. 0.2')
        if self.amp is not None and self.amp not in AMP:
            raise ValueError(f'amp={self.amp!r}: use None or one of {sorted(AMP)}')
        unknown = sorted(set(self.probe or {}) - set(self.PROBE))
        if unknown:
            raise ValueError(f'probe has {unknown}: known are {sorted(self.PROBE)}')
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f'ks={self.ks}: at least one number of neighbours, each at least 1')
        object.__setattr__(self, 'probe', {**self.PROBE, **(self.probe or {})})

    def protocol(self) -> dict:
        """Everything that decides a figure; speed settings and the place of the data do not."""
        return {k: v for k, v in asdict(self).items() if k not in ('data', 'batch_size', 'workers')}


def drawn(labels: Sequence[int], at_most: int | None, seed: int) -> list[int]:
    """Indices, rising, of at most ``at_most`` images of each class; each class is drawn by its own generator."""
    labels = np.asarray(labels)
    if at_most is None:
        return list(range(len(labels)))
    chosen = []
    for label in np.unique(labels):
        order = np.random.default_rng([seed, 1, int(label)]).permutation(np.flatnonzero(labels == label))
        chosen += order[:at_most].tolist()
    return sorted(chosen)


class QualityData:
    """The images of a measurement: the drawn part of train and of val, and which of train choices are made on.

    ``train`` and ``val`` are data sets of (uint8 BGR (3, crop, crop), label); ``train_labels`` and ``val_labels``
    int64; ``choose`` (len(train),) bool, True for held out; ``digest`` names settings and images in 12 hex digits.

    Raises:
        FileNotFoundError, ValueError: see :class:`FolderImages`; no class has two training images.
    """

    def __init__(self, settings: QualitySettings, preprocess: Preprocess, cfg: Config | None = None) -> None:
        from mim_mm.evaluation.probes.probe_metric import held_out  # imports mmpretrain's datasets, which is slow

        self.settings, self.preprocess = settings, preprocess
        train, val = labelled_images(cfg or Config(), preprocess, None if cfg else settings.data)
        self.classes = train.classes
        sha = hashlib.sha256(json.dumps([settings.protocol(), vars(preprocess)], sort_keys=True).encode())
        parts = []
        for data, limit in ((train, settings.max_train_per_class), (val, settings.max_val_per_class)):
            indices = drawn([label for _, label in data.items], limit, settings.seed)
            items = [data.items[i] for i in indices]
            sha.update(json.dumps(items).encode())
            parts.append((Subset(data, indices), torch.tensor([label for _, label in items])))
        (self.train, self.train_labels), (self.val, self.val_labels) = parts
        self.choose = torch.from_numpy(held_out(self.train_labels.numpy(), settings.fraction, 10**9, settings.seed))
        if not self.choose.any():
            raise ValueError(f'{settings.data}/train: no class has two images, so there is none to choose on')
        self.digest = sha.hexdigest()[:12]


def choose_knn(train: Tensor, val: Tensor, data: QualityData, device) -> dict:
    """k-NN with the pooling and k that do best on the held-out images; the bank of the test is all of train.

    Args:
        train, val: (N, L, T, D), of which the last block counts.

    Returns:
        dict(top1, pooling, k, held_out_top1), in per cent.
    """
    fit, best = ~data.choose, None
    poolings = dict(cls=lambda t: t[:, -1, 0], mean=lambda t: t[:, -1, -1], cls_mean=lambda t: t[:, -1].flatten(1))
    ks = [k for k in data.settings.ks if k <= int(fit.sum())] or [int(fit.sum())]
    classes = len(data.classes)
    for pooling in POOLINGS if train.shape[2] == 2 else ('mean',):
        bank, queries = poolings[pooling](train[fit]), poolings[pooling](train[data.choose])
        labels = data.train_labels[fit], data.train_labels[data.choose]
        found = knn_accuracy(bank, labels[0], queries, labels[1], classes, ks, device=device)
        for k, accuracy in found.items():
            if best is None or accuracy['top1'] > best['held_out_top1']:
                best = dict(pooling=pooling, k=k, held_out_top1=accuracy['top1'])
    take, k = poolings[best['pooling']], best['k']
    test = knn_accuracy(take(train), data.train_labels, take(val), data.val_labels, classes, [k], device=device)
    return dict(top1=test[k]['top1'], **best)


def choose_head(train: Tensor, val: Tensor, data: QualityData, device) -> dict:
    """Train the grid of heads on the images that are not held out; report the one that does best on those that are.

    Draws from the global generator: call it inside ``preserved_random_state``.

    Args:
        train, val: (N, L, T, D).

    Returns:
        dict(top1, head, held_out_top1, heads=number of heads), in per cent.
    """
    options, fit = data.settings.probe, ~data.choose
    tokens, labels = train[fit].to(device), data.train_labels[fit].to(device)
    blocks = sorted({min(count, train.shape[1]) for count in options['blocks']})
    pooling = POOLINGS if train.shape[2] == 2 else ('mean',)
    torch.manual_seed(data.settings.seed)  # the heads' start
    grid = ProbeGrid(train.shape[-1], len(data.classes), blocks, pooling, options['norm'], options['lrs']).to(device)
    batch = min(options['batch_size'], len(labels))
    groups = [dict(params=g['params'], lr=g['lr_scale'] * batch / 256) for g in grid.param_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options['iters'])
    draws = torch.Generator().manual_seed(data.settings.seed)
    grid.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(options['iters']):
        if len(order) < batch:
            order = torch.randperm(len(labels), generator=draws)
        here, order = order[:batch].to(device), order[batch:]
        logits = grid(tokens[here].unbind(1), train.shape[2] - 1)
        loss = sum(F.cross_entropy(one, labels[here]) for one in logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    grid.eval()
    held = _head_accuracies(grid, train[data.choose], data.train_labels[data.choose], device)
    best = int(held.argmax())
    test = _head_accuracies(grid, val, data.val_labels, device)[best]
    return dict(top1=float(test), head=grid.probes[best].name, held_out_top1=float(held[best]), heads=len(held))


@torch.no_grad()
def _head_accuracies(grid: ProbeGrid, tokens: Tensor, labels: Tensor, device) -> Tensor:
    """(H,) top-1 of each head in per cent; tokens (N, L, T, D), labels (N,)."""
    right = torch.zeros(len(grid.probes), dtype=torch.float64)
    for part, truth in zip(tokens.split(1024), labels.split(1024)):
        logits = grid(part.to(device).unbind(1), tokens.shape[2] - 1)
        right += torch.stack([(one.argmax(1).cpu() == truth).sum() for one in logits])
    return 100 * right / len(labels)


def measure_quality(backbone: nn.Module, data: QualityData, device: str | torch.device = 'cpu') -> dict:
    """k-NN and probe accuracy of an encoder, on every rank the same; nothing of the caller's state is changed.

    In distributed runs every process must call it: the images are shared, the heads are trained by the first.

    Args:
        backbone: on ``device``, in any mode, which it keeps; no gradient, no random state is touched.

    Returns:
        dict(knn_top1, probe_top1, feature_std, feature_rank, knn=dict, probe=dict, images=dict, classes,
        seconds=dict(features, knn, probe)).

    Raises:
        RuntimeError: on every rank alike; the message is that of the first problem.
    """
    rank, _ = get_dist_info()
    times, outcome = [time.time()], [None]
    with preserved_random_state():
        train = extract_tokens(backbone, data.train, data.settings, data.preprocess, device)
        val = extract_tokens(backbone, data.val, data.settings, data.preprocess, device)
        times.append(time.time())
        if rank == 0:
            try:
                with torch.enable_grad(), torch.autocast(torch.device(device).type, enabled=False):
                    knn = choose_knn(train, val, data, device)
                    times.append(time.time())
                    probe = choose_head(train, val, data, device)
                times.append(time.time())
                counts = dict(train=len(train), held_out=int(data.choose.sum()), test=len(val))
                spent = [round(b - a, 2) for a, b in zip(times, times[1:])]
                found = dict(knn_top1=knn['top1'], probe_top1=probe['top1'], knn=knn, probe=probe, images=counts)
                found.update(variety(val[:, -1, -1]))  # the mean patch of the last block, which every backbone has
                seconds = dict(zip(('features', 'knn', 'probe'), spent))
                outcome = [dict(found, classes=len(data.classes), seconds=seconds)]
            except Exception as error:  # the others wait for an answer
                outcome = [f'{type(error).__name__}: {error}']
        broadcast_object_list(outcome)
    if isinstance(outcome[0], str):
        raise RuntimeError(outcome[0])
    return outcome[0]
