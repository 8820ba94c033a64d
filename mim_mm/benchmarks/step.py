"""Whole training steps side by side: images/s, memory, FLOPs and how near to the device's own limit."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from mim_mm.benchmarks import peers
from mim_mm.benchmarks.contenders import (
    ARCHS,
    Contender,
    mmpretrain_contender,
    model_config,
    naive_emae,
    ours,
)
from mim_mm.benchmarks.timing import Timing, matmul_rate, synchronize, take_turns
from mim_mm.cost import work_of
from mim_mm.engine.hooks.progress import cpu_name
from mim_mm.targets import pixel_target


@dataclass(frozen=True)
class Setting:
    """What is measured: an encoder size of ``ARCHS``, K parts (1 is MAE), and the batch of images."""

    arch: str = 'B/16'
    parts: int = 4
    batch: int = 16
    size: int = 224
    dtype: str = 'bf16'
    device: str = 'cpu'

    @property
    def torch_dtype(self) -> torch.dtype:
        return dict(bf16=torch.bfloat16, fp32=torch.float32)[self.dtype]


def default_dtype(device: str) -> str:
    """bf16 where the device multiplies bf16 itself, else fp32."""
    if torch.device(device).type == 'cuda':
        return 'bf16'
    from mim_mm.engine.optim.precision import cpu_has_bf16

    return 'bf16' if cpu_has_bf16() else 'fp32'


def contenders(setting: Setting, compile_modes: Sequence[str | bool], with_peers: bool) -> dict[str, Contender]:
    """Everything that is measured, built one after the other from the same weights where the names allow it."""
    arch, patch = ARCHS[setting.arch]
    cfg = model_config(arch, setting.parts, setting.size, patch)
    device, dtype = torch.device(setting.device), setting.torch_dtype
    kind = f'EMAE K={setting.parts}' if setting.parts > 1 else 'MAE'
    found = {f'ours {kind}': ours(cfg, dtype, device)}
    weights = {k: v.detach().clone() for k, v in next(iter(found.values())).model.state_dict().items()}
    for mode in compile_modes:
        label = 'compiled' if mode is True else f'compiled, {mode}'
        found[f'ours {kind}, {label}'] = ours(cfg, dtype, device, compiled=mode)
    if setting.parts > 1:
        if dtype != torch.float32:  # the recipe's head is in fp32, the others' is not: what that costs
            plain = dict(cfg, decoder=dict(cfg['decoder'], fp32_head=False))
            found[f'{kind}, head in {setting.dtype}'] = ours(plain, dtype, device)
        found['naive EMAE on mmpretrain'] = naive_emae(cfg, weights, dtype, device)
        return found
    found["mmpretrain's MAE"] = mmpretrain_contender(cfg, weights, dtype, device)
    known = next(iter(found.values())).model.encoder
    dims = (known.width, known.depth, known.heads)
    for name, here in peers.available().items() if with_peers else ():
        if here:
            found[name] = peers.build(name, dims, setting.size, patch, dtype, device)
    return found


def parity(found: dict[str, Contender], setting: Setting) -> dict[str, float]:
    """Relative difference of the loss from ours, with the same weights, images and masks, in fp32 on four images."""
    device = torch.device(setting.device)
    images = torch.randint(0, 256, (4, 3, setting.size, setting.size), dtype=torch.uint8, device=device)
    patches = (setting.size // ARCHS[setting.arch][1]) ** 2
    order = next(iter(found.values())).model.masker(torch.zeros(4, patches, 1, device=device)).order
    losses = {}
    for name, contender in found.items():
        if name in peers.available() or ', compiled' in name:  # their own weights and masks; tested apart
            continue
        before, contender.dtype = contender.dtype, torch.float32
        with torch.no_grad():
            losses[name] = contender.loss(images, order).item()
        contender.dtype = before
    reference = next(iter(losses.values()))
    return {name: abs(loss - reference) / (abs(reference) or 1.0) for name, loss in losses.items()}


def shares(contender: Contender, images: torch.Tensor, rounds: int = 3) -> dict[str, float]:
    """Seconds of the parts of our eager step, each waited for: preprocessing, masker, encoder, decoder, loss, ..."""
    model, device = contender.model, images.device
    clock: dict[str, list[float]] = {}

    def timed(name: str, action: Callable, *args):
        synchronize(device)
        start = time.perf_counter()
        out = action(*args)
        synchronize(device)
        clock.setdefault(name, []).append(time.perf_counter() - start)
        return out

    def optimize() -> None:
        contender.wrapper.step()
        contender.wrapper.zero_grad()

    for _ in range(rounds + 1):
        with torch.autocast(device.type, torch.bfloat16, enabled=contender.dtype == torch.bfloat16):
            inputs = timed('preprocess', model.data_preprocessor, dict(inputs=images), True)['inputs']
            tokens = timed('patch embedding', model.encoder.embed, inputs)
            plan = timed('masker', model.draw_plan, tokens)
            length = plan.num_visible[0]
            latent = timed('encoder', model.encoder.encode, tokens, plan.order[..., :length])
            pred = timed('decoder', model.decoder, latent, plan.order.flatten(0, 1), length)
            target = timed('target', pixel_target, inputs, model.grid.patch_size, model.norm_pix, model.norm_eps)
            terms = timed('loss', model.compare, pred.unflatten(0, plan.order.shape[:2]), target, plan)
        total = sum(terms.losses.values())
        timed('backward', total.backward)
        timed('optimizer', optimize)
    return {name: min(values[1:]) for name, values in clock.items()}


def run(
    setting: Setting,
    rounds: int = 5,
    steps: int = 3,
    warmup: int = 2,
    compile_modes: Sequence[str | bool] = (),
    with_peers: bool = True,
    say: Callable[[str], None] = print,
) -> dict:
    """Measure one setting.

    Returns:
        A JSON-able dict: ``setting``, ``machine``, ``matmul_tflops`` (measured), ``gflops_image`` (forward and
        backward, counted), ``rows`` (name, images_s, spread, step_ms, peak_gib, tflops, mfu; or name, error),
        ``parity`` and ``shares`` (ms of our eager step).
    """
    device = torch.device(setting.device)
    torch.manual_seed(0)
    found = contenders(setting, compile_modes, with_peers)
    differences = parity(found, setting)
    shape = (setting.batch, 3, setting.size, setting.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    actions = {name: (lambda c=c: c.step(images)) for name, c in found.items()}
    timings = take_turns(actions, device, rounds, steps, warmup, say=say)
    rate = matmul_rate(device, setting.torch_dtype)
    arch, patch = ARCHS[setting.arch]
    work = work_of(dict(model=copy.deepcopy(model_config(arch, setting.parts, setting.size, patch))))
    rows = [_row(name, timing, setting, work.train, rate) for name, timing in timings.items()]
    first = next(iter(found.values()))
    synchronize(device)
    return dict(
        setting=asdict(setting),
        machine=machine(device),
        matmul_tflops=rate / 1e12,
        model=work.model,
        gflops_image=work.train / 1e9,
        rows=rows,
        parity=differences,
        shares={name: 1e3 * value for name, value in shares(first, images).items()},
    )


def _row(name: str, timing: Timing | str, setting: Setting, flops: float, rate: float) -> dict:
    if isinstance(timing, str):
        return dict(name=name, error=timing)
    images_s = setting.batch / timing.median
    peak = None if timing.peak is None else timing.peak / 2**30
    return dict(
        name=name,
        images_s=images_s,
        spread=timing.spread,
        step_ms=1e3 * timing.median,
        peak_gib=peak,
        tflops=images_s * flops / 1e12,
        mfu=images_s * flops / rate,
    )


def machine(device: torch.device) -> dict:
    """Hardware and versions that a figure needs beside it."""
    import torchvision

    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()
    return dict(
        device=name,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        cuda=torch.version.cuda if device.type == 'cuda' else None,
    )


def table(result: dict) -> str:
    """The result as Markdown."""
    s, m = result['setting'], result['machine']
    kind = 'MAE' if s['parts'] == 1 else f'EMAE K={s["parts"]}'
    lines = [
        f'{s["arch"]}, {kind}, {s["size"]} px, batch {s["batch"]}, {s["dtype"]}, synthetic input',
        f'{m["device"]}, {m["threads"]} CPU threads, torch {m["torch"]}, Python {m["python"]}; '
        f'matrix products alone: {result["matmul_tflops"]:.3g} TFLOP/s',
        f'{result["gflops_image"]:.1f} GFLOP an image, forward and backward, counted',
        '',
        '| | images/s | against ours | step ms | +- | peak GiB | MFU (of measured) |',
        '|---|---|---|---|---|---|---|',
    ]
    rows, ours_first = result['rows'], result['rows'][0].get('images_s')
    for row in rows:
        if 'error' in row:
            lines.append(f'| {row["name"]} | failed: {row["error"]} | | | | | |')
            continue
        ratio = f'{row["images_s"] / ours_first:.2f} x' if ours_first else ''
        peak = '' if row['peak_gib'] is None else f'{row["peak_gib"]:.1f}'
        lines.append(
            f'| {row["name"]} | {row["images_s"]:.4g} | {ratio} | {row["step_ms"]:.4g} | {row["spread"]:.0%} | {peak} '
            f'| {row["mfu"]:.0%} |'
        )
    total = sum(result['shares'].values())
    parts = ', '.join(f'{name} {value / total:.1%}' for name, value in result['shares'].items())
    lines += ['', f'Shares of our eager step, each part waited for: {parts}.']
    same = ', '.join(f'{name} {value:.1e}' for name, value in result['parity'].items())
    lines.append(f'Loss with the same weights, images and masks in fp32, relative difference from ours: {same}.')
    return '\n'.join(lines)


def arguments(parser) -> None:
    """The options of ``tools/benchmark.py step``."""
    add = parser.add_argument
    add('--arch', choices=ARCHS, default='B/16')
    add('--parts', type=int, default=[1, 4], nargs='+', metavar='K', help='parts: 1 is MAE, more is EMAE')
    add('--batch', type=int, default=16, help='images a step on the device')
    add('--size', type=int, default=224)
    add('--dtype', choices=['bf16', 'fp32'], help='default: bf16 where the device has it')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--threads', type=int, help='CPU threads; default: as torch chooses')
    add('--rounds', type=int, default=5)
    add('--steps', type=int, default=3, help='steps of each contender in a round')
    add('--warmup', type=int, default=2)
    add('--compile', action='store_true', help='add our compiled step')
    add('--cuda-graphs', action='store_true', help="add our step compiled with mode='reduce-overhead'")
    add('--no-peers', action='store_true', help='leave out timm, transformers and lightly')


def execute(args, say: Callable[[str], None]) -> dict:
    """Run the settings that the options ask for, one after the other."""
    if args.threads:
        torch.set_num_threads(args.threads)
    modes = ([True] if args.compile else []) + (['reduce-overhead'] if args.cuda_graphs else [])
    dtype = args.dtype or default_dtype(args.device)
    results = []
    for parts in args.parts:
        setting = Setting(args.arch, parts, args.batch, args.size, dtype, args.device)
        results.append(run(setting, args.rounds, args.steps, args.warmup, modes, not args.no_peers, say))
    return dict(
        results=results, text='\n\n'.join(table(result) for result in results), measurements=measurements(results)
    )


def measurements(results: Sequence[dict]) -> list[dict]:
    """Our fastest column of each setting, in the form that ``tools/plan.py`` reads."""
    found = []
    for result in results:
        own = [row for row in result['rows'] if row['name'].startswith('ours') and 'error' not in row]
        if own and result['machine']['cuda']:
            best = max(own, key=lambda row: row['images_s'])
            found.append(
                dict(
                    gpu=result['machine']['device'],
                    gpus=1,
                    model=result['model'],
                    images_per_second=best['images_s'],
                    mfu=best['mfu'],
                    source=f'tools/benchmark.py step, {best["name"]}, torch {result["machine"]["torch"]}',
                )
            )
    return found
