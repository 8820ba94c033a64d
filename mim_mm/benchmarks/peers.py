"""MAE by other packages, as columns where they can be imported: timm's blocks, transformers' ViTMAE, lightly's modules.

They have their own initial weights and an unfused AdamW, which is what their examples use; they take the same uint8
batch, normalised by one expression, and hide 75 %.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn

from mim_mm.benchmarks.contenders import ADAMW, MEAN, STD, Contender


def available() -> dict[str, bool]:
    """Which peers can be imported here."""
    needs = {'timm blocks': ('timm',), 'transformers ViTMAE': ('transformers',), 'lightly MAE': ('lightly', 'timm')}
    return {name: all(importlib.util.find_spec(m) for m in modules) for name, modules in needs.items()}


class Normalize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer('std', torch.tensor(STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


class TimmMAE(nn.Module):
    """MAE as its release lays it out (unshuffled decoder, head on all patches) on today's timm blocks."""

    def __init__(self, dims: tuple[int, int, int], size: int, patch: int, decoder=(512, 8, 16)) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        width, depth, heads = dims
        inner, layers, decoder_heads = decoder
        self.patch, count = patch, (size // patch) ** 2
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer('positions', torch.randn(1, count + 1, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads, 4, qkv_bias=True) for _ in range(depth)], nn.LayerNorm(width))
        self.enter, self.mask = nn.Linear(width, inner), nn.Parameter(torch.zeros(1, 1, inner))
        self.register_buffer('inner_positions', torch.randn(1, count + 1, inner) * 0.02)
        rest = [Block(inner, decoder_heads, 4, qkv_bias=True) for _ in range(layers)]
        self.decoder = nn.Sequential(*rest, nn.LayerNorm(inner), nn.Linear(inner, 3 * patch**2))

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2) + self.positions[:, 1:]
        batch, count, width = x.shape
        shuffle = torch.rand(batch, count, device=x.device).argsort(1)
        restore, visible = shuffle.argsort(1), count // 4
        x = x.gather(1, shuffle[:, :visible, None].expand(-1, -1, width))
        x = self.enter(self.blocks(torch.cat([(self.cls + self.positions[:, :1]).expand(batch, -1, -1), x], 1)))
        filled = torch.cat([x[:, 1:], self.mask.to(x.dtype).expand(batch, count - visible, -1)], 1)
        filled = filled.gather(1, restore[..., None].expand(-1, -1, x.shape[-1]))
        pred = self.decoder(torch.cat([x[:, :1], filled], 1) + self.inner_positions)[:, 1:]
        p, side = self.patch, images.shape[-1] // self.patch
        target = images.view(batch, 3, side, p, side, p).permute(0, 2, 4, 3, 5, 1).reshape(batch, count, -1)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        mask = torch.ones_like(shuffle).scatter(1, shuffle[:, :visible], 0)
        return ((pred - target).square().mean(-1) * mask).sum() / mask.sum()


class LightlyMAE(nn.Module):
    """lightly's masked ViT and decoder, put together as its documentation does."""

    def __init__(self, dims: tuple[int, int, int], size: int, patch: int, decoder=(512, 8, 16)) -> None:
        super().__init__()
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
        from timm.models.vision_transformer import VisionTransformer

        width, depth, heads = dims
        inner, layers, decoder_heads = decoder
        self.patch, self.count = patch, (size // patch) ** 2
        vit = VisionTransformer(size, patch, num_classes=0, embed_dim=width, depth=depth, num_heads=heads)
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.decoder = MAEDecoderTIMM(
            num_patches=self.count,
            patch_size=patch,
            embed_dim=width,
            decoder_embed_dim=inner,
            decoder_depth=layers,
            decoder_num_heads=decoder_heads,
        )

    def forward(self, images: Tensor) -> Tensor:
        from lightly.models import utils

        batch = len(images)
        size = (batch, self.count + 1)
        keep, hidden = utils.random_token_mask(size=size, mask_ratio=0.75, device=images.device)
        latent = self.decoder.embed(self.backbone.encode(images=images, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, size)
        tokens = utils.set_at_index(tokens, keep, latent.type_as(tokens))
        pred = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), hidden))
        target = utils.get_at_index(utils.patchify(images, self.patch), hidden - 1)
        return nn.functional.mse_loss(pred, target)


def _transformers_mae(dims: tuple[int, int, int], size: int, patch: int, decoder=(512, 8, 16)) -> nn.Module:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    width, depth, heads = dims
    inner, layers, decoder_heads = decoder
    config = ViTMAEConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=size,
        patch_size=patch,
        norm_pix_loss=True,
        decoder_hidden_size=inner,
        decoder_num_hidden_layers=layers,
        decoder_num_attention_heads=decoder_heads,
        decoder_intermediate_size=4 * inner,
    )
    return ViTMAEForPreTraining(config)


def build(
    name: str, dims: tuple, size: int, patch: int, dtype: torch.dtype, device: torch.device, decoder=(512, 8, 16)
) -> Contender:
    """A peer as a contender.

    Raises:
        ImportError: the package is not installed.
        ValueError: there is no peer of that name.
    """
    known = {'timm blocks': TimmMAE, 'transformers ViTMAE': _transformers_mae, 'lightly MAE': LightlyMAE}
    if name not in known:
        raise ValueError(f'no peer {name!r}; known: {", ".join(known)}')
    normalize, inner = Normalize().to(device), known[name](dims, size, patch, decoder).to(device)

    def loss(images: Tensor, order: Tensor | None) -> Tensor:
        if order is not None:
            raise ValueError(f'{name} draws its own masks')
        out = inner(normalize(images))
        return out if isinstance(out, Tensor) else out.loss

    return Contender(inner, loss, dict(optimizer=ADAMW), dtype)
