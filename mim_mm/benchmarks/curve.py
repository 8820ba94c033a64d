"""Does the fast path learn what the plain one learns? Loss curves from equal weights, images and masks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from mim_mm.benchmarks.contenders import ARCHS, model_config, ours
from mim_mm.benchmarks.step import default_dtype, machine

CONTROL = 'fp32, start moved'


def arguments(parser) -> None:
    """The options of ``tools/benchmark.py curve``."""
    add = parser.add_argument
    add('--arch', choices=ARCHS, default='B/16')
    add('--parts', type=int, default=4, metavar='K')
    add('--batch', type=int, default=64)
    add('--size', type=int, default=224)
    add('--steps', type=int, default=200)
    add('--lr', type=float, default=1.5e-4)
    add('--images', metavar='DIR', help='a folder of images; default: noise with structure')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--compile', action='store_true', help='also the compiled step')
    add('--control', action='store_true', help='also fp32 from weights moved by up to 1/512, the rounding of bf16')
    add('--picture', metavar='PNG', help='draw the curves there')


def batches(args, device: torch.device):
    """Yields uint8 batches (B, 3, size, size), the same ones for every call."""
    generator = torch.Generator().manual_seed(0)
    if args.images:
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms.v2.functional import center_crop, resize

        from mim_mm.data.unlabelled import list_images

        files = list_images(args.images)
        small = (resize(decode_image(file, ImageReadMode.RGB), args.size, antialias=True) for file in files[:512])
        pool = torch.stack([center_crop(image, [args.size] * 2) for image in small])
    else:  # smooth blobs: there is something to learn, unlike in white noise
        coarse = torch.rand(256, 3, args.size // 16, args.size // 16, generator=generator)
        pool = torch.nn.functional.interpolate(coarse, size=args.size, mode='bicubic').clamp(0, 1).mul(255).byte()
    for _ in range(args.steps):
        yield pool[torch.randint(len(pool), (args.batch,), generator=generator)].to(device)


def execute(args, say: Callable[[str], None]) -> dict:
    """Train the variants one after the other; each draws the masks of its step from the same seed."""
    device = torch.device(args.device)
    arch, patch = ARCHS[args.arch]
    cfg = model_config(arch, args.parts, args.size, patch)
    optimizer = dict(type='AdamW', lr=args.lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    variants = {'fp32 eager': (torch.float32, False)}
    if device.type == 'cuda' or default_dtype(args.device) == 'bf16':
        variants['bf16 eager'] = (torch.bfloat16, False)
    if args.control:
        variants[CONTROL] = (torch.float32, False)
    if args.compile:
        fast = torch.bfloat16 if 'bf16 eager' in variants else torch.float32
        variants['bf16 compiled' if fast == torch.bfloat16 else 'fp32 compiled'] = (fast, True)
    curves = {}
    for name, (dtype, compiled) in variants.items():
        contender = ours(copy.deepcopy(cfg), dtype, device, compiled, optimizer)
        if name == CONTROL:
            _move(contender.model)
        losses = []
        for step, images in enumerate(batches(args, device)):
            contender.model.mask_generator = torch.Generator(device=device).manual_seed(step)
            losses.append(contender.step(images))
        curves[name] = torch.stack(losses).tolist()
        say(f'{name}: {curves[name][0]:.4f} -> {curves[name][-1]:.4f}')
    differences = {name: _difference(curve, curves['fp32 eager']) for name, curve in curves.items()}
    if args.picture:
        _draw(curves, Path(args.picture))
    lines = [f'{cfg["type"]} {args.arch}, batch {args.batch}, {args.steps} steps, {machine(device)["device"]}', '']
    lines += ['| | first loss | last loss | mean of the last tenth | largest relative difference from fp32 | mean |']
    lines += ['|---|---|---|---|---|---|']
    for name, curve in curves.items():
        tail, (largest, mean) = curve[-max(1, len(curve) // 10) :], differences[name]
        lines.append(
            f'| {name} | {curve[0]:.5f} | {curve[-1]:.5f} | {sum(tail) / len(tail):.5f} | {largest:.1e} | {mean:.1e} |'
        )
    text = '\n'.join(lines)
    return dict(text=text, curves=curves, differences=differences, machine=machine(device), options=vars(args))


@torch.no_grad()
def _move(model: torch.nn.Module) -> None:
    """Change every trained weight by up to a part in 512, as rounding to bf16 may: what that alone does to a run."""
    generator = torch.Generator().manual_seed(1)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        noise = torch.rand(parameter.shape, generator=generator).to(parameter.device)
        parameter.mul_(1 + (2 * noise - 1) / 512)


def _difference(curve: list[float], reference: list[float]) -> tuple[float, float]:
    relative = [abs(a - b) / (abs(b) or 1.0) for a, b in zip(curve, reference, strict=True)]
    return max(relative), sum(relative) / len(relative)


def _draw(curves: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (top, bottom) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout='constrained')
    reference = curves['fp32 eager']
    for index, (name, curve) in enumerate(curves.items()):
        top.plot(curve, label=name, linewidth=1, color=f'C{index}')
        if name != 'fp32 eager':
            apart = [a - b for a, b in zip(curve, reference, strict=True)]
            bottom.plot(apart, label=f'{name} - fp32 eager', linewidth=1, color=f'C{index}')
    top.set_ylabel('loss')
    bottom.set(xlabel='step', ylabel='difference')
    for axes in (top, bottom):
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
