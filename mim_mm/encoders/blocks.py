"""Which blocks of an encoder a setting means."""

from __future__ import annotations

from collections.abc import Sequence


def known_blocks(name: str, indices: Sequence[int], depth: int, owner: str = 'backbone') -> list[int]:
    """Indices of blocks, negative ones from the end, as they count from 0.

    Args:
        name: of the setting, for the error.
        depth: blocks that there are.
        owner: whose they are.

    Raises:
        ValueError: none, a block that does not exist, or out of order.
    """
    found = [index + depth if index < 0 else index for index in indices]
    if not found or found != sorted(set(found)) or not 0 <= found[0] <= found[-1] < depth:
        raise ValueError(f'{name}={list(indices)} must be ascending, each once, within the {depth} of the {owner}')
    return found
