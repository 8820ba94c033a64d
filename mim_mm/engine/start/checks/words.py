"""What a refused config is told: one line with the value, the rule and the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

# What OpenMMLab 1.x and other libraries call things, with our names; said where these are known.
OTHER_NAMES = dict(
    samples_per_gpu='batch_size', workers_per_gpu='num_workers', shuffle='sampler.shuffle', grad_clip='clip_grad',
    max_keep='max_keep_ckpts', cumulative_iters='accumulative_counts', warmup_iters='end', warmup_epochs='end',
    warmup_ratio='start_factor', target_lr='eta_min', min_lr='eta_min', min_lr_ratio='eta_min_ratio',
    dist_backend='backend', learning_rate='lr', wd='weight_decay', mask_ratio='ratio', num_class='num_classes',
    embed_dim='embed_dims', drop_path='drop_path_rate', size='scale', flip_prob='prob', p='prob',
)  # fmt: skip


class ConfigError(ValueError):
    """A config or command line that must not be trained with."""


def shown(value: Any) -> str:
    """A value as it would be written, on one line and not endless."""
    if isinstance(value, dict) and value.get('type'):
        return f'dict(type={value["type"]!r}, ...)'
    text = ' '.join(repr(value).split())
    return text if len(text) <= 60 else f'{text[:57]}...'


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a misspelt one is nearest to, whatever the case; None: none is near."""
    by_lower: dict[str, str] = {}
    for one in sorted(known):
        by_lower.setdefault(one.lower(), one)
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else None


def unknown(place: str, known: Iterable[str], owner: str) -> str:
    """What to say of a name that nothing reads.

    Args:
        place: where it stands and what it is set to, ``auto_scale_lr.base_batchsize=4096``.
        known: what could stand there.
        owner: who reads that place, and what it calls its names: "FiniteLossHook has no argument".
    """
    known = sorted(known)
    name = place.split('=')[0].rpartition('.')[2]
    other = OTHER_NAMES.get(name, '')
    near = other if other.split('.')[0] in known else nearest(name, known)
    hint = f"did you mean '{near}'?" if near else f'known are {", ".join(known)}' if known else 'it takes none'
    return f"{place}: {owner} '{name}': {hint}"
