"""What a recipe or a chain of them will cost on given GPUs: time, memory, disk, energy, CPU cores, money."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mim_mm.cost.count import work_of
from mim_mm.cost.hardware import GPU, gpu
from mim_mm.cost.measured import Measurement, find
from mim_mm.cost.memory import checkpoint_bytes, checkpoints_kept, memory, optimizer_states
from mim_mm.cost.recipe import bare, train_steps
from mim_mm.cost.scaling import Assumptions, kernel_rate, step
from mim_mm.cost.work import Work

# Share of the GPU's peak that training reaches, where nothing was measured. pretrain: DailyMAE's 18 h on 8 A100 are
# 37 %, a roofline of eager and compiled ViT-B on an H100 gives 38 to 48 %; the others are guesses below it.
MFU = dict(pretrain=0.40, linear=0.40, probe=0.40, finetune=0.35, coco=0.25, seg=0.25, seg_linear=0.35)
# Images a second and CPU core, of full-size ImageNet JPEGs on one Xeon core. Measured (docs/results/input_pipeline.md):
# the recipes' fused crop from wheels alone (511 to 539), with RandAugment behind it (307 to 322), and mmpretrain's
# pipelines (254 to 272, 207). Two crops for a tokenizer, 1024-px scale jitter with masks and segmentation are guesses.
LOADER = dict(pretrain=260.0, linear=260.0, probe=260.0, finetune=200.0, coco=20.0, seg=40.0, seg_linear=40.0)
FUSED = dict(pretrain=520.0, linear=520.0, probe=520.0, finetune=310.0)
TWO_VIEWS = 120.0
# Seconds of one core for the colours of a view of 224 px, by its area: of docs/speed.md's 110 (one such view behind a
# crop of 256 px) and 33 images/s (2 of 224 px, 8 of 96 px) on one Xeon core this makes 98 and 33.
COLOURS_S = 8.3e-3
# ImageNet-1k train, val; COCO train2017 images with annotations, val2017; ADE20K.
IMAGES = dict(imagenet=(1281167, 50000), coco=(117266, 5000), ade20k=(20210, 2000))
DATA = dict(coco='coco', seg='ade20k', seg_linear='ade20k')  # kind -> whose images; else ImageNet's


@dataclass(frozen=True)
class Conditions:
    """What the user chose; everything that is not in a config."""

    gpus: int = 1
    gpu: str = 'h100'
    measurements: Sequence[Measurement] = ()
    mfu: Mapping[str, float] = field(default_factory=dict)
    loader: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    utilisation: float = 0.8
    pue: float = 1.2
    price: float | None = None
    nic_gbit: float | None = None
    size: int | None = None
    assumptions: Assumptions = Assumptions()

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ValueError(f'gpus={self.gpus} must be 1 or more')
        for name, values, known in (
            ('mfu', self.mfu, MFU),
            ('loader', self.loader, LOADER),
            ('images', self.images, IMAGES),
        ):
            wrong = [key for key in values if key not in known]
            if wrong:
                raise ValueError(f'{name} for {wrong[0]!r}: known are {", ".join(known)}')
            bad = [f'{key}={value}' for key, value in values.items() if not value > 0 or (name == 'mfu' and value > 1)]
            if bad:
                raise ValueError(f'{name} {bad[0]} must be above 0{" and at most 1" if name == "mfu" else ""}')
        if not 0 < self.utilisation <= 1 or self.pue < 1 or (self.price is not None and self.price < 0):
            raise ValueError(
                f'utilisation={self.utilisation} must be above 0 and at most 1, pue={self.pue} 1 or more, price='
                f'{self.price} not negative'
            )

    @property
    def spec(self) -> GPU:
        return gpu(self.gpu)

    @property
    def nic(self) -> float:
        """Network of each GPU, bytes/s."""
        return self.spec.nic if self.nic_gbit is None else self.nic_gbit / 8 * 1e9


@dataclass(frozen=True)
class StageEstimate:
    """One stage on N GPUs; times in hours, sizes in bytes, energy in kWh, FLOPs of the whole stage."""

    name: str
    kind: str
    work: Work
    gpus: int
    batch: int  # images of one GPU in one forward pass
    iterations: int
    images: int  # read in training
    evaluated: int  # read in evaluations
    flops: float
    rate: float  # images a second and GPU, efficiency included
    mfu: float
    basis: str
    efficiency: float
    hours: float
    gpu_hours: float
    memory: Mapping[str, float]
    disk: float
    checkpoints: int
    energy: float
    loader: float  # images a second of one CPU core
    cores: float  # for each GPU
    cost: float | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = {key: value for key, value in vars(self).items() if key != 'work'}
        work = self.work
        model = dict(name=work.model, params=work.params, trainable=work.trainable, forward_flops=work.forward,
                     train_flops=work.train, parts=[vars(part) for part in work.parts])  # fmt: skip
        return dict(plain, memory=dict(self.memory), notes=list(self.notes), model=model)


def schedule(cfg: Mapping, kind: str, batch: int, images: Mapping[str, int]) -> tuple[int, int, float, int]:
    """(iterations, images trained on, epochs, images evaluated) with ``batch`` images on all GPUs together."""
    name = DATA.get(kind, 'imagenet')
    train, val = images.get(name, IMAGES[name][0]), IMAGES[name][1]
    loop = cfg['train_cfg']
    if loop.get('max_iters'):
        iterations, total = loop['max_iters'], loop['max_iters']
        epochs = iterations * batch / train
    else:
        whole = train // batch if cfg['train_dataloader'].get('drop_last') else math.ceil(train / batch)
        epochs = total = loop['max_epochs']
        iterations = epochs * max(whole, 1)
    evaluations = total // loop.get('val_interval', 1) if cfg.get('val_dataloader') is not None else 0
    # The quick probe also evaluates what it holds out for the choice: as many images again.
    return iterations, iterations * batch, epochs, evaluations * val * (2 if kind == 'probe' else 1)


def estimate_stage(
    name: str, cfg: Mapping, conditions: Conditions, config: str = '', gpus: int | None = None
) -> StageEstimate:
    """Plan one recipe.

    Args:
        name: of the stage.
        cfg: the resolved config as a plain dict.
        conditions: the GPUs and the rest.
        config: path of the config, for looking up measurements.
        gpus: in place of the conditions'.

    Raises:
        ValueError: no cost model for its model, or an unknown GPU.
        KeyError: not a training config.
    """
    work = work_of(cfg, conditions.size)
    kind, spec, gpus, a = work.kind, conditions.spec, gpus or conditions.gpus, conditions.assumptions
    batch = cfg['train_dataloader']['batch_size']
    iterations, images, epochs, evaluated = schedule(cfg, kind, batch * gpus, conditions.images)
    peak = spec.bf16 if work.half else spec.fp32
    entry = find(conditions.measurements, conditions.gpu, work.model, config, gpus)
    if entry:
        rate, reference, basis = entry.images_per_second, entry.gpus, f'measured on {entry.gpus} x {conditions.gpu}'
    else:
        share = conditions.mfu.get(kind, MFU[kind])
        rate, reference, basis = share * peak / work.train, min(gpus, a.node), f'assumed MFU {share:.0%}'
        if a.host_ms and rate > batch / (a.host_ms * 1e-3):
            rate = batch / (a.host_ms * 1e-3)
            basis += f', but no step below {a.host_ms:g} ms'
    efficiency = _efficiency(work, cfg, conditions, batch, rate, reference, gpus)
    loader = loader_rate(cfg, kind, conditions)
    rate, bound = rate * efficiency, rate * efficiency
    if a.cores and a.cores * loader < rate:
        rate = a.cores * loader
        basis += f', limited by {a.cores:g} cores a GPU'
    seconds = images / (rate * gpus) + evaluated * (work.forward / work.train) / (bound * gpus)
    hours = seconds / 3600
    kept = checkpoints_kept(cfg, epochs, iterations)
    found = memory(work, cfg, batch, gpus)
    return StageEstimate(
        name=name, kind=kind, work=work, gpus=gpus, batch=batch, iterations=iterations, images=images,
        evaluated=evaluated, flops=images * work.train + evaluated * work.forward, rate=rate, mfu=rate * work.train /
        peak, basis=basis, efficiency=efficiency, hours=hours, gpu_hours=hours * gpus, memory=found, disk=kept *
        checkpoint_bytes(work, cfg), checkpoints=kept, energy=hours * gpus * spec.power * conditions.utilisation *
        conditions.pue / 1000, loader=loader, cores=bound / loader,
        cost=None if conditions.price is None else hours * gpus * conditions.price,
        notes=_notes(cfg, work, spec, gpus, batch, found) + _too_few_workers(cfg, bound, loader) +
        _guessed_size(cfg, kind, conditions),
    )  # fmt: skip


def _guessed_size(cfg: Mapping, kind: str, conditions: Conditions) -> tuple[str, ...]:
    """Says so where epochs are counted on a data set that may not be the usual one."""
    name = DATA.get(kind, 'imagenet')
    dataset = cfg['train_dataloader'].get('dataset') or {}
    root = str(dataset.get('data_root') or '')
    if cfg['train_cfg'].get('max_iters') or name in conditions.images or name in root.lower():
        return ()
    return (f'an epoch of {root or "its data"} counts as the {IMAGES[name][0]} images of {name}: --images {name}=N',)


def _too_few_workers(cfg: Mapping, wanted: float, loader: float) -> tuple[str, ...]:
    """Where the recipe's workers read less than a GPU takes.

    Args:
        wanted: images/s of one GPU.
        loader: images/s of a core, which is a worker.
    """
    workers = cfg['train_dataloader'].get('num_workers') or 0
    if max(workers, 1) * loader >= wanted:
        return ()
    return (
        f'num_workers={workers} read about {max(workers, 1) * loader:.0f} images/s, a GPU takes {wanted:.0f}: '
        f'train_dataloader.num_workers={math.ceil(wanted / loader)} where it has as many cores',
    )


def loader_rate(cfg: Mapping, kind: str, conditions: Conditions) -> float:
    """Images a second of one CPU core."""
    if cfg['model'].get('tokenizer'):
        usual = TWO_VIEWS
    else:
        fused = any(bare(step['type']) == 'LazyLoadImageFromFile' for step in train_steps(cfg))
        usual = (FUSED if fused and kind in FUSED else LOADER)[kind]
        usual = 1 / (1 / usual + COLOURS_S * _coloured(cfg))
    return conditions.loader.get(kind, usual)


def _coloured(cfg: Mapping) -> float:
    """Views whose colours the loader changes, in views of 224 px."""
    found = 0.0
    for step_ in train_steps(cfg):
        if bare(step_['type']) not in ('MultiCrop', 'ShiftedViews'):
            continue
        for view in step_['views']:
            side = view.get('scale', step_.get('size', 224))
            found += view.get('num', 1) * (side / 224) ** 2 * bool(view.get('colours'))
    return found


def _efficiency(
    work: Work, cfg: Mapping, conditions: Conditions, batch: int, rate: float, reference: int, gpus: int
) -> float:
    """Images a second and GPU on ``gpus`` over those on ``reference`` at the same batch a GPU, by the scaling model."""
    if gpus == reference or not work.trainable:
        return 1.0
    a, spec, states = (
        Assumptions(**{**vars(conditions.assumptions), 'cores': 0.0}),
        conditions.spec,
        optimizer_states(cfg),
    )
    kernels = kernel_rate(work, spec, batch / rate, batch, a, states)
    few, many = (step(work, spec, n, batch, kernels, 1.0, conditions.nic, a, states) for n in (reference, gpus))
    return few.seconds / many.seconds


def _notes(cfg: Mapping, work: Work, spec: GPU, gpus: int, batch: int, found: Mapping) -> tuple[str, ...]:
    notes = list(work.notes)
    together = batch * gpus * (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if base and base != together:
        fit = f'; {base // gpus} images a GPU would be it' if base % gpus == 0 else ''
        notes.append(f'batch {together}, the recipe is meant for {base}: --auto-scale-lr{fit}')
    if found['total'] > spec.memory:
        free = spec.memory - (found['total'] - found['activations'])
        most = int(free / (found['activations'] / batch)) if free > 0 else 0
        advice = f'about {most} images fit' if most else 'weights and optimizer alone do not fit'
        notes.append(f'{batch} images a GPU need more than {spec.name} has: {advice} (estimate)')
    if spec.note and work.half:
        notes.append(spec.note)
    if not work.half:
        notes.append('no autocast: counted against the fp32 peak')
    if work.kind == 'coco':
        notes.append(f'training and test images count as {work.size[0]} x {work.size[1]} px')
    return tuple(notes)
