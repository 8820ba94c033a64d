"""The ranges of arguments, by what kind of class they are of; only of classes whose meaning is known here."""

from __future__ import annotations

from collections.abc import Callable

from mim_mm.engine.start.checks import rules
from mim_mm.engine.start.checks.rules import (
    BELOW_ONE,
    BETWEEN,
    COUNT,
    NOT_NEGATIVE,
    PART,
    POSITIVE,
    POSITIVE_PART,
    WHOLE,
    Rule,
    one_of,
    positive_or_never,
    rising,
    yes_or_no,
)

INTERPOLATIONS = one_of('nearest', 'bilinear', 'bicubic', 'area', 'lanczos', 'box', 'hamming')
RULES: dict[str, dict[str, Rule]] = {
    'OPTIMIZERS': dict(
        lr=POSITIVE, weight_decay=NOT_NEGATIVE, momentum=BELOW_ONE, dampening=NOT_NEGATIVE, betas=rules.betas,
        eps=POSITIVE, trust_coefficient=POSITIVE, fused=yes_or_no, nesterov=yes_or_no,
    ),
    'OPTIM_WRAPPERS': dict(
        accumulative_counts=WHOLE, dtype=one_of('float16', 'bfloat16', 'float32', 'float64'),
        loss_scale=lambda v: one_of('dynamic')(v) if isinstance(v, str) else POSITIVE(v),
    ),
    'PARAM_SCHEDULERS': dict(
        begin=NOT_NEGATIVE, end=POSITIVE, by_epoch=yes_or_no, convert_to_iter_based=yes_or_no, T_max=WHOLE,
        eta_min=NOT_NEGATIVE, eta_min_ratio=PART, gamma=POSITIVE, power=POSITIVE, step_size=WHOLE, factor=POSITIVE_PART,
        start_factor=PART, end_factor=PART, milestones=rules.milestones, like=one_of('mae', 'beit', 'timm', 'ijepa'),
        pct_start=PART, total_steps=WHOLE,
    ),
    'HOOKS': dict(
        interval=positive_or_never, max_keep_ckpts=positive_or_never, patience=WHOLE, by_epoch=yes_or_no,
        save_last=yes_or_no, save_optimizer=yes_or_no, min_loaded=PART, save_begin=COUNT, epochs=NOT_NEGATIVE,
        rule=one_of('greater', 'less'), begin_iter=COUNT, begin_epoch=COUNT,
    ),
    'METRICS': dict(
        topk=WHOLE, metric=lambda v: next(filter(None, map(_COCO, v if isinstance(v, (list, tuple)) else [v])), None),
        collect_device=one_of('cpu', 'gpu'),
    ),
    'TRANSFORMS': dict(
        prob=PART, erase_prob=PART, flip_prob=PART,
        crop_ratio_range=rising('(smallest, largest) part, within 0 and 1', 0, 1),
        aspect_ratio_range=rising('(smallest, largest), above 0', 0, float('inf')),
        ratio_range=rising('(smallest, largest), above 0', 0, float('inf')),
        interpolation=INTERPOLATIONS, magnitude_level=NOT_NEGATIVE, num_policies=WHOLE, crop_size=POSITIVE,
        crop_type=one_of('relative_range', 'relative', 'absolute', 'absolute_range'), max_attempts=WHOLE,
        keep_ratio=yes_or_no, with_bbox=yes_or_no, with_mask=yes_or_no, min_area_ratio=PART, max_area_ratio=PART,
    ),
    'MODELS': dict(
        std=rules.spread, pad_size_divisor=WHOLE, num_classes=WHOLE, embed_dims=WHOLE, num_heads=WHOLE,
        depth=WHOLE, patch_size=WHOLE, img_size=WHOLE, num_parts=WHOLE, drop_path_rate=BELOW_ONE, drop_rate=BELOW_ONE,
        attn_drop_rate=BELOW_ONE, dropout=BELOW_ONE, label_smooth_val=BELOW_ONE, mlp_ratio=POSITIVE, out_channels=WHOLE,
        to_rgb=yes_or_no, bgr_to_rgb=yes_or_no, mask_unit=WHOLE, whole_weight=NOT_NEGATIVE,
        consistency_weight=NOT_NEGATIVE, consistency_ramp=NOT_NEGATIVE, align_weight=NOT_NEGATIVE, vocabulary=WHOLE,
        loss_weight=NOT_NEGATIVE, norm_eps=NOT_NEGATIVE,
        momentum=rules.momentum, feature_weight=NOT_NEGATIVE, feature_ramp=PART,
    ),
    'DATASETS': dict(times=WHOLE, fraction=POSITIVE_PART, at_most=WHOLE, test_mode=yes_or_no, min_size=COUNT),
    'DATA_SAMPLERS': dict(shuffle=yes_or_no, seed=COUNT, round_up=yes_or_no),
    'LOOPS': {}, 'VISUALIZERS': {}, 'LOG_PROCESSORS': dict(window_size=WHOLE, by_epoch=yes_or_no, num_digits=COUNT),
}  # fmt: skip
_COCO = one_of('bbox', 'segm', 'proposal', 'proposal_fast')

MASKERS: dict[str, Rule] = dict(
    ratio=BETWEEN, mask_ratio=BETWEEN, random_ratio=BETWEEN, base=BETWEEN, delta_r=BELOW_ONE, min_ratio=PART,
    max_ratio=PART, throw_ratio=BELOW_ONE, random_epochs=COUNT, noise=NOT_NEGATIVE, num_parts=WHOLE, masking_prob=PART,
    block_ratio=BETWEEN, roll=COUNT,
    stride=WHOLE, predict=POSITIVE_PART, show_max=PART, threshold=NOT_NEGATIVE, min_aspect=POSITIVE,
)  # fmt: skip


def rule_for(registry: str, kind: Callable, name: str) -> Rule | None:
    """The range of an argument; None: nothing is known of it."""
    module = str(kind.__module__)
    if module.startswith('mim_mm.masking'):
        return MASKERS.get(name)
    if registry == 'METRICS' and name == 'metric' and 'Coco' not in kind.__name__:
        return None
    if name == 'momentum' and registry == 'MODELS' and not module.startswith('mim_mm'):
        return None  # of norms and of averages, with meanings of their own
    return RULES.get(registry, {}).get(name)
