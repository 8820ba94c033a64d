"""Memory of one GPU in training and size of a checkpoint, from what was counted of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mim_mm.cost.recipe import bare
from mim_mm.cost.work import Work

# fp32 values an optimizer keeps for each trained parameter.
STATES = {'AdamW': 2, 'Adam': 2, 'LAMB': 2, 'Lamb': 2, 'LARS': 1, 'SGD': 1}
CONTEXT = 1.5e9  # CUDA context, cuBLAS and cuDNN workspaces, fragmentation: an assumption


def optimizer_states(cfg: Mapping) -> int:
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    kind = bare(optimizer.get('type', 'AdamW'))
    if kind == 'SGD' and not optimizer.get('momentum'):
        return 0
    return STATES.get(kind, 2)


def memory(work: Work, cfg: Mapping, batch: int, gpus: int) -> dict[str, float]:
    """Bytes on one GPU under data parallelism.

    Args:
        work: what an image costs.
        cfg: the recipe, for its optimizer.
        batch: images on one GPU at a time.
        gpus: with more than one, DDP keeps a second copy of the gradients in its buckets.

    Returns:
        parameters, gradients, optimizer, casts, activations, context and their total.
    """
    found = dict(
        parameters=4 * work.params,
        gradients=4 * work.trainable * (2 if gpus > 1 else 1),
        optimizer=4 * work.trainable * optimizer_states(cfg),
        casts=work.derived,
        activations=batch * (work.saved + 3 * work.pixels * 5),  # the image as uint8 and normalised as fp32
        context=CONTEXT,
    )
    return dict(found, total=sum(found.values()))


def checkpoint_bytes(work: Work, cfg: Mapping) -> float:
    """Size of one checkpoint: fp32 weights and the optimizer's state."""
    return 4 * (work.params + work.trainable * optimizer_states(cfg))


def checkpoints_kept(cfg: Mapping, epochs: float, iterations: int) -> int:
    """Files that a run leaves at its end, the best one included."""
    hook: Mapping[str, Any] = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    interval = hook.get('interval', 1)
    if interval <= 0:
        return 1
    made = (epochs if hook.get('by_epoch', True) else iterations) // interval
    made += (
        1 if hook.get('save_last', True) and (epochs if hook.get('by_epoch', True) else iterations) % interval else 0
    )
    most = hook.get('max_keep_ckpts', -1)
    # A new file is written before the oldest goes.
    kept = made if most < 0 else min(made, most + 1)
    return int(max(kept, 1)) + bool(hook.get('save_best'))
