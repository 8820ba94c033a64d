"""MAE written down plainly from its description (reference for the tests), with the names of its release.

Only torch; no code of the package. ``forward(images, noise)`` returns the loss. Follows He et al. 2022: shuffle by
noise, encode class token and kept patches, append mask tokens, unshuffle, decode, mean squared error of hidden patches
against patches standardised with the unbiased variance.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict(dict(qkv=nn.Linear(dim, 3 * dim), proj=nn.Linear(dim, dim)))
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict(dict(fc1=nn.Linear(dim, 4 * dim), fc2=nn.Linear(4 * dim, dim)))
        self.heads = heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.attn['qkv'](self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5).softmax(dim=-1)
        x = x + self.attn['proj']((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp['fc2'](F.gelu(self.mlp['fc1'](self.norm2(x))))


class PlainMAE(nn.Module):
    def __init__(self, size=32, patch=8, dim=32, depth=2, heads=2, dec_dim=24, dec_depth=1, dec_heads=2):
        super().__init__()
        n = (size // patch) ** 2
        self.patch, self.n = patch, n
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, n + 1, dim))
        self.patch_embed = nn.ModuleDict(dict(proj=nn.Conv2d(3, dim, patch, patch)))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_embed = nn.Linear(dim, dec_dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dec_dim))
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, n + 1, dec_dim))
        self.decoder_blocks = nn.ModuleList(Block(dec_dim, dec_heads) for _ in range(dec_depth))
        self.decoder_norm = nn.LayerNorm(dec_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(dec_dim, patch * patch * 3)

    def forward(self, images, noise, ratio=0.75):
        b, keep = len(images), int(self.n * (1 - ratio))
        x = self.patch_embed['proj'](images).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        shuffle = noise.argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        x = torch.stack([x[i, shuffle[i, :keep]] for i in range(b)])
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(b, -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        full = torch.cat([x[:, 1:], self.mask_token.expand(b, self.n - keep, -1)], dim=1)
        full = torch.stack([full[i, restore[i]] for i in range(b)])
        x = torch.cat([x[:, :1], full], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        pred = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        p, side = self.patch, int(self.n**0.5)
        target = torch.stack([
            images[:, :, r * p : (r + 1) * p, c * p : (c + 1) * p].permute(0, 2, 3, 1).reshape(b, -1)
            for r in range(side) for c in range(side)
        ], dim=1)  # fmt: skip
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        hidden = torch.ones(b, self.n).scatter(1, shuffle[:, :keep], 0)
        return (((pred - target) ** 2).mean(-1) * hidden).sum() / hidden.sum()
