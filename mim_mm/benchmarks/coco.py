"""COCO evaluation side by side, and where the time of a detector's training step goes.

    tools/benchmark.py coco --arch small --size 256 --batch 1       # on a CPU
    tools/benchmark.py coco --device cuda                           # ViT-B, 1024 px, batch 8
    tools/benchmark.py coco --device cuda --train 200 --data ROOT   # and 200 steps on a COCO folder

Detections are synthetic and the same for all; a step's parts are waited for one by one.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

import mim_mm.engine  # noqa: F401  registers what the recipes name
from mim_mm.benchmarks import detector, synthetic_coco
from mim_mm.benchmarks.timing import matmul_rate
from mim_mm.detection.metric import InMemoryCocoMetric

KINDS = ['bbox', 'segm']


def metrics(path: str) -> dict[str, Callable]:
    """Name -> a function that makes a fresh metric on the annotations ``path``."""
    from mmdet.evaluation.metrics import CocoMetric

    found = {
        "mmdet's CocoMetric": partial(CocoMetric, path, KINDS),
        'in memory, pycocotools': partial(InMemoryCocoMetric, path, KINDS),
        'in memory, arrays': partial(InMemoryCocoMetric, path, KINDS, evaluator='arrays'),
    }
    return found


def evaluation(images: int, rounds: int, device: torch.device, say: Callable[[str], None], count: int = 100) -> dict:
    """Every metric on the same annotations and detections, in turns; dense masks on the device, as from a detector.

    Returns:
        ``dict(images, detections, rows=[dict(name, process, compute, whole, spread, difference, exact)])``: seconds (of
        the processor where the device is one), medians, ``whole`` with its ``spread`` (half of fastest to slowest); at
        most, ``difference`` of the figures, of three decimals, from mmdet's, and ``exact`` of all 24 in full from
        pycocotools', where they can be had.
    """
    truth = synthetic_coco.annotations(images)
    samples = synthetic_coco.predictions(truth, count)
    for sample in samples:
        sample['pred_instances'] = {key: value.to(device) for key, value in sample['pred_instances'].items()}
    names = [category['name'] for category in truth['categories']]
    clock = time.process_time if device.type == 'cpu' else time.perf_counter  # a CPU may have other work
    times: dict[str, list] = {}
    figures: dict[str, dict] = {}
    full: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'truth.json')
        path.write_text(json.dumps(truth))
        for turn in range(rounds):
            for name, make in metrics(str(path)).items():
                say(f'{name}: round {turn + 1} of {rounds}')
                with contextlib.redirect_stdout(io.StringIO()):
                    metric = make()
                    metric.dataset_meta = dict(classes=names)
                    start = clock()
                    for sample in samples:
                        metric.process({}, [sample])
                    middle = clock()
                    figures[name] = dict(metric.compute_metrics(metric.results))
                times.setdefault(name, []).append((middle - start, clock() - middle))
                if getattr(metric, 'stats', None):
                    full[name] = np.concatenate([metric.stats[kind] for kind in KINDS])
    wanted = next(iter(figures.values()))
    rows = []
    for name, values in times.items():
        whole = [sum(pair) for pair in values]
        apart = max(abs(figures[name][key] - wanted[key]) for key in wanted)
        exact = float(np.abs(full[name] - next(iter(full.values()))).max()) if name in full else None
        rows.append(
            dict(
                name=name,
                process=median(v[0] for v in values),
                compute=median(v[1] for v in values),
                whole=median(whole),
                spread=(max(whole) - min(whole)) / 2,
                difference=apart,
                exact=exact,
            )
        )
    return dict(images=images, detections=images * count, rows=rows, figures=wanted, wall=clock is time.perf_counter)


def evaluation_table(result: dict) -> str:
    """Markdown."""
    slowest = result['rows'][0]['whole']
    seconds = 'seconds' if result['wall'] else 'CPU seconds'
    lines = [
        f'{result["images"]} images of 480 x 640, {result["detections"]} detections with masks, bbox, segm, {seconds}',
        '',
        '| | process | compute_metrics | whole | +- | times faster | figures differ by | in full |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for r in result['rows']:
        exact = '' if r['exact'] is None else f'{r["exact"]:.3g}'
        lines.append(
            f'| {r["name"]} | {r["process"]:.2f} | {r["compute"]:.2f} | {r["whole"]:.2f} | {r["spread"]:.2f} '
            f'| {slowest / r["whole"]:.1f} | {r["difference"]:.3g} | {exact} |'
        )
    return '\n'.join(lines)


def account_table(result: dict, rate: float, dtype: str, device: str) -> str:
    """Markdown; the part that loses most against the measured rate of matrix products is named."""
    total = sum(result['seconds'].values())
    peak = '' if result['peak_gib'] is None else f', {result["peak_gib"]:.1f} GiB'
    lines = [
        f'{result["size"]} px, batch {result["batch"]}, {device}, {dtype}: {result["step"]:.3f} s a step, '
        f'{result["images_s"]:.3g} images/s{peak}; matrix products alone {rate / 1e12:.3g} TFLOP/s',
        '',
        '| | seconds | share | TFLOP | TFLOP/s | of the matrix rate |',
        '|---|---|---|---|---|---|',
    ]
    for name, seconds in result['seconds'].items():
        work = result['flops'][name]
        speed = work / seconds
        lines.append(
            f'| {name} | {seconds:.4f} | {seconds / total:.1%} | {work / 1e12:.3g} | {speed / 1e12:.3g} '
            f'| {speed / rate:.0%} |'
        )
    work = sum(result['flops'].values())
    lines.append(f'| all | {total:.4f} | | {work / 1e12:.3g} | {work / total / 1e12:.3g} | {work / total / rate:.0%} |')
    name, seconds = offender(result, rate)
    lines += ['', f'Farthest from the matrix rate: {name}, {seconds:.3f} s of {total:.3f} s more than its arithmetic.']
    return '\n'.join(lines)


def offender(result: dict, rate: float) -> tuple[str, float]:
    """The part with the most seconds beyond FLOPs / rate, and these seconds."""
    lost = {name: seconds - result['flops'][name] / rate for name, seconds in result['seconds'].items()}
    name = max(lost, key=lost.get)
    return name, lost[name]


def train_table(result: dict) -> str:
    """Markdown: speed, memory, the mean loss of each tenth."""
    tenths = [f'{part.mean():.3f}' for part in np.array_split(result['losses'], 10) if len(part)]
    peak = '' if result['peak_gib'] is None else f', {result["peak_gib"]:.1f} GiB'
    head = (
        f'{len(result["losses"])} steps of {result["batch"]} images: {result["images_s"]:.3g} images/s{peak}, '
        f'waited on data {result["waited"]:.0%}; mean loss of each tenth:'
    )
    return '\n'.join([head, '', f'| {" | ".join(tenths)} |', f'|{"---|" * len(tenths)}'])


def arguments(parser) -> None:
    """The options of ``tools/benchmark.py coco``."""
    add = parser.add_argument
    add('--images', type=int, default=100, help='synthetic images for the evaluation; 0: leave it out')
    add('--config', default=str(detector.RECIPE), help='Mask R-CNN recipe with a plain ViT')
    add('--arch', choices=detector.ARCHS, help="encoder size (default: the recipe's)")
    add('--size', type=int, default=1024, help='side of the input')
    add('--batch', type=int, help='images a step; default: 8 on CUDA, 1 elsewhere; 0: no training step')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--threads', type=int, help='CPU threads; default: as torch chooses')
    add('--rounds', type=int, default=3)
    add('--train', type=int, default=0, metavar='N', help='also train N steps on --data')
    add('--data', help='folder laid out as COCO, for --train')
    add('--workers', type=int, default=4, help='loader processes of --train')
    add('--lr', type=float, default=1e-4, help='of --train')


def execute(args, say: Callable[[str], None]) -> dict:
    """The parts that are asked for.

    Raises:
        ValueError: ``--train`` without ``--data``, or negative counts.
        FileNotFoundError: ``--data`` is not a COCO folder.
    """
    if args.train and not args.data:
        raise ValueError(f'--train {args.train} needs --data, a folder laid out as COCO')
    if min(args.images, args.train, args.batch or 0, args.rounds - 1) < 0:
        raise ValueError(
            f'--images {args.images} --train {args.train} --batch {args.batch}: 0 or more, --rounds from 1'
        )
    from mim_mm.benchmarks.step import default_dtype, machine

    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    images = args.batch if args.batch is not None else 8 if device.type == 'cuda' else 1
    data_cfg = detector.recipe(args.config, args.arch, args.size, args.data) if args.train else None
    result, texts = dict(machine=machine(device)), []
    m = result['machine']
    texts.append(f'{m["device"]}, {m["threads"]} CPU threads, torch {m["torch"]}, Python {m["python"]}')
    if args.images:
        result['evaluation'] = evaluation(args.images, args.rounds, device, say)
        texts.append(evaluation_table(result['evaluation']))
    if images:
        dtype = default_dtype(args.device)
        rate = matmul_rate(device, dict(bf16=torch.bfloat16, fp32=torch.float32)[dtype])
        cfg = detector.recipe(args.config, args.arch, args.size)
        account = detector.account(cfg, images, args.size, device, args.rounds, say)
        result['step'] = dict(account, matmul_tflops=rate / 1e12, offender=offender(account, rate)[0])
        texts.append(account_table(account, rate, dtype, m['device']))
    if args.train:
        result['train'] = detector.train(data_cfg, args.train, images or 1, device, args.workers, args.lr, say)
        texts.append(train_table(result['train']))
    return dict(result, text='\n\n'.join(texts))
