"""The rows of ``make gpu-bench``, in the order in which a lent device answers what is asked most."""

from __future__ import annotations

import argparse
import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from mim_mm.benchmarks import ceilings, step, tool_run
from mim_mm.benchmarks.contenders import ARCHS, model_config, ours
from mim_mm.benchmarks.session import Row
from mim_mm.benchmarks.step import Setting, default_dtype
from mim_mm.benchmarks.timing import take_turns

# of one H100, docs/speed.md
TARGETS = {
    'EMAE ViT-B images/s': 2100.0,
    'EMAE ViT-L images/s': 900.0,
    "MAE ViT-B against mmpretrain's": 2.0,
    'MAE ViT-B against the best peer': 1.3,
}


@dataclass(frozen=True)
class Sizes:
    """How large everything is: as published on a GPU, small for a rehearsal."""

    device: str = 'cuda'
    arch: str = 'B/16'
    large: str = 'L/16'
    size: int = 224
    mae: int = 512  # images a step
    emae: int = 256
    emae_large: int = 128
    product: int = 8192
    copy: int = 1 << 30
    rounds: int = 3
    steps: int = 3
    iterations: int = 20  # of the real tools
    tool_batch: int = 256
    workers: int = 14
    curve: int = 200
    curve_batch: int = 64
    classes: int = 1000
    bank: int = 100_000
    detector: str = 'base'
    detector_size: int = 1024
    detector_batch: int = 8
    recipes: tuple[str, str, str, str] = (
        'configs/mae/mae_vitb_300e.py',
        'configs/emae/emae_vitb_300e.py',
        'configs/linear/vitb_linear_90e.py',
        'configs/finetune/vitb_finetune_100e.py',
    )
    images: str | None = None
    coco: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        return dict(bf16=torch.bfloat16, fp32=torch.float32)[default_dtype(self.device)]


SMALL = Sizes(
    device='cpu', arch='S/16', large='S/16', size=32, mae=4, emae=2, emae_large=2, product=256, copy=1 << 20, rounds=1,
    steps=1, iterations=4, tool_batch=2, workers=0, curve=3, curve_batch=2, classes=10, bank=1000, detector='tiny',
    detector_size=128, detector_batch=1,
    recipes=(
        'configs/mae/mae_vits_300e.py', 'configs/emae/emae_vits_300e.py', 'configs/linear/vits_linear_90e.py',
        'configs/finetune/vits_finetune_200e.py',
    ),
)  # fmt: skip


def call(module: str, *words: object, say: Callable[[str], None]) -> dict:
    """What ``tools/benchmark.py MODULE WORDS`` measures."""
    bench, parser = importlib.import_module(f'mim_mm.benchmarks.{module}'), argparse.ArgumentParser()
    bench.arguments(parser)
    return bench.execute(parser.parse_args([str(word) for word in words]), say)


def doctor(sizes: Sizes, folder: Path, say: Callable) -> dict:
    from mim_mm.compat import doctor

    return dict(text=f'```\n{doctor.as_text(doctor.examine())}\n```')


def tool(sizes: Sizes, folder: Path, say: Callable, which: int, name: str, options: dict | None = None) -> dict:
    """One of ``sizes.recipes`` through ``tools/train.py``: images/s with loader, and waits for the device."""
    batch = sizes.tool_batch
    data = tool_run.class_folders(folder / f'images_{sizes.iterations * batch}', sizes.iterations * batch)
    options = dict(options or {})
    if which > 1:  # of two classes
        options |= {'train_cfg.val_interval': 1000, 'model.head.num_classes': 2, 'val_evaluator.topk': 1}
    found = tool_run.train(
        sizes.recipes[which], data, folder / f'run_{name}', sizes.iterations, batch, sizes.workers, options
    )
    waits = 'none counted (CPU)' if found['waits'] is None else f'{found["waits"]} waits of the host an iteration'
    text = f'{sizes.recipes[which]}, batch {batch}: {found["images_s"]:,.4g} images/s with its loader, {waits}'
    headline = {f'{name}: images/s of tools/train.py': found['images_s']}
    if found['waits'] is not None:
        headline[f'{name}: waits an iteration'] = found['waits']
    return dict(found, text=text, headline=headline)


