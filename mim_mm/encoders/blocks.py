"""Which blocks of an encoder a setting means, and the halves of a block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mim_mm.encoders.base import Encoder


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


def sub_blocks(encoder: Encoder, block: nn.Module) -> tuple[list[nn.Module | nn.Parameter], ...]:
    """The attention and the MLP sub-block of a block: modules, and parameters of the block's own.

    Raises:
        ValueError: the block has other parts than its family says, so that a half of it has no meaning.
    """
    halves = tuple(
        [part for name in names if (part := getattr(block, name, None)) is not None] for names in encoder.sub_blocks
    )
    held = {id(tensor) for half in halves for part in half for tensor in _parameters(part)}
    own = {id(tensor) for tensor in block.parameters()}
    if len(halves) != 2 or not all(halves) or held != own:
        known = ' and '.join('/'.join(names) for names in encoder.sub_blocks) or 'none that are known'
        parts = ', '.join(name for name, _ in block.named_children()) or 'none'
        raise ValueError(
            f'{type(block).__name__} has the parts {parts}; an attention and an MLP sub-block ({known}) are needed, '
            'which hold all of its parameters'
        )
    return halves


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())
