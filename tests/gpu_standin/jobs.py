"""Run families and commands of families.py: jobs.py FOLDER NAME...  (in a process that sees the stand-in GPU).

Each in a forked process of its own, so that only the first pays for the imports; output goes to FOLDER/NAME/log.txt,
exit codes to FOLDER/results.json. Images and the weights to start from are made here.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from families import COMMANDS, DETECTOR, ENCODER, FAMILIES, Family
from waits import count_waits

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 4  # of an epoch of every family; the last of them logs


def make_images(folder: Path) -> None:
    """``folder/classes`` (train and val of two classes) and ``folder/coco``, of coloured squares."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)

    def draw(path: Path, height: int, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(path)

    for part, count in (('train', 8), ('val', 3)):
        for i in range(2 * count):
            draw(folder / 'classes' / part / f'class{i % 2}' / f'{i}.jpg', 240, 320)
    for part, count in (('training', 8), ('validation', 2)):
        for i in range(count):
            draw(folder / 'ade20k' / 'images' / part / f'{i}.jpg', 400, 400)
            labels = folder / 'ade20k' / 'annotations' / part / f'{i}.png'
            labels.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draws.integers(0, 151, (400, 400), dtype=np.uint8)).save(labels)
    for part, count in (('train2017', 8), ('val2017', 2)):
        for i in range(count):
            draw(folder / 'coco' / part / f'{i}.jpg', 480, 640)
        annotations = folder / 'coco/annotations' / f'instances_{part}.json'
        annotations.parent.mkdir(parents=True, exist_ok=True)
        annotations.write_text(json.dumps(_boxes(count)))


def _boxes(count: int) -> dict:
    """COCO's file for ``count`` images of 480 x 640 with four rectangles each, of four of its 80 classes."""
    from mmdet.datasets import CocoDataset

    found = []
    for i in range(count):
        for k in range(4):
            x, y, w, h = 40 + 140 * k, 60, 90, 200 + 40 * k
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            box = dict(bbox=[x, y, w, h], area=w * h, iscrowd=0, segmentation=[outline])
            found.append(dict(id=len(found) + 1, image_id=i + 1, category_id=k + 1, **box))
    return dict(
        images=[dict(id=i + 1, file_name=f'{i}.jpg', height=480, width=640) for i in range(count)],
        annotations=found,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])],
    )


def make_weights(config: dict, path: Path, prefix: str = '', scope: str | None = None) -> Path:
    """A checkpoint of the module's names and shapes, all zeros and a few kilobytes."""
    import torch
    from mmengine.registry import DefaultScope

    from mim_mm.registry import MODELS

    with DefaultScope.overwrite_default_scope(scope):
        state = MODELS.build(config).state_dict()
    one = {name: torch.zeros((), dtype=value.dtype) for name, value in state.items()}
    zeros = {prefix + name: one[name].expand(state[name].shape) for name in state}
    torch.save(dict(state_dict=zeros, meta=dict(iter=1, epoch=1)), path)
    return path


def words_of(name: str, folder: Path) -> list[str]:
    """The command line of ``tools/train.py``; makes the weights it names."""
    family, work = FAMILIES[name], folder / name
    cfg = recipe(family.recipe)
    options = {
        'train_dataloader.batch_size': 2 if family.detects or family.segments else 4,
        'train_dataloader.num_workers': 1,
        'default_hooks.logger.interval': ITERATIONS,
        'default_hooks.finite.interval': 1,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
        'default_hooks.checkpoint.save_best': None,
    }
    if cfg.get('val_dataloader'):
        options |= {'val_dataloader.num_workers': 1, 'val_dataloader.persistent_workers': False}
        options |= {} if family.detects or family.segments else {'val_dataloader.batch_size': 4}
    options |= family.options
    if family.start:
        encoder = recipe(family.start).model.backbone
        options['init'] = str(make_weights(encoder, work / 'start.pth', 'backbone.'))
    if 'tokenizer' in cfg.model:
        options['model.tokenizer_checkpoint'] = str(make_weights(cfg.model.tokenizer, work / 'tokenizer.pth'))
    images = folder / 'images'
    root = str(images / ('ade20k' if family.segments else 'classes'))
    root = str(images / 'coco') + '/' if family.detects else root
    words = [str(_config(family, work, root)), '--data-root', root, '--work-dir', str(work)]
    return [*words, *family.words, '--cfg-options', *(f'{key}={value}' for key, value in options.items())]