def limits(sizes: Sizes, folder: Path, say: Callable) -> dict:
    """Matrix products (large ones, and those of the decoder of EMAE-B), copies, attention of encoder and decoder."""
    device, side = torch.device(sizes.device), sizes.product
    tokens = (sizes.size // 16) ** 2 + 1
    rows = sizes.emae * 4 * tokens  # 4 parts an image
    shapes = [(side, side, side), (rows, 512, 512), (rows, 512, 2048), (rows, 2048, 512), (rows, 512, 1536)]
    found = ceilings.products(shapes, device, sizes.dtype, sizes.rounds, say)
    found.append(ceilings.copies(sizes.copy, device, sizes.rounds, say))
    parts = sizes.emae * 4
    heads = {'decoder, 16 heads of 32': (parts, 16, tokens, 32), 'encoder, 12 heads of 64': (parts, 12, 50, 64)}
    found += ceilings.attention(heads, device, sizes.dtype, sizes.rounds, say)
    lines = ['| | | |', '|---|---|---|']
    for row in found:
        what = next((f'{row[key]:.4g} {unit}' for key, unit in UNITS.items() if key in row), row.get('error'))
        lines.append(f'| {row["name"]} | {what} | {row.get("spread", 0):.0%} |')
    headline = {'matrix product alone, TFLOP/s': found[0].get('tflops'), 'copy, GB/s': found[5].get('gb_s')}
    return dict(rows=found, text='\n'.join(lines), headline=headline)


UNITS = dict(tflops='TFLOP/s', gb_s='GB/s', ms='ms')


def steps(sizes: Sizes, folder: Path, say: Callable, parts: int, name: str) -> dict:
    """Eager steps of ours and of all others, with shares."""
    arch = sizes.large if name.endswith('L') else sizes.arch
    batch = sizes.mae if parts == 1 else sizes.emae_large if name.endswith('L') else sizes.emae
    setting = Setting(arch, parts, batch, sizes.size, default_dtype(sizes.device), sizes.device)
    result = step.run(setting, sizes.rounds, sizes.steps, 2, say=say)
    speed = {row['name']: row['images_s'] for row in result['rows'] if 'error' not in row}
    mine = next((value for key, value in speed.items() if key.startswith('ours')), None)
    headline = {f'{name} images/s': mine}
    if parts == 1 and mine:
        theirs = speed.pop("mmpretrain's MAE", None)
        headline[f"{name} against mmpretrain's"] = mine / theirs if theirs else None
        peers = [value for key, value in speed.items() if not key.startswith('ours')]
        headline[f'{name} against the best peer'] = mine / max([*peers, theirs or 0]) if peers or theirs else None
    return dict(result, text=step.table(result), headline=headline, measurements=step.measurements([result]))


def _step_of(sizes: Sizes, parts: int) -> tuple[torch.device, dict, torch.Tensor]:
    """Device, model config and uint8 images (B, 3, H, W) of a step of MAE (one part) or EMAE."""
    device, (arch, patch) = torch.device(sizes.device), ARCHS[sizes.arch]
    generator = torch.Generator().manual_seed(0)
    shape = (sizes.mae if parts == 1 else sizes.emae, 3, sizes.size, sizes.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    return device, model_config(arch, parts, sizes.size, patch), images


def compiled(sizes: Sizes, folder: Path, say: Callable, parts: int, name: str) -> dict:
    """The compiled step: its gradient against the eager one's, and images/s of the ways to predict pixels."""
    device, cfg, images = _step_of(sizes, parts)
    batch = len(images)
    eager, graph = (ours(cfg, sizes.dtype, device, compiled) for compiled in (False, True))
    apart = gradient_difference(eager, graph, images)
    plain = dict(cfg, decoder=dict(cfg['decoder'], fp32_head=not cfg['decoder']['fp32_head']))
    head = ['in bf16', 'in fp32'][cfg['decoder']['fp32_head']]
    other = ['in bf16', 'in fp32'][plain['decoder']['fp32_head']]
    contenders = {
        'eager': eager,
        f'compiled, head {head}': graph,
        f'compiled, head {other}': ours(plain, sizes.dtype, device, True),
    }
    actions = {key: (lambda c=c: c.step(images)) for key, c in contenders.items()}
    if head == 'in fp32' and device.type == 'cuda':
        actions['compiled, head in TF32'] = partial(_in_tf32, ours(cfg, sizes.dtype, device, True), images)
    timings = take_turns(actions, device, sizes.rounds, sizes.steps, 3, say=say)
    lines = ['| | images/s | +- | peak GiB |', '|---|---|---|---|']
    speed = {}
    for key, timing in timings.items():
        if isinstance(timing, str):
            lines.append(f'| {key} | failed: {timing} | | |')
            continue
        speed[key] = batch / timing.median
        peak = '' if timing.peak is None else f'{timing.peak / 2**30:.1f}'
        lines.append(f'| {key} | {speed[key]:,.4g} | {timing.spread:.0%} | {peak} |')
    text = '\n'.join([*lines, '', f'Gradient against eager, same weights, images and masks: {apart:.1e} (norm of the'])
    text += ' difference over norm).'
    best = max((value for key, value in speed.items() if key.startswith('compiled')), default=None)
    headline = {f'{name} images/s, compiled': best, f'{name}, gradient compiled against eager': apart}
    return dict(speed=speed, gradient=apart, text=text, headline=headline)


def autotuned(sizes: Sizes, folder: Path, say: Callable, parts: int, name: str) -> dict:
    """The step of ``CompileHook(mode='max-autotune-no-cudagraphs')`` beside the compiled one: inductor then times the
    library's product against its own, which have bias and GELU of a block in the same kernel, and takes the faster."""
    device, cfg, images = _step_of(sizes, parts)
    batch = len(images)
    modes = {'compiled': True, 'compiled, autotuned': AUTOTUNED}
    contenders = {key: ours(cfg, sizes.dtype, device, mode) for key, mode in modes.items()}
    apart = gradient_difference(*contenders.values(), images)
    actions = {key: (lambda c=c: c.step(images)) for key, c in contenders.items()}
    timings = take_turns(actions, device, sizes.rounds, sizes.steps, 3, say=say)
    failed = next((timing for timing in timings.values() if isinstance(timing, str)), None)
    if failed:
        raise RuntimeError(failed)
    plain, tuned = (batch / timing.median for timing in timings.values())
    text = f'compiled {plain:,.4g}, autotuned {tuned:,.4g} images/s ({tuned / plain:.3f} x); '
    text += f'gradients differ by {apart:.1e} (norm of the difference over norm)'
    return dict(text=text, gradient=apart, headline={f'{name}, autotuned against compiled': tuned / plain})


AUTOTUNED = 'max-autotune-no-cudagraphs'


def _in_tf32(contender, images) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        contender.step(images)
    finally:
        torch.set_float32_matmul_precision(before)


def gradient_difference(eager, graph, images) -> float:
    """Norm of the difference of two contenders' gradients over the norm of the first's; weights and masks are equal."""
    found = []
    for contender in (eager, graph):
        device = next(contender.model.parameters()).device
        contender.model.mask_generator = torch.Generator(device=device).manual_seed(0)
        contender.model.zero_grad()
        contender.loss(images).backward()
        contender.model.mask_generator = None
        found.append([p.grad.detach().double() for p in contender.model.parameters() if p.grad is not None])
        contender.model.zero_grad()
    apart = torch.stack([(a - b).square().sum() for a, b in zip(*found, strict=True)]).sum().sqrt()
    return (apart / torch.stack([a.square().sum() for a in found[0]]).sum().sqrt()).item()


def packed(sizes: Sizes, folder: Path, say: Callable) -> dict:
    small = sizes.device == 'cpu'
    width, layers, batch = (64, 1, 4) if small else (768, 12, sizes.emae)
    found = call('packed', '--device', sizes.device, '--step', '--width', width, '--layers', layers, '--batch', batch,
                 '--ratios', 0.6, 0.9, '--rounds', sizes.rounds, say=say)  # fmt: skip
    return dict(found, text=f'```\n{found["text"]}\n```')


def probe(sizes: Sizes, folder: Path, say: Callable) -> dict:
    arch = dict(B='base', S='deit-small')[sizes.arch[0]]
    more = ['--images', sizes.images, '--workers', sizes.workers] if sizes.images else []
    return call('probe', '--arch', arch, '--size', sizes.size, '--device', sizes.device, '--batch',
                sizes.tool_batch, '--classes', sizes.classes, '--bank', sizes.bank, '--rounds', sizes.rounds,
                '--steps', sizes.steps, *more, say=say)  # fmt: skip


def detector(sizes: Sizes, folder: Path, say: Callable) -> dict:
    """Where a step of Mask R-CNN goes, COCO evaluation, and 20 steps on a COCO folder where there is one."""
    more = ['--train', 20, '--data', sizes.coco, '--workers', sizes.workers] if sizes.coco else []
    found = call('coco', '--arch', sizes.detector, '--size', sizes.detector_size, '--batch', sizes.detector_batch,
                 '--device', sizes.device, '--images', 0 if sizes.device == 'cpu' else 50, '--rounds', sizes.rounds,
                 *more, say=say)  # fmt: skip
    return dict(found, headline={'Mask R-CNN ViT-B images/s': found['step']['images_s']})


def loader(sizes: Sizes, folder: Path, say: Callable) -> dict:
    images = sizes.images or tool_run.class_folders(folder / 'images_64', 64) / 'train'
    return call('data', '--images', images, '--count', 64, '--rounds', sizes.rounds, say=say)


def decoding(sizes: Sizes, folder: Path, say: Callable) -> dict:
    """JPEGs decoded, cropped and resized on the device, a batch at a time."""
    from mmengine.dataset import Compose

    from mim_mm.data.unlabelled import list_images
    from mim_mm.registry import MODELS

    root = sizes.images or tool_run.class_folders(folder / 'images_64', 64) / 'train'
    paths = list_images(root)[:64]
    steps = [dict(type='mim_mm.LazyLoadImageFromFile'), dict(type='mim_mm.CropOnDevice', scale=224)]
    samples = [Compose(steps)(dict(img_path=str(path))) for path in paths]
    data = {key: [sample[key] for sample in samples] for key in samples[0]}
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    device = torch.device(sizes.device)
    make = MODELS.build(dict(type='mim_mm.DecodingPreprocessor', size=224, mean=mean, std=std)).to(device)
    timing = take_turns(dict(decode=lambda: make(copy.copy(data), True)), device, sizes.rounds, 3, 2, say=say)['decode']
    if isinstance(timing, str):
        raise RuntimeError(timing)
    speed = len(samples) / timing.median
    text = f'{speed:,.0f} images/s, batch {len(samples)}'
    return dict(text=text, headline={'decoding on the device, images/s': speed})


def curve(sizes: Sizes, folder: Path, say: Callable) -> dict:
    """Loss curves of bf16, eager and compiled, against fp32."""
    more = ['--images', sizes.images] if sizes.images else []
    picture = folder / 'curve.png'
    picture.unlink(missing_ok=True)
    found = call('curve', '--device', sizes.device, '--arch', sizes.arch, '--size', sizes.size, '--parts', 4, '--batch',
                 sizes.curve_batch, '--steps', sizes.curve, '--picture', picture, *more,
                 *(['--compile'] if sizes.device != 'cpu' else []), say=say)  # fmt: skip
    worst = max((mean for name, (_, mean) in found['differences'].items() if name != 'fp32 eager'), default=None)
    return dict(found, headline={'loss curve, mean relative difference from fp32': worst} if worst else {})


ALL = [
    Row('doctor', 1, doctor),
    Row('train_mae', 1, partial(tool, which=0, name='MAE')),
    Row('train_emae', 1, partial(tool, which=1, name='EMAE', options={'optim_wrapper.accumulative_counts': 1})),
    Row('ceilings', 1, limits),
    Row('emae_vitb', 1, partial(steps, parts=4, name='EMAE ViT-B')),
    Row('mae_vitb', 1, partial(steps, parts=1, name='MAE ViT-B')),
    Row('emae_vitl', 1, partial(steps, parts=4, name='EMAE ViT-L')),
    Row('compiled_emae', 2, partial(compiled, parts=4, name='EMAE ViT-B')),
    Row('compiled_mae', 2, partial(compiled, parts=1, name='MAE ViT-B')),
    Row('packed', 2, packed),
    Row('probe', 2, probe),
    Row('linear', 2, partial(tool, which=2, name='linear probe')),
    Row('finetune', 2, partial(tool, which=3, name='fine-tuning')),
    Row('detector', 2, detector),
    Row('loader', 2, loader),
    Row('curve', 2, curve),
    Row('autotuned', 2, partial(autotuned, parts=4, name='EMAE ViT-B')),  # minutes of trying products
    Row('decoding', 2, decoding),  # last: a decoder that crashes takes the process along
]
