"""The quick probe and k-NN against the bare forward pass of their frozen encoder, which should be all their cost.

    tools/benchmark.py probe --arch deit-small --batch 32 --classes 100          # on a CPU
    tools/benchmark.py probe --device cuda --batch 256                           # ViT-B, 156 heads of 1000 classes
    tools/benchmark.py probe --device cuda --batch 256 --images DIR --workers 16 # also features of image files

All in one run, in turns, in one precision. DIR holds images, in class folders or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import Dataset

import mim_mm.engine  # noqa: F401  registers the constructor
from mim_mm.benchmarks.timing import Timing, take_turns
from mim_mm.evaluation.frozen.features import AMP, extract
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.evaluation.frozen.knn import nearest
from mim_mm.evaluation.probes.multi_probe import MultiProbe

BARE = 'bare forward'


class Labelled(Dataset):
    """Images as :func:`~mim_mm.evaluation.frozen.features.extract` takes them: uint8 BGR (3, S, S) in memory, or files.

    Args:
        pixels: (N, 3, S, S), or N paths of image files, which are read as evaluation reads them.
    """

    classes = ('none',)

    def __init__(self, pixels: Tensor | Sequence[str], preprocess: Preprocess):
        self.pixels = pixels
        self.items = [(str(index), 0) for index in range(len(pixels))]
        self.read = None
        if not isinstance(pixels, Tensor):
            from mmcv.transforms import Compose

            size = dict(scale=preprocess.resize, edge='short', backend='pillow', interpolation='bicubic')
            init_default_scope('mmpretrain')
            crop = dict(type='CenterCrop', crop_size=preprocess.crop)
            self.read = Compose([dict(type='LoadImageFromFile'), dict(type='ResizeEdge', **size), crop])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.read is None:
            return self.pixels[index], 0
        image = self.read(dict(img_path=self.pixels[index]))['img']
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), 0


def build(arch: str, size: int, classes: int, batch: int, device: torch.device, amp: bool) -> tuple[MultiProbe, object]:
    """The quick probe with its whole grid of heads, and its optimizer as in ``configs/linear/vitb_quick_probe.py``."""
    backbone = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=size, patch_size=16, out_type='raw')
    model = MultiProbe(dict(backbone, final_norm=True), dict(num_classes=classes), autocast=amp).to(device)
    optimizer = dict(type='SGD', lr=batch / 256, momentum=0.9, weight_decay=0.0, fused=True)
    return model, build_optim_wrapper(model, dict(optimizer=optimizer, constructor='mim_mm.ProbeHeadsConstructor'))


def contenders(model: MultiProbe, wrapper, batch: int, size: int, amp: str | None, device: torch.device) -> dict:
    """Name -> (images, a function that does them): the bare forward, features, the probe's training, evaluation."""
    preprocess = Preprocess(resize=size, crop=size)
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    inputs = preprocess.normalize(pixels.to(device))
    labels = torch.arange(batch, device=device) % model.head.num_classes
    several = Labelled(pixels.repeat(4, 1, 1, 1), preprocess)

    def bare() -> None:
        with torch.no_grad(), torch.autocast(device.type, AMP[amp]) if amp else nullcontext():
            model.backbone(inputs)

    def samples() -> list[DataSample]:
        return [DataSample().set_gt_label(label) for label in labels.split(1)]

    def train() -> None:
        model.train()
        wrapper.update_params(model.loss(inputs, samples())['loss'])

    def predict() -> None:
        model.eval()
        with torch.no_grad():
            model.predict(inputs, samples())

    return {
        BARE: (batch, bare),
        'features for k-NN': (
            len(several),
            lambda: extract(model.backbone, several, preprocess, amp, batch, 0, device),
        ),
        f'quick probe, {len(model.head.probes)} heads, training': (batch, train),
        f'quick probe, {len(model.head.probes)} heads, evaluation': (batch, predict),
    }


