"""Pretraining at growing resolution: an image's cost in the mean over the epochs of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mim_mm.cost.recipe import bare
from mim_mm.cost.work import Work
from mim_mm.resolution import STAGES, Span, read_stages, spans


def spans_of(cfg: Mapping) -> list[Span]:
    """The stages of a recipe with ``ProgressiveResolutionHook``; empty without.

    Raises:
        ValueError: stages that the hook would refuse.
    """
    hooks = [hook for hook in cfg.get('custom_hooks') or () if bare(hook['type']) == 'ProgressiveResolutionHook']
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    return spans(read_stages(hooks[-1].get('stages', STAGES)), epochs) if hooks and epochs else []


def mean_work(stages: Sequence[Span], works: Sequence[Work]) -> Work:
    """The work of one image in the mean over the epochs, from that of each stage.

    FLOPs are means. Parameters, activations and pixels are those of the last stage where these are largest, since the
    largest batch decides what memory is needed.
    """
    epochs = [span.end - span.first for span in stages]
    shares, last = [count / sum(epochs) for count in epochs], works[-1]
    parts = []
    for column in zip(*(work.parts for work in works), strict=True):
        forward = sum(share * part.forward for share, part in zip(shares, column))
        backward = sum(share * part.forward * part.backward for share, part in zip(shares, column))
        saved, working = max(part.saved for part in column), max(part.working for part in column)
        ratio = backward / forward if forward else 0.0
        parts.append(replace(column[-1], forward=forward, backward=ratio, saved=saved, working=working))
    whole = sum(part.forward * (1 + part.backward) for part in parts)
    shown = ', '.join(f'{span.text} in {count} epochs' for span, count in zip(stages, epochs))
    costs = ', '.join(f'{span.text} {work.train / last.train:.3f}' for span, work in zip(stages, works))
    fastest = whole / min(work.train for work in works)
    notes = (
        f'progressive resolution: {shown}; memory is that of the largest',
        f'an image counts by the mean, {whole / last.train:.3f} of the last size ({costs})',
        f'the smallest size wants {fastest:.2f} times the images/s, and the loader cores, of the mean',
        'progressive resolution changes the method: published figures do not apply',
    )
    names = '/'.join(span.text.removesuffix(' px') for span in stages)
    model = f'{last.model} progressive {names}'
    return replace(last, model=model, parts=tuple(parts), notes=(*last.notes, *notes))
