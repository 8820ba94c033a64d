"""Run-length encoding of many masks at once, byte for byte what pycocotools' ``encode`` gives.

pycocotools copies each mask into column order and walks over every pixel of the image. Here only the rectangle that a
mask fills is looked at, and the text form is made for all masks together.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor


def encode_masks(masks: Tensor | np.ndarray) -> list[dict]:
    """COCO's compressed run lengths.

    Args:
        masks: (N, H, W); non-zero is foreground. On a GPU the runs are found there and only their ends come back.

    Returns:
        N dicts: ``size`` [H, W], ``counts`` bytes.

    Raises:
        ValueError: not three dimensions.
    """
    if masks.ndim != 3:
        raise ValueError(f'masks have shape {tuple(masks.shape)}: give (N, H, W)')
    number, height, width = masks.shape
    if not number:
        return []
    if isinstance(masks, Tensor) and masks.device.type != 'cpu':
        changes = [changes_on_device(part) for part in masks.split(32)]
        edges, runs = (np.concatenate(parts) for parts in zip(*changes))
    else:
        array = masks.detach().numpy() if isinstance(masks, Tensor) else masks
        found = [_changes(mask) for mask in (array if array.dtype == bool else array != 0)]
        edges, runs = np.concatenate(found), np.array([len(f) for f in found])
    return [dict(size=[height, width], counts=text) for text in _texts(edges, runs, height * width)]


def _changes(mask: np.ndarray) -> np.ndarray:
    """Where in the column-major order of a bool mask (H, W) the value changes, 0 included if it starts with 1."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return rows
    height, width = mask.shape
    top, bottom = rows[0], rows[-1] + 1
    columns = np.flatnonzero(mask[top:bottom].any(0))
    left, right = columns[0], columns[-1] + 1
    padded = np.zeros((right - left, bottom - top + 2), bool)
    padded[:, 1:-1] = mask[top:bottom, left:right].T
    column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), bottom - top + 1)
    places = (column + left) * height + row + top
    if bottom - top == height:  # the end of a column that the next one continues is no change
        twice = places[1:] == places[:-1]
        places = places[~(np.append(twice, False) | np.append(False, twice))]
    return places[:-1] if places[-1] == height * width else places


def changes_on_device(masks: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The changes of all masks (N, H, W), joined, and how many each has; one transfer of what was found."""
    flat = (masks != 0).transpose(1, 2).flatten(1)
    changed = flat.clone()
    changed[:, 1:] ^= flat[:, :-1]
    places = changed.nonzero()[:, 1].cpu().numpy()
    return places, changed.sum(1).cpu().numpy()


def _texts(edges: np.ndarray, runs: np.ndarray, pixels: int) -> list[bytes]:
    """COCO's text: each length less the one two before it (from the fourth on), in groups of 5 bits from the lowest.

    Args:
        edges: changes of all masks, joined. runs: how many belong to each.
    """
    number = len(runs)
    last = np.cumsum(runs + 2) - 1  # of each mask's edges once 0 and `pixels` stand around them
    first = last - runs - 1
    bounds = np.zeros(len(edges) + 2 * number, np.int64)
    bounds[np.arange(len(edges)) + 2 * np.repeat(np.arange(number), runs) + 1] = edges
    bounds[last] = pixels
    lengths = np.delete(np.diff(bounds), last[:-1])
    place = np.arange(len(lengths)) - np.repeat(first - np.arange(number), runs + 1)
    values = lengths.copy()
    values[2:] -= np.where(place[2:] > 2, lengths[:-2], 0)

    letters = np.zeros((len(values), 13), np.uint8)  # 13 x 5 bits hold any 64-bit number
    used = np.zeros(letters.shape, bool)
    active = np.ones(len(values), bool)
    for group in range(letters.shape[1]):
        low = values & 31
        values >>= 5
        more = np.where(low & 16, values != -1, values != 0)
        letters[:, group] = low + 32 * more + 48
        used[:, group] = active
        active &= more
        if not active.any():
            break
    text = letters[used].tobytes()
    ends = np.cumsum(used.sum(1))[np.cumsum(runs + 1) - 1]
    return [text[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist())]