def search(bank: int, width: int, device: torch.device, queries: int = 1000) -> tuple[int, Callable[[], object]]:
    """200 nearest neighbours of 1000 queries in a random bank of this size, which lies in main memory."""
    rows = torch.randn(bank, width)
    asked = torch.randn(queries, width)
    return queries, lambda: nearest(asked, rows, min(200, bank), device=device)


def files(folder: str, model: nn.Module, args, amp: str | None, device: torch.device) -> tuple[int, Callable]:
    """Features of the first 512 images in a folder, reading and cropping included."""
    from mim_mm.data.unlabelled import list_images

    preprocess = Preprocess(resize=round(args.size * 8 / 7), crop=args.size)
    found = Labelled([str(path) for path in list_images(folder)[: args.most]], preprocess)
    return len(found), lambda: extract(model.backbone, found, preprocess, amp, args.batch, args.workers, device)


def arguments(parser) -> None:
    """The options of ``tools/benchmark.py probe``."""
    add = parser.add_argument
    add('--arch', default='base', help="of mmpretrain's VisionTransformer: deit-small, base, large")
    add('--size', type=int, default=224)
    add('--batch', type=int, help='images at a time; default: 256 on CUDA, 16 elsewhere')
    add('--classes', type=int, default=1000)
    add('--bank', type=int, default=100_000, help='images among which k-NN searches')
    add('--images', help='folder of images: also the features of files')
    add('--most', type=int, default=512, help='images of that folder that are used')
    add('--workers', type=int, default=4, help='loader processes for --images')
    add('--fp32', action='store_true', help='the encoder in fp32; default: bf16 where the device has it')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--threads', type=int, help='CPU threads; default: as torch chooses')
    add('--rounds', type=int, default=3)
    add('--steps', type=int, help='steps of each in a round; default: 5 on CUDA, 1 elsewhere')


def execute(args, say: Callable[[str], None]) -> dict:
    """Seconds for 1,000 images of everything, and how they compare with the bare forward."""
    from mim_mm.benchmarks.step import default_dtype, machine

    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    cuda = device.type == 'cuda'
    args.batch = args.batch or (256 if cuda else 16)
    amp = 'bf16' if not args.fp32 and default_dtype(args.device) == 'bf16' else None
    torch.manual_seed(0)
    model, wrapper = build(args.arch, args.size, args.classes, args.batch, device, bool(amp))
    work = contenders(model, wrapper, args.batch, args.size, amp, device)
    work[f'k-NN search, bank of {args.bank:,}'] = search(args.bank, model.backbone.embed_dims, device)
    if args.images:
        work['features of image files'] = files(args.images, model, args, amp, device)
    steps = args.steps or (5 if cuda else 1)
    timings = take_turns({name: step for name, (_, step) in work.items()}, device, args.rounds, steps, say=say)
    rows = [_row(name, timings[name], count) for name, (count, _) in work.items()]
    m = machine(device)
    base = rows[0].get('seconds')
    lines = [
        f'{args.arch}, {args.size} px, batch {args.batch}, {args.classes} classes, encoder in {amp or "fp32"}; '
        f'{m["device"]}, {m["threads"]} CPU threads, torch {m["torch"]}, Python {m["python"]}',
        '',
        '| | s for 1,000 images | +- | times the bare forward |',
        '|---|---|---|---|',
    ]
    for row in rows:
        if 'error' in row:
            lines.append(f'| {row["name"]} | failed: {row["error"]} | | |')
            continue
        row['ratio'] = row['seconds'] / base if base else None
        ratio = f'{row["ratio"]:.3f}' if base else ''
        lines.append(f'| {row["name"]} | {row["seconds"]:.4g} | {row["spread"]:.0%} | {ratio} |')
    return dict(text='\n'.join(lines), rows=rows, machine=m, options=vars(args))


def _row(name: str, timing: Timing | str, images: int) -> dict:
    if isinstance(timing, str):
        return dict(name=name, error=timing)
    return dict(name=name, seconds=1000 * timing.median / images, spread=timing.spread)
