"""kill -9 of a whole training at random moments, resumed each time: the result of one that nothing happened to.

Recipes of the repository at test size through tools/train.py, on one and on two ranks, with and without workers, random
crops, accumulated gradients, checkpoints at the ends of epochs or within. Compared bit for bit: weights, buffers,
optimizer, schedulers and counters of the last checkpoint.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from built_recipes import load
from downstream import ARCH, COCO, FINETUNE, LINEAR, pretraining_checkpoint, write_coco, write_image_folders
from tiny_run import ROOT, SHRINK
from yapf.yapflib import yapf_api

from mim_mm.checkpoint.atomic import latest_checkpoint

NAME = 'kill -9, resumed'
VARIANTS = (  # kind, ranks, workers, accumulated iterations, iterations between checkpoints (0: an epoch)
    ('pretrain', 1, 2, 2, 0),
    ('pretrain', 2, 0, 2, 0),
    ('finetune', 1, 2, 1, 0),
    ('detect', 1, 2, 2, 3),
    ('linear', 1, 2, 1, 0),
    ('pretrain', 2, 2, 3, 2),
    ('multiscale', 1, 2, 1, 2),
    ('finetune', 2, 2, 2, 0),
    ('pretrain', 1, 0, 3, 2),
    ('detect', 2, 0, 1, 2),
    ('linear', 2, 0, 1, 2),
    ('finetune', 1, 0, 3, 2),
)
PATIENCE_S = 240
_fork = multiprocessing.get_context('forkserver')


# ---- what is trained


def _options(kind):
    """The recipe of a kind and what makes it small."""
    loader = {'train_dataloader.batch_size': 3}
    vit = {'model.backbone.arch': dict(ARCH, _delete_=True), 'model.backbone.img_size': 32}
    images = {
        **loader, **vit, 'model.head.num_classes': 3, 'model.head.in_channels': 32,
        'train_dataloader.dataset.pipeline.1.scale': 32, 'val_dataloader.dataset.pipeline.1.scale': 36,
        'val_dataloader.dataset.pipeline.2.crop_size': 32, 'val_evaluator.topk': (1,), 'train_cfg.max_epochs': 3,
    }  # fmt: skip
    boxes = {
        'train_dataloader.batch_size': 1, 'model.rpn_head.in_channels': 16, 'model.rpn_head.feat_channels': 16,
        'model.roi_head.bbox_roi_extractor.out_channels': 16, 'model.roi_head.mask_roi_extractor.out_channels': 16,
        'model.roi_head.bbox_head.in_channels': 16, 'model.roi_head.bbox_head.fc_out_channels': 32,
        'model.roi_head.bbox_head.num_classes': 2, 'model.roi_head.mask_head.in_channels': 16,
        'model.roi_head.mask_head.conv_out_channels': 16, 'model.roi_head.mask_head.num_classes': 2,
        'model.train_cfg.rpn_proposal.nms_pre': 100, 'model.train_cfg.rcnn.sampler.num': 32,
        'model.test_cfg.rcnn.max_per_img': 5, 'train_dataloader.dataset.metainfo': dict(classes=('person', 'bicycle')),
        'val_dataloader.dataset.metainfo': dict(classes=('person', 'bicycle')), 'param_scheduler.0.end': 2,
    }  # fmt: skip
    if kind == 'pretrain':
        # Epochs of 8 batches (4 on two ranks): windows of 3 iterations stay open at their ends.
        short = {'train_cfg.max_epochs': 3, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1}
        return 'emae/emae_vitb_800e.py', {**SHRINK, **loader, **short, 'model.backbone.arch': dict(ARCH, _delete_=True)}
    if kind == 'linear':
        return LINEAR, {**images, 'model.neck.input_features': 32, 'model.backbone.frozen_stages': 4}
    if kind == 'finetune':
        return FINETUNE, {**images, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1}
    if kind == 'detect':
        return COCO.replace('fpn', 'simple'), {
            **boxes, 'model.backbone.arch': dict(ARCH, _delete_=True), 'model.backbone.img_size': 64,
            'model.backbone.window_size': 3, 'model.data_preprocessor.pad_size_divisor': 64,
            'model.neck.in_channels': 32, 'model.neck.out_channels': 16,
            'model.roi_head.bbox_head.conv_out_channels': 16,
            'train_dataloader.dataset.pipeline.3.scale': (64, 64),
            'train_dataloader.dataset.pipeline.4.crop_size': (64, 64),
            'val_dataloader.dataset.pipeline.1.scale': (64, 64), 'train_cfg.max_iters': 11,
            'train_cfg.val_interval': 11, 'param_scheduler.1.milestones': [8],
        }  # fmt: skip
    return 'coco/mask_rcnn_swint_fpn_ms_36e.py', {
        **boxes, 'model.backbone.arch': dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2], _delete_=True),
        'model.neck.in_channels': [16, 32, 64, 128], 'model.neck.out_channels': 16, 'train_cfg.max_epochs': 3,
        'train_cfg.val_interval': 3, 'val_dataloader.dataset.pipeline.1.scale': (96, 64),
        'param_scheduler.1.milestones': [2],
    }  # fmt: skip


def write_config(variant, data, path):
    """The config file of a variant; ``data`` has what :func:`write_data` made."""
    kind, _, workers, accumulate, every = variant
    recipe, options = _options(kind)
    place = data / ('coco' if kind in ('detect', 'multiscale') else 'images')
    for name in ('IMAGENET_ROOT', 'COCO_ROOT'):
        os.environ[name] = str(place)
    cfg = load(recipe)
    for loader in ('train_dataloader', 'val_dataloader'):
        if cfg.get(loader):
            options[f'{loader}.num_workers'] = workers if loader.startswith('train') else 0
            options[f'{loader}.persistent_workers'] = bool(workers) and loader.startswith('train')
            options[f'{loader}.pin_memory'] = False
    checkpoint = dict(by_epoch=not every, interval=every or 1)
    options |= {f'default_hooks.checkpoint.{key}': value for key, value in checkpoint.items()}
    options |= {'optim_wrapper.accumulative_counts': accumulate, 'default_hooks.logger.interval': 1}
    if kind != 'pretrain':
        options['init'] = str(data / f'{"swin" if kind == "multiscale" else "epoch_1"}.pth')
        if kind == 'multiscale':
            options.pop('init')
    if kind == 'multiscale':
        resize, crop = cfg.train_dataloader.dataset.pipeline[3].transforms
        for step in (resize[0], crop[0], crop[2]):
            step.scales = [(short // 10, long // 10) for short, long in step.scales]
        crop[1].crop_size = (38, 60)
    cfg.merge_from_dict(options)
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.dump(path)


def write_data(folder):
    """Images, annotations and an encoder, once for all trials next to each other."""
    if folder.exists():
        return
    made = folder.with_name(f'{folder.name}.{os.getpid()}')
    write_image_folders(made / 'images')
    write_coco(made / 'coco')
    torch.manual_seed(0)
    pretraining_checkpoint(made / 'epoch_1.pth')
    with contextlib.suppress(OSError):  # another trial was faster
        made.rename(folder)


# ---- processes


def _member(words, environment, log):
    """One rank: ``python tools/train.py WORDS`` in a process group of its own."""
    os.setsid()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ['tools/train.py', *words]
    torch.set_num_threads(1)
    # mmengine lays out the text of the config five times a run, which would take most of the time of one this short.
    yapf_api.FormatCode = lambda text, **options: (text, True)
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')


def _start(ranks, words, log):
    """The ranks, as torchrun starts them; all imports are done before (forkserver)."""
    _fork.set_forkserver_preload(['mim_mm.engine.start.launch', 'mmpretrain.models', 'mmdet.models', 'mmdet.datasets'])
    held = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)  # nobody takes its port
    meeting = dict(MASTER_PORT=str(held.port), TORCHELASTIC_USE_AGENT_STORE='True', TORCHELASTIC_RESTART_COUNT='0')
    members = []
    for rank in range(ranks):
        group = dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR='127.0.0.1')
        environment = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
        if ranks > 1:
            environment |= {**group, **meeting}
        launcher = ['--launcher', 'pytorch'] if ranks > 1 else []
        members.append(_fork.Process(target=_member, args=([*words, *launcher], environment, f'{log}.{rank}')))
        members[-1].start()
        members[-1].store = held
    return members


def _kill(members):
    for member in members:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(member.pid, signal.SIGKILL)
        member.join()


def _wait(members, until=lambda: False):
    """Whether all members ended, in order, before ``until()``; one that hangs is killed."""
    end = time.monotonic() + PATIENCE_S
    while any(member.is_alive() for member in members) and not until():
        if time.monotonic() > end or any(member.exitcode for member in members):
            _kill(members)
            return False
        time.sleep(0.01)
    return all(member.exitcode == 0 for member in members)


# ---- the trial


def _iterations(log):
    """Iterations that a run has logged by now, over all its attempts."""
    path = Path(f'{log}.0')
    return path.read_text().count(' lr: ') if path.exists() else 0


def run(variant, work, config, log, draw=None, kills=0, total=0):
    """Train to the end and kill it ``kills`` times on the way, each time within some iteration or between two.

    ``total``: iterations of the whole run.

    Returns:
        What happened in a word or two ('' for nothing), and the number of kills that hit a running process.
    """
    words = [str(config), '--work-dir', str(work), '--resume', 'auto']
    hit = 0
    for _ in range(kills):
        begun, members = _iterations(log), _start(variant[1], words, log)
        after, pause = begun + draw.randrange(0, total * 2 // 3), draw.random() * 0.4
        ended = _wait(members, lambda after=after: _iterations(log) >= after)
        if not ended and not any(member.is_alive() for member in members):
            return f'an attempt failed, exit codes {[member.exitcode for member in members]}', hit
        if not ended:
            time.sleep(pause)
            hit += any(member.is_alive() for member in members)
            _kill(members)
        if ended:
            break
    members = _start(variant[1], words, log)
    if not _wait(members):
        return f'the last attempt failed, exit codes {[member.exitcode for member in members]}', hit
    return '', hit


def compare(a, b):
    """Where two values of a checkpoint differ, as a path; None where they are the same bit for bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return None if same else ''
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            return ''
        pairs = [(key, a[key], b[key]) for key in a]
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return ''
        pairs = [(index, *both) for index, both in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b or (a != a and b != b) else f' {a} != {b}'
    found = [(key, compare(one, other)) for key, one, other in pairs]
    return next((f'.{key}{where}' for key, where in found if where is not None), None)


@functools.cache
def _code():
    """Names a state of the package: an undisturbed run of another state is no reference."""
    sources = sorted((ROOT / 'mim_mm').rglob('*.py'))
    return hashlib.sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()[:8]


@functools.cache
def _content(path):
    content = torch.load(path, weights_only=True)
    kept = {key: content.get(key) for key in ('state_dict', 'optimizer', 'param_schedulers', 'ema_state_dict')}
    return {**kept, 'place': {key: content['meta'][key] for key in ('iter', 'epoch')}}


def trial(number: int, folder: Path) -> tuple[bool, str]:
    """One run killed one to three times, against one of the same variant that was not; see the module's docstring.

    Args:
        number: the variant, and when it is killed.
        folder: of this trial; data and the undisturbed runs lie beside it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    variant, draw = VARIANTS[number % len(VARIANTS)], random.Random(number)
    name = '{} on {}, {} workers, accumulating {}, saved every {}'.format(*variant[:4], variant[4] or 'epoch')
    data, config = folder.parent / 'kills-data', folder / 'config.py'
    write_data(data)
    write_config(variant, data, config)
    whole = folder.parent / f'kills-whole-{_code()}-{number % len(VARIANTS)}'
    if not whole.exists():
        made = folder / 'whole'
        said, _ = run(variant, made, config, folder / 'whole.log')
        if said:
            return False, f'{name}: undisturbed: {said}'
        made.rename(whole)
    theirs = _content(latest_checkpoint(whole))
    times = dict(kills=draw.randint(1, 3), total=theirs['place']['iter'])
    said, hit = run(variant, folder / 'cut', config, folder / 'cut.log', draw, **times)
    if said:
        return False, f'{name}: {said} after {hit} kills'
    ours = _content(latest_checkpoint(folder / 'cut'))
    different = compare(ours, theirs)
    if different is None:
        shutil.rmtree(folder / 'cut')
    return different is None, f'{name}: {hit} kills, ' + ('the same bits' if different is None else f'{different[1:]}')


if __name__ == '__main__':  # python tests/faults/kills.py FOLDER FIRST END
    for at in range(int(sys.argv[2]), int(sys.argv[3])):
        began = time.monotonic()
        held, what = trial(at, Path(sys.argv[1]) / f'trial-{at}')
        print(f'{at:4} {"held" if held else "FAILED"} {time.monotonic() - began:5.1f} s  {what}', flush=True)
