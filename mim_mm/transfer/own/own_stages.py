"""Which stages a chain of a user's own data has, and what each will do, in a line."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mim_mm.transfer.chain import Chain
from mim_mm.transfer.own.own_configs import HERE
from mim_mm.transfer.own.own_encoder import recipe_config
from mim_mm.transfer.words import Kind

KINDS = dict(
    quick_probe='probe', linear='linear', finetune='finetune', detect='coco', segment='seg'
)  # stage -> its kind in the chain
PICTURES = dict(  # stage -> what is drawn after it
    segment=dict(
        name='segments',
        path='segments.png',
        command='python tools/draw_segments.py {config} {checkpoint} --out {path}',
    )
)
SCRATCH = '_scratch'  # ending of the stages that start from a random encoder, and their arm without the underscore


def stage_table(wanted: Sequence[str], files: dict[str, str], scratch: bool) -> dict[str, Any]:
    """``stages`` of the chain.

    Each downstream stage has a twin from a random encoder (frozen, in the probes), so that the page says what
    pretraining added. Where the recipe lowers the rate from block to block, which spares what is learnt
    already, the twin does not.

    Args:
        wanted: downstream stages in the order in which they run.
        files: texts of the configs.
        scratch: with the twins.
    """
    stages: dict[str, Any] = {'pretrain': dict(kind='pretrain', config=f'{HERE}/configs/pretrain.py', arm='pretrained')}
    for stage in wanted:
        config = f'{HERE}/configs/{stage}.py'
        pictures = dict(artifacts=[PICTURES[stage]]) if stage in PICTURES else {}
        stages[stage] = dict(kind=KINDS[stage], config=config, init='pretrain', **pictures)
        if scratch:
            stages[stage + SCRATCH] = dict(kind=KINDS[stage], config=config, init=None, arm=SCRATCH[1:])
            if _decays_by_layer(files[f'configs/{stage}.py']):
                stages[stage + SCRATCH]['options'] = {'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.0}
    stages['report'] = dict(kind='report')
    return stages


def _decays_by_layer(text: str) -> bool:
    base = text.split("_base_ = ['", 1)[1].split("'", 1)[0]
    wrapper = recipe_config(base).get('optim_wrapper') or {}
    return bool((wrapper.get('paramwise_cfg') or {}).get('layer_decay_rate'))


def duration_lines(chain: Chain, gpus: int) -> list[str]:
    """How long each stage trains, on how many images a step, of which size."""
    lines, known = [], {}
    for stage in chain.stages:
        if stage.config is None:
            continue
        # A stage and its twin share a config.
        if stage.config not in known:
            known[stage.config] = Config.fromfile(str(stage.config))
        cfg = copy.deepcopy(known[stage.config])
        cfg.merge_from_dict(dict(stage.options))
        loop, batch = cfg.train_cfg, cfg.train_dataloader.batch_size
        much = f'{loop.max_epochs:,} epochs' if loop.get('max_epochs') else f'{loop.max_iters:,} iterations'
        accumulated = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
        start = (
            f'from {stage.init}'
            if stage.init
            else 'from a random encoder'
            if stage.kind != Kind.PRETRAIN
            else 'from scratch'
        )
        sizes = sorted(_sides(cfg.get('train_pipeline')))
        shown = f', {sizes[-1]} px' if sizes else ''
        lines.append(
            f'plan       {stage.name}: {much} of {batch * accumulated * max(1, gpus):,} images a step{shown}, {start}'
        )
    return lines


def _sides(steps: Any) -> set:
    """Sides of the random crops in a pipeline, in pixels."""
    found = set()
    for step in steps or ():
        if isinstance(step, (list, tuple)):
            found |= _sides(step)
        elif 'Crop' in str(step.get('type')):
            value = step.get('crop_size', step.get('size', step.get('scale')))
            found |= {value if isinstance(value, int) else max(value)} if value else set()
        else:
            found |= _sides(step.get('transforms'))
    return found
