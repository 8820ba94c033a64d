"""A batch as a recipe's loader makes it, without its data set."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim_mm.cost.recipe import backbone_size, pipeline_of


def read_batch(cfg: Mapping, size: tuple[int, int] | None, count: int) -> tuple[dict, tuple[str, ...]]:
    """Images as the loader would give them, and what was assumed.

    A blank file goes through the recipe's pipeline; its size is the backbone's, for recipes that do not crop.

    Args:
        cfg: the recipe.
        size: height and width of the first view, in place of what comes out; other views keep their proportion to it.
        count: images.
    """
    import torch
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import FUNCTIONS

    side = size or backbone_size(cfg, 224)
    try:
        read = Compose(copy.deepcopy(pipeline_of(cfg)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'blank.png'
            _write_blank(path, side)
            samples = [read(dict(img_path=str(path), gt_label=0, sample_idx=0)) for _ in range(count)]
        if 'inputs' not in samples[0]:
            raise ValueError('it packs no inputs')
        collate = ((cfg.get('train_dataloader') or {}).get('collate_fn') or {}).get('type')
        batch = (FUNCTIONS.get(collate) if collate else pseudo_collate)(samples)
        return (_resized(batch, size) if size else batch), ()
    except Exception as error:
        why = f' ({type(error).__name__}: {error})' if pipeline_of(cfg) else ': there is none'
        notes = (f'one view of {side[0]} x {side[1]} px an image, since the pipeline could not be run{why}',)
        return dict(inputs=torch.zeros(count, 3, *side)), notes


def _write_blank(path: Path, side: tuple[int, int]) -> None:
    from PIL import Image

    Image.new('RGB', (side[1], side[0]), 'gray').save(path)


def first_view(inputs: Any) -> Any:
    """The first view of a batch."""
    while isinstance(inputs, (list, tuple)):
        inputs = inputs[0]
    return inputs


def _resized(batch: dict, size: tuple[int, int]) -> dict:
    """All views in the proportion in which the first would become ``size``."""
    import torch
    from torch.utils._pytree import tree_map_only

    first = first_view(batch['inputs']).shape[-2:]

    def resize(image):
        sides = (round(n * new / old) for n, new, old in zip(image.shape[-2:], size, first))
        return image.new_zeros(*image.shape[:-2], *sides)

    return dict(batch, inputs=tree_map_only(torch.Tensor, resize, batch['inputs']))
