"""``tools/benchmark.py data``: images/s of a core through input pipelines that take turns, and their pixels."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image, ImageDraw

from mim_mm.benchmarks.step import machine
from mim_mm.benchmarks.timing import Timing, take_turns
from mim_mm.data.unlabelled import list_images

REFERENCE = 'mmpretrain, its MAE config'
PLAIN = 'plain: LoadImageFromFile, PackImage'
FAST = {'fast, OpenCV decodes': 'opencv', 'fast, simplejpeg decodes': 'simplejpeg', 'fast, crop-only decoder': 'crop'}
PACKAGES = ('simplejpeg', 'pillow', 'opencv-python-headless', 'torchvision')


def pipelines(size: int, area: tuple[float, float] = (0.2, 1.0)) -> dict[str, list[dict]]:
    """name -> transforms; all draw the same boxes and flips from the same seed."""
    load = dict(type='LoadImageFromFile')
    crop = dict(
        type='mmpretrain.RandomResizedCrop',
        scale=size,
        crop_ratio_range=area,
        backend='pillow',
        interpolation='bicubic',
    )
    flip, pack = dict(type='mmpretrain.RandomFlip', prob=0.5), dict(type='mim_mm.PackImage')
    our_flip = dict(type='mim_mm.FastRandomFlip', prob=0.5)
    found = {REFERENCE: [load, crop, flip, dict(type='mmpretrain.PackInputs')], PLAIN: [load, crop, flip, pack]}
    for name, decoder in FAST.items():
        fast = dict(type='mim_mm.FastRandomResizedCrop', scale=size, crop_ratio_range=area, decoder=decoder)
        found[name] = [dict(type='mim_mm.LazyLoadImageFromFile'), fast, our_flip, pack]
    return found


def crop_of(pipeline: Compose, path: str, seed: int) -> torch.Tensor:
    """One sample, uint8 (3, size, size) as the pipeline packs it."""
    np.random.seed(seed)
    return pipeline(dict(img_path=path, gt_label=0))['inputs']


def as_rgb(name: str, crop: torch.Tensor) -> torch.Tensor:
    """mmpretrain swaps the channels in its preprocessor only."""
    return crop.flip(0) if name == REFERENCE else crop


def psnr(reference: torch.Tensor, crop: torch.Tensor) -> float:
    """Decibels for 8-bit pixels; infinite where they are the same."""
    mse = (reference.double() - crop.double()).square().mean().item()
    return 10 * float(np.log10(255**2 / mse)) if mse else float('inf')


def build(size: int, say: Callable[[str], None], recipes: list[str] = ()) -> tuple[dict[str, Compose], dict[str, str]]:
    """Pipelines that can run here, those of recipes behind them, and why others cannot."""
    found, missing = {}, {}
    theirs = {path: Config.fromfile(path).train_dataloader.dataset.pipeline for path in recipes}
    for name, steps in {**pipelines(size), **theirs}.items():
        try:
            found[name] = Compose(steps)
        except (ImportError, RuntimeError) as error:
            missing[name] = str(error).split(':')[0]
            say(f'{name}: left out, {error}')
    return found, missing


def measure(found: dict[str, Compose], paths: list[str], rounds: int, seed: int, say: Callable) -> list[dict]:
    """Time every pipeline on all images, once a round; rows of figures in the order of ``found``."""
    cpu: dict[str, list[float]] = {name: [] for name in found}

    def once(name: str) -> None:
        start = time.thread_time()
        for index, path in enumerate(paths):
            crop_of(found[name], path, seed + index)
        cpu[name].append(time.thread_time() - start)

    contenders = {name: lambda name=name: once(name) for name in found}
    timings = take_turns(contenders, torch.device('cpu'), rounds=rounds, steps=1, warmup=1, say=say)
    rows, first = [], None
    for name, timing in timings.items():
        if isinstance(timing, str):
            rows.append(dict(name=name, error=timing))
            continue
        busy = Timing(tuple(cpu[name][1:]))  # without the warm-up
        first = first or busy.median
        views = isinstance(crop_of(found[name], paths[0], seed), list)  # nothing to compare their pixels with
        crops = ([as_rgb(n, crop_of(found[n], p, seed + i)) for n in (REFERENCE, name)] for i, p in enumerate(paths))
        quality = [float('nan')] if views else [psnr(old, new) for old, new in crops]
        rows.append(
            dict(
                name=name,
                images_s=len(paths) / busy.median,
                ratio=first / busy.median,
                spread=busy.spread,
                images_s_wall=len(paths) / timing.median,
                psnr_median=float(np.median(quality)),
                psnr_min=min(quality),
                identical=sum(q == float('inf') for q in quality) / len(quality),
            )
        )
    return rows


def table(result: dict) -> str:
    """The result as Markdown."""
    m = result['machine']
    versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items())
    lines = [
        f'{result["images"]} images (median {result["pixels"] / 1e6:.2f} MP, {result["bytes"] / 1e3:.0f} kB) to '
        f'{result["size"]} px, seed {result["seed"]}, {result["rounds"]} rounds, one thread',
        f'{m["device"]}, torch {m["torch"]}, Python {m["python"]}, {versions}; load {result["load"]:.1f} on '
        f'{os.cpu_count()} CPUs',
        '',
        "| pipeline | images/s a core | against mmpretrain's | +- | images/s, wall | PSNR median | min | identical |",
        '|---|---|---|---|---|---|---|---|',
    ]
    for row in result['rows']:
        if 'error' in row:
            lines.append(f'| {row["name"]} | not here: {row["error"]} | | | | | | |')
            continue
        lines.append(
            f'| {row["name"]} | {row["images_s"]:.0f} | {row["ratio"]:.2f} x | {row["spread"]:.0%} | '
            f'{row["images_s_wall"]:.0f} | {row["psnr_median"]:.1f} | {row["psnr_min"]:.1f} | {row["identical"]:.0%} |'
        )
    return '\n'.join(lines)


def picture(found: dict[str, Compose], paths: list[str], seed: int, target: str, columns: int = 6) -> None:
    """Write a PNG: crops of the reference, of the fastest pipeline, and 16 times their difference."""
    newest = list(found)[-1]
    pairs = [
        [as_rgb(name, crop_of(found[name], path, seed + i)).permute(1, 2, 0).numpy() for name in (REFERENCE, newest)]
        for i, path in enumerate(paths[:columns])
    ]
    side, bar = pairs[0][0].shape[0], 18
    sheet = Image.new('RGB', (len(pairs) * (side + 4), 3 * (side + bar)), 'white')
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate((REFERENCE, newest, '128 + 16 x the difference')):
        draw.text((4, row * (side + bar) + 3), title, fill='black')
        for column, (old, new) in enumerate(pairs):
            gap = np.clip(128 + 16 * (new.astype(int) - old), 0, 255).astype(np.uint8)
            shown = Image.fromarray((old, new, gap)[row])
            sheet.paste(shown, (column * (side + 4), row * (side + bar) + bar))
    sheet.save(target, 'PNG')


def arguments(parser) -> None:
    """The options of ``tools/benchmark.py data``."""
    add = parser.add_argument
    add('--images', required=True, metavar='DIR', help='folder of JPEGs of the size that will be trained on')
    add('--count', type=int, default=200, help='images at most, evenly out of the sorted list (default 200)')
    add('--size', type=int, default=224)
    add('--rounds', type=int, default=5)
    add('--seed', type=int, default=0, help='of boxes and flips')
    add('--picture', metavar='PNG', help='also write crops old and new side by side')
    add('--recipe', nargs='+', default=[], metavar='CONFIG', help='measure their training pipelines too')


def execute(args, say: Callable[[str], None]) -> dict:
    """Figures of every pipeline on the folder's images.

    Raises:
        FileNotFoundError: the folder is missing or holds no image.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    everything = list_images(args.images)
    count = max(1, min(args.count, len(everything)))
    paths = [everything[i * len(everything) // count] for i in range(count)]
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.width * image.height)
    init_default_scope('mim_mm')  # recipes name our transforms without it
    found, missing = build(args.size, say, args.recipe)
    shown = {name: pipeline for name, pipeline in found.items() if name not in args.recipe}
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else float('nan')
    rows = measure(found, paths, args.rounds, args.seed, say)
    rows += [dict(name=name, error=text) for name, text in missing.items()]
    if args.picture:
        picture(shown, paths, args.seed, args.picture)
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    result = dict(
        rows=rows,
        images=count,
        pixels=float(np.median(sizes)),
        bytes=float(np.median([Path(path).stat().st_size for path in paths])),
        size=args.size,
        seed=args.seed,
        rounds=args.rounds,
        load=load,
        versions=versions,
        machine=machine(torch.device('cpu')),
    )
    return dict(result, text=table(result))
