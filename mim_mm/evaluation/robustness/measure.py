"""``tools/robustness.py``: all sets of a call, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from mmengine.config import Config

from mim_mm import files
from mim_mm.evaluation.robustness.figures import mean_corruption_error, real_accuracy
from mim_mm.evaluation.robustness.sets import NAMES, build_classifier, corruptions, predict, training_classes
from mim_mm.folders import DataError


def measure(
    config: str,
    checkpoint: str,
    sets: Sequence[str],
    real: str | None = None,
    classes: str | None = None,
    device: str = 'cpu',
    loading: dict | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Evaluate a classifier on ``NAME=DIR`` sets.

    Returns:
        ``{'sets': {name: dict(top1, ece, images)}, 'real': ..., 'corruptions': {name: {severity: top1}}, 'ce': {name:
        per cent}, 'mce': per cent}``, what was asked for. mCE is left out, and said so, where ImageNet-C is not whole.

    Raises:
        DataError: an unknown set, a folder that is not there, a class that the training set lacks.
    """
    folders = _folders(sets)
    if real and 'val' not in folders:
        raise DataError('--real goes with the validation set: add val=DIR to --sets')
    cfg = Config.fromfile(config)
    if 'head' not in cfg.model or not cfg.get('test_dataloader'):
        raise DataError(f'{config} is no classifier with a test set')
    names = training_classes(cfg, classes)
    labels = files.read_json(real) if real else None
    model = build_classifier(cfg, checkpoint, device)
    pipeline = cfg.test_dataloader.dataset.pipeline
    loading = loading or dict(batch_size=64, workers=0)
    found: dict = dict(config=config, checkpoint=checkpoint, sets={})
    for name, folder in folders.items():
        if name == 'c':
            found.update(_corrupted(model, pipeline, folder, names, loading, say))
            continue
        seen = predict(model, pipeline, folder, names, name, loading)
        found['sets'][name] = seen.figures()
        say(f'{name}: {found["sets"][name]}')
        if name == 'val' and labels is not None:
            accuracy, count = real_accuracy(seen.files, seen.predicted, labels)
            found['real'] = dict(top1=accuracy, images=count)
    return found


def _folders(sets: Sequence[str]) -> dict[str, str]:
    folders = {}
    for item in sets:
        name, equals, folder = item.partition('=')
        if name not in NAMES or not equals or not os.path.isdir(folder):
            raise DataError(f'--sets {item!r} must be NAME=DIR with NAME of {", ".join(NAMES)} and an existing folder')
        folders[name] = folder
    return folders


def _corrupted(model, pipeline, folder: str, names: Sequence[str], loading: dict, say: Callable[[str], None]) -> dict:
    top1: dict[str, dict[int, float]] = {}
    for corruption, severity, place in corruptions(folder):
        seen = predict(model, pipeline, place, names, 'c', loading)
        top1.setdefault(corruption, {})[severity] = seen.figures()['top1']
        say(f'c/{corruption}/{severity}: {top1[corruption][severity]:.2f}')
    try:
        mce, parts = mean_corruption_error(top1)
    except DataError as error:
        say(f'no mCE: {error}')
        return dict(corruptions=top1)
    return dict(corruptions=top1, ce=parts, mce=mce)


def table(found: dict) -> str:
    """The figures of :func:`measure` as text, per cent."""
    lines = [f'{"set":10s} {"top-1":>7s} {"ECE":>7s} {"images":>8s}']
    for name, row in found['sets'].items():
        lines.append(f'{name:10s} {row["top1"]:7.2f} {row["ece"]:7.2f} {row["images"]:8,d}')
    if 'real' in found:
        lines.append(f'{"ReaL":10s} {found["real"]["top1"]:7.2f} {"":7s} {found["real"]["images"]:8,d}')
    if 'mce' in found:
        lines.append(f'{"C, mCE":10s} {found["mce"]:7.2f}   (100: AlexNet; smaller is better)')
    return '\n'.join(lines)
