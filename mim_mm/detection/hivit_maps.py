"""mmpretrain's HiViT as the backbone of a detector: one map for each stride, layers that know their depth."""

from __future__ import annotations

from mmpretrain.models.backbones import HiViT
from mmpretrain.models.backbones.hivit import BlockWithRPE, PatchMerge
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mim_mm.encoders.fused import fuse_attention
from mim_mm.registry import MODELS


@MODELS.register_module()
class HiViTMaps(HiViT):
    """HiViT (Zhang et al., ICLR 2023) that returns the output of each of its stages; same parameters and names.

    The parent cannot return the maps of strides 4 and 8 that a pyramid needs: where ``out_indices`` names an early
    block, its forward pass goes on with the rearranged map and fails in the next layer. Its ``get_layer_depth`` looks
    for ``layers``, which HiViT calls ``blocks``, so that layer decay has no effect; and its attention keeps a
    (B, heads, N, N) tensor, 0.6 GB a block and image in fp32 for HiViT-B at 800 x 1333.

    Args:
        with_cp: recompute the blocks in the backward pass to save memory.
        kwargs: ``arch``, ``img_size``, ``drop_path_rate``, ... of ``HiViT``; ``rpe`` must stay False.

    Raises:
        ValueError: ``rpe=True`` (its table fits one square input size only) or ``out_indices`` given.
    """

    def __init__(self, *args, with_cp: bool = False, **kwargs):
        if kwargs.get('rpe') or 'out_indices' in kwargs:
            raise ValueError(
                f'rpe={kwargs.get("rpe", False)}, out_indices={kwargs.get("out_indices")}: HiViTMaps returns the maps '
                'of all stages for any input size; remove out_indices and leave rpe at False.'
            )
        super().__init__(*args, **kwargs)
        self.with_cp = with_cp
        fuse_attention(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) -> maps (B, C, H/s, W/s) of s = 4, 8, 16 with a quarter, half and all of the channels."""
        height, width = x.shape[-2:]
        grid = height // self.patch_size, width // self.patch_size
        x = self.patch_embed(x)
        maps = []
        for block in self.blocks[: -self.num_main_blocks]:
            if isinstance(block, PatchMerge):
                maps.append(_join_patches(x, grid))
            x = block(x) if isinstance(block, PatchMerge) else self._run(block, x)
        x = x[..., 0, 0, :]
        if self.ape:
            x = x + self.interpolate_pos_encoding(x, height, width)
        x = self.pos_drop(x)
        for block in self.blocks[-self.num_main_blocks :]:
            x = self._run(block, x)
        return (*maps, x.transpose(1, 2).unflatten(2, grid).contiguous())

    def _run(self, block: BlockWithRPE, x: Tensor) -> Tensor:
        if self.with_cp and self.training:
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """(depth, number of depths): 0 patch embedding and positions, i + 1 block or merging i, last the rest."""
        count = len(self.blocks) + 2
        name = param_name[len(prefix) :]
        if not param_name.startswith(prefix):
            return count - 1, count
        if name.startswith(('patch_embed', 'pos_embed')):
            return 0, count
        return (int(name.split('.')[1]) + 1 if name.startswith('blocks.') else count - 1), count


def _join_patches(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches with their inner cells (B, N, h, w, C) -> the map (B, C, rows * h, columns * w)."""
    x = x.unflatten(1, grid).permute(0, 5, 1, 3, 2, 4)
    return x.flatten(4, 5).flatten(2, 3)
