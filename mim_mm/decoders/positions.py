"""A decoder's fixed positions on grids other than the one it was built for."""

from __future__ import annotations

from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor


def table_for(
    table: Tensor, base: tuple[int, int], grid: tuple[int, int] | None, patches: int, num_prefix: int = 0
) -> Tensor:
    """The position table of the grid that a batch has.

    Another grid gets the table resampled (bicubic, fp32) as mmpretrain resamples those of the encoder, so that a
    position means the same place of the image at every size. Cheap enough to be done in every step (a table has some
    100,000 values), which leaves nothing behind that could be out of date, or that a captured graph would own.

    Args:
        table: (1, P+N, D') for the grid ``base``.
        base: rows and columns that the table was made for.
        grid: rows and columns of the batch; None where it must be the base.
        patches: how many the plan of the batch has.
        num_prefix: P, rows of the table that stay as they are.

    Returns:
        (1, P+patches, D'); the table itself on the base grid.

    Raises:
        ValueError: the plan has another number of patches than the grid.
    """
    rows, columns = grid or base
    if rows * columns == patches:
        if (rows, columns) == tuple(base):
            return table
        return resize_pos_embed(table, base, (rows, columns), mode='bicubic', num_extra_tokens=num_prefix)
    if grid is None:
        raise ValueError(
            f'the plan has {patches} patches, the decoder positions for {rows * columns}: '
            'feed images of the size the backbone was built for (img_size), or train at several sizes with '
            'ProgressiveResolutionHook'
        )
    raise ValueError(f'the plan has {patches} patches, a grid of {rows} x {columns} has {rows * columns}')
