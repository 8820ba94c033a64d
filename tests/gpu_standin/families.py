"""One recipe of every family at its real model size, cut to a few iterations: what runs on the stand-in GPU.

    families.py FOLDER NAME...      # in a process that sees the stand-in; writes FOLDER/results.json

Each is what ``tools/train.py`` does with its words, in a forked process of its own, so that only the first pays for the
imports. Images and the weights to start from are made here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENCODER = 'emae/emae_vitb_300e'


@dataclass(frozen=True)
class Family:
    """A recipe of configs/ and what is changed: ``options`` as --cfg-options, ``words`` of the command line."""

    recipe: str
    options: dict = field(default_factory=dict)
    words: tuple = ()
    start: str | None = None  # recipe whose encoder it starts from
    hooks: tuple = ()  # besides the recipe's

    @property
    def detects(self) -> bool:
        return self.recipe.startswith('coco/')


ONE_EPOCH = {'train_cfg.max_epochs': 1}
CLASSES = {'model.head.num_classes': 2, 'val_evaluator.topk': 1}
QUALITY = dict(type='mim_mm.QualityHook', max_train_per_class=4, max_val_per_class=2, batch_size=8, workers=0)
MASKS = dict(type='mim_mm.MaskDiagnosticsHook', interval=2)

FAMILIES = {
    'emae': Family('emae/emae_vitb_300e', ONE_EPOCH),
    'finetune': Family('finetune/vitb_finetune_100e', ONE_EPOCH | CLASSES, start=ENCODER),
    'mask-rcnn-fpn': Family('coco/mask_rcnn_vitb_fpn_ms_12e', ONE_EPOCH, start=ENCODER),
    'mask-rcnn-simple': Family(
        'coco/mask_rcnn_vitb_simple_lsj_100e', {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}, start=ENCODER
    ),
    'mask-rcnn-swin': Family('coco/mask_rcnn_swinb_fpn_ms_36e', ONE_EPOCH, start='simmim/simmim_swinb_800e'),
    'mask-rcnn-hivit': Family('coco/mask_rcnn_hivitb_fpn_ms_36e', ONE_EPOCH, start='emae/emae_hivitb_300e'),
    'emae-hivit': Family('emae/emae_hivitb_300e', ONE_EPOCH),
    'emae-progressive': Family('emae/emae_vitb_800e_progressive', {'train_cfg.max_epochs': 4}),
    'emae-compiled': Family('emae/emae_vitb_300e', ONE_EPOCH, ('--compile',)),
    'emae-watched': Family('emae/emae_vits_300e', ONE_EPOCH, hooks=(QUALITY, MASKS)),
    'mae': Family('mae/mae_vitb_300e', ONE_EPOCH),
    'mae-fp16': Family('mae/mae_vitb_300e', ONE_EPOCH | {'optim_wrapper.type': 'AmpOptimWrapper'}),
    'sbam': Family('sbam/sbam_emae_vitb_300e', ONE_EPOCH),
    'sbam-swin': Family('sbam/sbam_simmim_swinb_800e', ONE_EPOCH),
    'amr': Family('amr/amr_emae_vitb_300e', ONE_EPOCH),
    'amr-mae': Family('amr/amr_mae_vitb_400e', ONE_EPOCH),
    'amr-swin': Family('amr/amr_simmim_swinb_800e', ONE_EPOCH),
    'simmim': Family('simmim/simmim_vitb_800e', ONE_EPOCH),
    'simmim-swin': Family('simmim/simmim_swinb_800e', ONE_EPOCH),
    'beit': Family('beit/beit_vitb_300e', ONE_EPOCH),
    'cae': Family('cae/cae_vitb_300e', ONE_EPOCH),
    'linear': Family('linear/vitb_linear_90e', ONE_EPOCH | CLASSES, start=ENCODER),
    'attentive': Family('linear/vitb_cae_attentive_90e', ONE_EPOCH | CLASSES, start='cae/cae_vitb_300e'),
    'quick-probe': Family(
        'linear/vitb_quick_probe',
        {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2, 'model.head.num_classes': 2},
        start=ENCODER,
    ),
    'finetune-swin': Family(
        'finetune/swinb_finetune_simmim_100e', ONE_EPOCH | CLASSES, start='simmim/simmim_swinb_800e'
    ),
    'finetune-beit': Family('finetune/vitb_finetune_beit_100e', ONE_EPOCH | CLASSES, start='beit/beit_vitb_300e'),
    'pretrain-fsdp': Family('mae/mae_vitl_800e_fsdp', ONE_EPOCH, ('--launcher', 'pytorch')),
    'finetune-fsdp': Family(
        'finetune/vitl_finetune_50e_fsdp', ONE_EPOCH | CLASSES, ('--launcher', 'pytorch'), 'mae/mae_vitl_800e'
    ),
    'emae-ddp': Family('emae/emae_vitb_300e', ONE_EPOCH, ('--launcher', 'pytorch')),
}


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
    for part, count in (('train2017', 4), ('val2017', 2)):
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


def make_weights(config: dict, path: Path, prefix: str = '') -> Path:
    """A checkpoint of the module's names and shapes, all zeros and a few kilobytes."""
    import torch

    from mim_mm.registry import MODELS

    state = MODELS.build(config).state_dict()
    one = {name: torch.zeros((), dtype=value.dtype) for name, value in state.items()}
    torch.save({'state_dict': {prefix + name: one[name].expand(state[name].shape) for name in state}}, path)
    return path


