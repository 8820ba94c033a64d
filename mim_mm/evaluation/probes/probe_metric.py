"""Choosing one of many probes without the test set: a held-out part of the training images, a metric, a report.

DINOv2's own script chooses among its heads on the set it reports, ImageNet's validation images. Here the training
folder is cut in two, the heads are trained on one part and compared on the other, and the test images are only read
off for the head that won.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mim_mm import files
from mim_mm.data.class_dataset import ClassFolders
from mim_mm.engine.bare_model import bare_datasets
from mim_mm.registry import DATASETS, HOOKS, METRICS

PARTS = ('fit', 'choose', 'report')
FILE_NAME = 'probe_heads.json'


def held_out(labels: Sequence[int], fraction: float, at_most: int, seed: int) -> np.ndarray:
    """Which images are held out: of each class a ``fraction``, at least 1 and at most ``at_most``, by ``seed``.

    A class with a single image keeps it for training.

    Args:
        labels: class of each image; the images are in an order that does not change between calls.

    Returns:
        (len(labels),) bool, True for held out.
    """
    labels = np.asarray(labels)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(members))), at_most, len(members) - 1)
        # A generator for each class: a class gained or lost leaves the others as they were.
        chosen[np.random.default_rng([seed, int(label)]).permutation(members)[:count]] = True
    return chosen


@DATASETS.register_module()
class ProbeImages(ClassFolders):
    """Labelled images of which the probes see a part; each sample says which (``probe_part``).

    Args:
        part: 'fit', the training folder without what is held out; 'choose', what is held out of it; 'report',
            all images of another folder.
        fraction: part of each class that is held out, at least one image.
        at_most: most images of a class that are held out.
        seed: of the choice. These three must be the same for 'fit' and 'choose'.
        **kwargs: Of :class:`mim_mm.ClassFolders`: class folders, or a list. For 'report' set ``classes_from``.

    Raises:
        ValueError: An unknown part, a fraction outside (0, 1), ``at_most`` below 1, nothing to hold out.
    """

    def __init__(self, part: str, fraction: float = 0.1, at_most: int = 50, seed: int = 0, **kwargs) -> None:
        if part not in PARTS:
            raise ValueError(f'part={part!r}: use one of {PARTS}')
        if not 0 < fraction < 1 or at_most < 1:
            raise ValueError(f'fraction={fraction} must be between 0 and 1, at_most={at_most} at least 1')
        self.part = part
        self.split = dict(fraction=fraction, at_most=at_most, seed=seed)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """The images of this part, sorted by path before they are divided."""
        images = sorted(super().load_data_list(), key=lambda info: info['img_path'])
        if self.part != 'report':
            wanted = held_out([info['gt_label'] for info in images], **self.split) == (self.part == 'choose')
            images = [info for info, yes in zip(images, wanted) if yes]
        if not images:
            raise ValueError(f'{self.img_prefix}: no image in part {self.part!r}; a class needs at least two images')
        return images

    def prepare_data(self, idx: int):
        """The packed image; its sample carries ``probe_part`` whatever keys the pipeline keeps."""
        packed = super().prepare_data(idx)
        if packed is not None:  # an image that cannot be read: mmengine takes another one
            packed['data_samples'].set_metainfo(dict(probe_part=self.part))
        return packed


@METRICS.register_module()
class ProbeAccuracy(BaseMetric):
    """Top-1 of every head on the held-out and on the test images, and the test accuracy of the head that was chosen.

    Chosen is the head with the highest accuracy on samples of part 'choose' (the first of equals). Metrics:
    ``accuracy/top1`` (%), its accuracy on part 'report'; ``probe/best_head``, its name; ``probe/best_lr``, its rate
    for 256 images; ``probe/held_out_top1`` (%), what it was chosen by; ``probe/num_heads``. ``details`` has all heads
    after an evaluation, on the main process.

    Args:
        collect_device: how processes exchange what they found: 'gpu' over the network, 'cpu' through a folder that all
            nodes see.

    Raises:
        ValueError: Samples do not say their part, or there are none of 'choose' or of 'report'.
    """

    def __init__(self, collect_device: str = 'gpu') -> None:
        super().__init__(collect_device, prefix='probe')
        self.prefix = None  # the names below are whole; given to the parent, it would warn
        self.probes: list = []
        self.details: dict = {}

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep one bit a head and image."""
        for sample in data_samples:
            part = sample.get('probe_part')
            if part not in ('choose', 'report'):
                raise ValueError(
                    f'an evaluated sample has probe_part={part!r}: the loader needs two data sets of '
                    "type mim_mm.ProbeImages, with part='choose' and part='report'"
                )
            self.probes = sample['probes']
            right = sample['probe_pred'] == sample['gt_label'].cpu()
            self.results.append((part, np.packbits(right.numpy()).tobytes()))

    def compute_metrics(self, results: list) -> dict:
        """See the class."""
        size = len(self.probes)
        bits = {'choose': [], 'report': []}
        for part, packed in results:
            bits[part].append(np.frombuffer(packed, np.uint8))
        missing = [part for part, rows in bits.items() if not rows]
        if missing:
            raise ValueError(f'no image of part {missing[0]!r} was evaluated: put both data sets into val_dataloader')
        top1 = {
            part: 100 * np.unpackbits(np.stack(rows), axis=1, count=size).mean(0, dtype=np.float64)
            for part, rows in bits.items()
        }
        best = int(np.argmax(top1['choose']))
        heads = [
            dict(
                name=p.name,
                blocks=p.blocks,
                pooling=p.pooling,
                norm=p.norm,
                lr=p.lr,
                held_out_top1=float(held),
                test_top1=float(test),
            )
            for p, held, test in zip(self.probes, top1['choose'], top1['report'])
        ]
        self.details = dict(
            best_head=heads[best]['name'],
            chosen_by='top-1 on images held out of the training set',
            images={'held_out': len(bits['choose']), 'test': len(bits['report'])},
            heads=heads,
        )
        return {
            'accuracy/top1': heads[best]['test_top1'],
            'probe/best_head': heads[best]['name'],
            'probe/best_lr': heads[best]['lr'],
            'probe/held_out_top1': heads[best]['held_out_top1'],
            'probe/num_heads': size,
        }


