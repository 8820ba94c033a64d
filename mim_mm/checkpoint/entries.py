"""Which of the models in a checkpoint file is taken.

A training file may hold several: what was trained and its average (``model``, ``model_ema``), a teacher and a student,
a context and a target encoder. One is taken by a fixed order, the report says which and why, and ``entry`` chooses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# In order of preference, with the reason that the report gives. A file with an average only gives the average.
PREFERRED = {
    'state_dict': 'the weights that were trained',
    'model': 'the weights that were trained',
    'model_state_dict': 'the weights that were trained',
    'module': 'the weights that were trained',
    'target_encoder': 'the target encoder is what I-JEPA and MSN evaluate',
    'teacher': 'the teacher is what DINO and iBOT evaluate',
    'encoder': 'the encoder',
    'student': 'the student',
    'state_dict_ema': 'an average of the weights (EMA)',
    'model_ema': 'an average of the weights (EMA)',
    'ema_model': 'an average of the weights (EMA)',
    'ema_state_dict': 'an average of the weights (EMA)',
    'module_ema': 'an average of the weights (EMA)',
    'ema': 'an average of the weights (EMA)',
}
# Mappings of a training file that are no models although they may hold tensors.
_SIDE = re.compile(
    r'optim|^opt$|sched|scaler|^amp$|message_hub|^meta$|args|random|rng|config|^cfg|loss|callback|^loops$'
)
TOP = 'the top level'


def models_in(content: object, depth: int = 3, known: bool = True) -> dict[str, dict[str, Tensor]]:
    """All dictionaries of tensors in a loaded file, by where they lie: ``'model'``, ``'model.teacher'``; '' is the top.

    Args:
        content: What ``torch.load`` gave.
        depth: how many levels of dictionaries are looked through.
        known: whether any tensor makes it a model; else it must have weights or biases.
    """
    if not isinstance(content, Mapping) or depth < 0:
        return {}
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping) and not _SIDE.search(name):
            inner = models_in(value, depth - 1, name in PREFERRED)
            found.update({f'{name}.{path}'.rstrip('.'): model for path, model in inner.items()})
    if any(path.split('.')[0] in PREFERRED for path in found):
        return found  # tensors beside a known container are a counter or a loss
    if tensors and (known or any(k.endswith(('weight', 'bias')) for k in tensors)):
        return {'': tensors, **found}  # first: what lies below is a copy of it (fairseq's ``_ema``)
    return found


def choose(models: Mapping[str, Mapping], entry: str | None, path: str) -> tuple[str, str]:
    """The entry to take, and a sentence on it for the load report ('' where the file holds a single model).

    Args:
        models: of :func:`models_in`.
        entry: which one, as the sentence names them; the end of the name is enough.
        path: the file, for messages.

    Raises:
        ValueError: No model in the file, no such entry, or several and none of a known name.
    """
    if not models:
        raise ValueError(
            f'{path} holds no dictionary of tensors (looked at the top, under {", ".join(PREFERRED)} and under other '
            f'names): it is no checkpoint of a model.'
        )
    listed = ', '.join(repr(name or TOP) for name in models)
    if entry is not None:
        wanted = '' if entry == TOP else entry
        fitting = [n for n in models if n == wanted] or [n for n in models if wanted and n.endswith(f'.{wanted}')]
        if len(fitting) != 1:
            raise ValueError(f'{path} has no single entry {entry!r}, it has {listed}: set entry to one of them.')
        (taken,) = fitting
        return taken, _sentence(taken, 'as asked', models) if len(models) > 1 else f'Entry {listed}, as asked.'
    order = list(PREFERRED)
    ranks = {n: [order.index(p) for p in n.split('.') if p in PREFERRED] or [len(order)] for n in models}
    ranks[''] = [len(order) - 0.5]  # the tensors of the top before what lies under an unknown name
    taken = min(models, key=lambda n: ranks[n])
    if len(models) == 1:
        averaged = 'ema' in taken.replace('.', '_').split('_')
        return taken, f'Entry {taken!r}, an average of the weights, is the only model in the file.' if averaged else ''
    if ranks[taken][0] == len(order):
        raise ValueError(
            f'{path} holds {len(models)} models, {listed}, none of a name known here: say which one, {_options(taken)}.'
        )
    why = PREFERRED.get(next((p for p in reversed(taken.split('.')) if p in PREFERRED), ''), 'the tensors of the file')
    if taken == 'state_dict' and 'ema_state_dict' in models:
        why = "an average of the weights: mmengine's EMAHook stores it here, and what was trained as ema_state_dict"
    return taken, _sentence(taken, why, models)


def _sentence(taken: str, why: str, models: Mapping) -> str:
    others = [n or TOP for n in models if n != taken]
    return f'Entry {taken or TOP!r} of the file was taken ({why}); also there: {", ".join(map(repr, others))}. ' + (
        f'To take another: {_options(others[0])}.'
    )


def _options(name: str) -> str:
    return f'entry={name!r} (custom_hooks.0.entry={name}, or --entry {name})'