def words_of(name: str, folder: Path) -> list[str]:
    """The command line of ``tools/train.py``; makes the weights it names."""
    from mmengine.config import Config

    family, work = FAMILIES[name], folder / name
    work.mkdir(parents=True)
    cfg = Config.fromfile(ROOT / 'configs' / f'{family.recipe}.py')
    options = {
        'train_dataloader.batch_size': 2 if family.detects else 4,
        'train_dataloader.num_workers': 1,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
        'default_hooks.checkpoint.save_best': None,
    }
    if cfg.get('val_dataloader'):
        options |= {'val_dataloader.num_workers': 1, 'val_dataloader.persistent_workers': False}
        options |= {} if family.detects else {'val_dataloader.batch_size': 4}
    options |= family.options
    if family.start:
        encoder = Config.fromfile(ROOT / 'configs' / f'{family.start}.py').model.backbone
        options['custom_hooks.0.checkpoint'] = str(make_weights(encoder, work / 'start.pth', 'backbone.'))
    if 'tokenizer' in cfg.model:
        options['model.tokenizer_checkpoint'] = str(make_weights(cfg.model.tokenizer, work / 'tokenizer.pth'))
    images = folder / 'images'
    root = str(images / 'coco') + '/' if family.detects else str(images / 'classes')
    words = [str(_config(family, cfg, work, root)), '--data-root', root, '--work-dir', str(work)]
    return [*words, *family.words, '--cfg-options', *(f'{key}={value}' for key, value in options.items())]


def _config(family: Family, cfg, work: Path, root: str) -> Path:
    """The recipe's file, or one with further hooks on top of it."""
    recipe = ROOT / 'configs' / f'{family.recipe}.py'
    if not family.hooks:
        return recipe
    looks = [{**hook, 'data': root} if hook is QUALITY else hook for hook in family.hooks]
    hooks = [*looks, *(dict(hook) for hook in cfg.get('custom_hooks') or [])]
    path = work / 'config.py'
    path.write_text(f'_base_ = {str(recipe)!r}\ncustom_hooks = {hooks!r}\n')
    return path


def train(name: str, folder: Path) -> None:
    """In the forked child: its output goes to FOLDER/NAME/log.txt."""
    from mim_mm.engine.launch import train_main

    words = words_of(name, folder)
    with open(folder / name / 'log.txt', 'w', buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                if 'pytorch' in words:
                    os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
                    os.environ['MASTER_PORT'] = str(_free_port())
                train_main(words)
            except BaseException:
                traceback.print_exc(file=log)
                raise


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def import_what_is_shared() -> None:
    """Without asking the driver for its devices (mmengine does), after which torch refuses CUDA in forked processes."""
    import torch

    asked, torch.cuda.is_available = torch.cuda.is_available, lambda: True
    import mmdet.models  # noqa: F401
    import mmpretrain.models  # noqa: F401

    import mim_mm.engine.launch  # noqa: F401

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
            code = 1
            try:
                train(name, folder)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        results[name] = dict(code=os.waitstatus_to_exitcode(status), seconds=round(time.time() - start, 1))
        print(name, results[name], flush=True)
        (folder / 'results.json').write_text(json.dumps(results))


if __name__ == '__main__':
    import mim_mm  # noqa: F401  before mmdet

    main()