def _config(family: Family, work: Path, root: str) -> Path:
    """The recipe's file, or one on top of it."""
    path = ROOT / 'configs' / f'{family.recipe}.py'
    if not family.more:
        return path
    own = work / 'config.py'
    own.write_text(f'_base_ = {str(path)!r}\n' + family.more.replace('{root!r}', repr(root)))
    return own


def train(name: str, folder: Path) -> None:
    """A family, as ``tools/train.py`` does it."""
    from mim_mm.engine.start.launch import train_main

    words = words_of(name, folder)
    count_waits(folder / name / 'waits.json')
    if FAMILIES[name].resumed:
        first = os.fork()
        if first == 0:
            train_main(words)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0, 'the run that is to be resumed'
        words = [words[0], '--resume', str(folder / name / 'epoch_1.pth'), *words[1:]]
        os.environ.update(only_process())
    train_main(words)


def command(name: str, folder: Path) -> None:
    """A command line of COMMANDS."""
    work = folder / name
    images = folder / 'images'
    places = dict(images=images / 'classes', coco=images / 'coco', work=work)
    makers = dict(
        encoder=lambda: make_weights(recipe(ENCODER).model.backbone, work / 'encoder.pth', 'backbone.'),
        watched=lambda: make_weights(recipe(ENCODER).model.backbone, work / 'epoch_1.pth', 'backbone.').parent,
        classifier=lambda: make_weights(recipe('finetune/vitb_finetune_100e').model, work / 'classifier.pth'),
        detector=lambda: make_weights(recipe(DETECTOR).model, work / 'detector.pth', scope='mmdet'),
    )
    places |= {key: make() for key, make in makers.items() if f'{{{key}}}' in COMMANDS[name]}
    os.environ.update(COCO_ROOT=str(images / 'coco'), IMAGENET_ROOT=str(images / 'classes'))
    os.chdir(ROOT)
    words = COMMANDS[name].format(**places).split()
    if words[0].endswith('.sh'):  # torchrun: as many processes as devices
        own = dict(PYTHON=sys.executable, STANDIN_DEVICES=words[2], PORT='0')
        raise SystemExit(subprocess.run(['bash', *words], env={**os.environ, **own}).returncode)
    sys.argv = words
    runpy.run_path(words[0], run_name='__main__')


def recipe(name: str):
    """The config of ``configs/NAME.py``."""
    from mmengine.config import Config

    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def only_process() -> dict[str, str]:
    """What torchrun would set for a job of one process."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    return dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)


def in_child(name: str, folder: Path) -> int:
    """Run it, everything it prints in its log; the exit code."""
    work = folder / name
    work.mkdir(parents=True)
    with open(work / 'log.txt', 'w', buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        try:
            os.environ.update(only_process())
            (train if name in FAMILIES else command)(name, folder)
        except SystemExit as end:
            print(end.code)
            return 0 if end.code in (None, 0) else 1
        except BaseException:
            traceback.print_exc(file=log)
            return 1
    return 0


def import_what_is_shared() -> None:
    """Without asking the driver for its devices (mmengine does), after which torch refuses CUDA in forked processes."""
    import torch

    asked, torch.cuda.is_available = torch.cuda.is_available, lambda: True
    import mmdet.models  # noqa: F401
    import mmpretrain.models  # noqa: F401

    import mim_mm.engine.start.launch  # noqa: F401

    torch.cuda.is_available = asked


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    import_what_is_shared()
    make_images(folder / 'images')
    results = {}
    for name in names:
        start = time.time()
        child = os.fork()
        if child == 0:
            os._exit(in_child(name, folder))
        _, status = os.waitpid(child, 0)
        results[name] = os.waitstatus_to_exitcode(status)
        print(f'{name}: exit code {results[name]}, {time.time() - start:.1f} s', flush=True)
        (folder / 'results.json').write_text(json.dumps(results))


if __name__ == '__main__':
    import mim_mm  # noqa: F401  before mmdet

    main()