@HOOKS.register_module()
class ProbeReportHook(Hook):
    """Write ``<work_dir>/probe_heads.json`` after each evaluation, and see to it that no image is in both parts.

    The file: ``iteration``, ``best_head``, ``chosen_by``, ``images`` (how many held out, how many for the test) and
    ``heads``, for each its ``name``, ``blocks``, ``pooling``, ``norm``, ``lr`` (for 256 images), ``held_out_top1`` and
    ``test_top1`` in percent.

    Raises:
        ValueError: 'fit' and 'choose' divide the training folder differently, so that they would share images.
    """

    changes_learning = False

    def before_train(self, runner: Runner) -> None:
        fit, choose = (
            [d for d in bare_datasets(loader.dataset) if isinstance(d, ProbeImages) and d.part == part]
            for loader, part in ((runner.train_dataloader, 'fit'), (runner.val_dataloader, 'choose'))
        )
        described = [{(d.img_prefix, d.ann_file, *d.split.items()) for d in part} for part in (fit, choose)]
        if described[0] != described[1] or not fit:
            raise ValueError(
                f"training uses part 'fit' of {described[0]}, the choice part 'choose' of {described[1]}: both must "
                'divide the same folder by the same fraction, at_most and seed, or they share images'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write(runner, runner.val_loop.evaluator.metrics, runner.iter)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write(runner, runner.test_loop.evaluator.metrics, None)

    @staticmethod
    def _write(runner: Runner, metrics: list, iteration: int | None) -> None:
        found = [m.details for m in metrics if isinstance(m, ProbeAccuracy) and m.details]
        if not found or not is_main_process():
            return
        path = Path(runner.work_dir) / FILE_NAME
        files.write_json(path, dict(iteration=iteration, **found[0]))
        rates = [head['lr'] for head in found[0]['heads']]
        best = next(head for head in found[0]['heads'] if head['name'] == found[0]['best_head'])
        at_end = len(set(rates)) > 1 and best['lr'] in (min(rates), max(rates))
        hint = ' Its rate is at the end of the grid: widen model.head.lrs.' if at_end else ''
        runner.logger.info(f'Best of {len(rates)} heads on held-out images: {best["name"]}.{hint} All are in {path}')
