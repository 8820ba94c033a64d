"""Published times beside ours: the speed-up table of EMAE, and two full trainings to check the model against."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mim_mm.cost.count import width_of, work_of
from mim_mm.cost.estimate import IMAGES, Conditions, estimate_stage
from mim_mm.cost.hardware import gpu
from mim_mm.cost.recipe import bare
from mim_mm.cost.scaling import Assumptions, kernel_rate, step
from mim_mm.cost.work import Work


@dataclass(frozen=True)
class Row:
    """A row of the speed-up table; relative to MAE where the name says so. None: not published."""

    method: str
    iterations: float
    flops: float  # of one iteration
    encoder: float | None  # of the encoder alone
    hours: float
    speedup: float
    reading: float | None = None  # speed-up where reading images limits every method alike


# Li et al., "Efficient Masked Autoencoders with Self-Consistency", TPAMI 2024, table "Total speedup": ViT-L, 64 A100.
PUBLISHED = (
    Row('MAE', 1.0, 1.0, None, 180.76, 1.0),
    Row('Supervised', 0.125, 4.0, None, 23.83, 7.58),
    Row('EMAE', 0.125, 4.0, None, 23.75, 7.61),
)


# What an EMAE's settings have in common with MAE's.
MAE_OPTIONS = ('backbone', 'decoder', 'norm_pix', 'pos_embed', 'data_preprocessor')


def twins(cfg: Mapping, ratio: float = 0.125) -> dict[str, tuple[dict, float]]:
    """MAE, supervised training and EMAE with one backbone: ``{method: (config, iterations over MAE's)}``.

    MAE hides what each part of the EMAE does and runs 1 / ratio times as long; supervised training is the whole image
    through the backbone and a linear layer, as long as EMAE.

    Raises:
        ValueError: the config is not an EMAE with a ViT.
    """
    model = cfg['model']
    if bare(model['type']) != 'EMAE' or bare(model['backbone']['type']) != 'VisionTransformer':
        raise ValueError(f'the speed-up table compares EMAE on a ViT; got {bare(model["type"])}')
    parts = model['masker'].get('num_parts', 4)
    mae, supervised = (copy.deepcopy(dict(cfg)) for _ in range(2))
    mae['model'] = {key: value for key, value in mae['model'].items() if key in MAE_OPTIONS}
    mae['model'].update(type='mim_mm.MAE', masker=dict(type='mim_mm.RandomMasking', ratio=1 - 1 / parts))
    loop = mae['train_cfg']
    name = 'max_iters' if loop.get('max_iters') else 'max_epochs'
    loop[name] = round(loop[name] / ratio)
    head = dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=width_of(model['backbone']),
                loss=dict(type='mmpretrain.CrossEntropyLoss'))  # fmt: skip
    supervised['model'] = dict(
        type='mmpretrain.ImageClassifier', backbone=dict(model['backbone'], out_type='cls_token'), head=head,
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
    )  # fmt: skip
    return dict(MAE=(mae, 1.0), Supervised=(supervised, ratio), EMAE=(dict(cfg), ratio))


def speedup(cfg: Mapping, conditions: Conditions) -> list[Row]:
    """Our side of the table: FLOPs counted, hours on the GPUs asked for at one MFU for all three."""
    share = dict.fromkeys(('pretrain', 'finetune'), conditions.mfu.get('pretrain', 0.40))
    same = replace(conditions, mfu={**conditions.mfu, **share})
    rows, first = [], None
    for method, (config, ratio) in twins(cfg).items():
        estimate = estimate_stage(method, config, same)
        flops, encoder = estimate.work.train, estimate.work['backbone.layers'].forward
        first = first or (flops, encoder, estimate.hours)
        rows.append(
            Row(
                method,
                ratio,
                flops / first[0],
                encoder / first[1],
                estimate.hours,
                first[2] / estimate.hours,
                1 / ratio,
            )
        )
    return rows


@dataclass(frozen=True)
class Training:
    """A published training: what ran, on what, and how long."""

    name: str
    source: str
    arch: str
    epochs: int
    gpu: str
    gpus: int
    hours: float
    batch: int  # all GPUs together


TRAININGS = (
    Training('MAE ViT-L', "README of MAE's PyTorch release: 42 h on 64 V100", 'large', 800, 'v100', 64, 42.0, 4096),
    Training(
        'MAE ViT-B', 'DailyMAE, abstract: 18 h on 8 A100, progressive resolution', 'base', 800, 'a100-80', 8, 18.0, 4096
    ),
)


def mae_work(arch: str) -> Work:
    """MAE as published, 75 % hidden, decoder 512 x 8."""
    backbone = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=224, patch_size=16)
    masker, decoder = dict(type='mim_mm.RandomMasking', ratio=0.75), dict(type='mim_mm.MAEDecoder')
    model = dict(type='mim_mm.MAE', backbone=backbone, masker=masker, decoder=decoder)
    return work_of(dict(model=model, optim_wrapper=dict(type='AmpOptimWrapper')))


def check(training: Training, mfu: float = 0.40, a: Assumptions | None = None) -> dict[str, Any]:
    """What our count and the scaling model say about a published training.

    Returns:
        published hours; images a second and GPU and the MFU these imply; hours predicted from an assumed MFU of a node.
    """
    a, spec, work = a or Assumptions(), gpu(training.gpu), mae_work(training.arch)
    images = training.epochs * IMAGES['imagenet'][0]
    rate = images / (training.hours * 3600 * training.gpus)
    batch = training.batch / training.gpus
    kernels = kernel_rate(work, spec, batch * work.train / (mfu * spec.bf16), batch, a)
    steps = [step(work, spec, n, batch, kernels, 1.0, spec.nic, a) for n in (min(a.node, training.gpus), training.gpus)]
    predicted = images * work.train / (mfu * spec.bf16 * training.gpus) / 3600 * steps[1].seconds / steps[0].seconds
    return dict(name=training.name, source=training.source, gpu=training.gpu, gpus=training.gpus, hours=training.hours,
                rate=rate, mfu=rate * work.train / spec.bf16, assumed=mfu, predicted=predicted)  # fmt: skip
