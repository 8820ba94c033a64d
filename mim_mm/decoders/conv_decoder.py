"""The decoder of data2vec 2.0 (Baevski et al., ICML 2023): grouped convolutions on the whole grid of patches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ConvDecoder(nn.Module):
    """Layers of ``x + gelu(norm(conv(x)))`` on the map of all patches, then a linear layer to the encoder's width.

    Convolutions are grouped and keep the size of the map; norms are over the channels of a patch, without a scale
    (variance floor 1e-5). A layer that changes the width has no residual. All start as torch makes them.

    Args:
        width: D of the encoder, at either end.
        embed_dims: channels D' of the layers.
        depth: how many there are; 6 for ViT-B, 3 for ViT-L.
        kernel: side of the convolutions; 3 for ViT-B, 5 for ViT-L.
        groups: of each convolution.

    Raises:
        ValueError: an even kernel, which does not keep the size, or groups that do not divide both widths.
    """

    def __init__(
        self, width: int, embed_dims: int | None = None, depth: int = 6, kernel: int = 3, groups: int = 16
    ) -> None:
        super().__init__()
        embed_dims = embed_dims or width
        if kernel % 2 == 0 or depth < 1 or width % groups or embed_dims % groups:
            raise ValueError(
                f'kernel={kernel}, depth={depth}, groups={groups} between widths {width} and {embed_dims}: the kernel '
                'must be odd, the depth at least 1, and the groups must divide both widths'
            )
        self.embed_dims = embed_dims
        widths = [width] + [embed_dims] * (depth - 1)
        self.decoder_blocks = nn.ModuleList(
            nn.Conv2d(inputs, embed_dims, kernel, padding=kernel // 2, groups=groups) for inputs in widths
        )
        self.proj = nn.Linear(embed_dims, width)

    def init_weights(self) -> None:
        """As torch starts convolutions and linear layers, which the release leaves so."""
        for layer in (*self.decoder_blocks, self.proj):
            layer.reset_parameters()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """All patches of a map (R, N, D), row by row on a ``grid`` of rows and columns; returns (R, N, D)."""
        x = x.transpose(1, 2).unflatten(2, grid)
        for conv in self.decoder_blocks:
            y = conv(x).movedim(1, -1)
            y = F.gelu(F.layer_norm(y, y.shape[-1:])).movedim(-1, 1)
            x = x + y if x.shape[1] == y.shape[1] else y
        return self.proj(x.flatten(2).transpose(1, 2))
