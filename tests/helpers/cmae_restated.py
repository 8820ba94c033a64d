"""CMAE written down plainly from its description (reference for the tests), as functions of a dict of tensors.

Only torch; no code of the package. Tokens stay in the order of the image, hidden ones are replaced by mask tokens, and
every output is made. Names of the tensors are those of checkpoints.
"""

import torch
from torch.nn import functional as F


def norm(x, s, name):
    return F.layer_norm(x, x.shape[-1:], s[f'{name}.weight'], s[f'{name}.bias'], 1e-6)


def linear(x, s, name):
    return F.linear(x, s[f'{name}.weight'], s.get(f'{name}.bias'))


def block(x, s, name, heads):
    b, n, d = x.shape
    q, k, v = linear(norm(x, s, f'{name}.ln1'), s, f'{name}.attn.qkv').reshape(b, n, 3, heads, d // heads).permute(
        2, 0, 3, 1, 4
    )  # fmt: skip
    weights = (q @ k.transpose(-1, -2) / (d // heads) ** 0.5).softmax(dim=-1)
    x = x + linear((weights @ v).transpose(1, 2).reshape(b, n, d), s, f'{name}.attn.proj')
    return x + linear(F.gelu(linear(norm(x, s, f'{name}.ln2'), s, f'{name}.ffn.layers.0.0')), s, f'{name}.ffn.layers.1')


def blocks(x, s, name, heads):
    for i in range(100):
        if f'{name}.{i}.ln1.weight' not in s:
            return x
        x = block(x, s, f'{name}.{i}', heads)


def encode(images, s, name, keep, heads, patch):
    """Class token and the patches that ``keep`` (B, N) shows, the same number in every image."""
    b = len(images)
    x = F.conv2d(images, s[f'{name}.patch_embed.projection.weight'], s[f'{name}.patch_embed.projection.bias'], patch)
    x = x.flatten(2).transpose(1, 2) + s[f'{name}.pos_embed'][:, 1:]
    x = x[keep].view(b, -1, x.shape[-1])
    first = (s[f'{name}.cls_token'] + s[f'{name}.pos_embed'][:, :1]).expand(b, -1, -1)
    return blocks(torch.cat([first, x], dim=1), s, f'{name}.layers', heads)


def decode(latent, s, name, keep, heads):
    """All patches (B, N, out) from the latent of the visible ones."""
    x = linear(latent, s, f'{name}.decoder_embed')
    full = s[f'{name}.mask_token'].expand(*keep.shape, -1).clone()
    full[keep] = x[:, 1:].flatten(0, 1)
    x = torch.cat([x[:, :1], full], dim=1) + s[f'{name}.decoder_pos_embed']
    x = norm(blocks(x, s, f'{name}.decoder_blocks', heads), s, f'{name}.ln1')
    return linear(x, s, f'{name}.decoder_pred')[:, 1:]


def two_layers(x, s, name):
    """Linear, batch norm with the statistics of this batch, ReLU, linear."""
    x = linear(x, s, f'{name}.fc0')
    x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt()
    return linear(torch.relu(x * s[f'{name}.bn0.weight'] + s[f'{name}.bn0.bias']), s, f'{name}.fc1')


def losses(s, online, target, hidden, patch=8, heads=2, decoder_heads=2, temperature=0.07):
    """``(pixels, contrast)`` of the whole batch; ``hidden`` bool (B, N)."""
    b, keep = len(online), ~hidden
    latent = norm(encode(online, s, 'backbone', keep, heads, patch), s, 'backbone.ln1')
    pixels = decode(latent, s, 'decoder', keep, decoder_heads)
    side = online.shape[-1] // patch
    wanted = torch.stack([
        online[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].permute(0, 2, 3, 1).reshape(b, -1)
        for r in range(side) for c in range(side)
    ], dim=1)  # fmt: skip
    wanted = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.var(-1, keepdim=True) + 1e-6).sqrt()
    error = ((pixels - wanted) ** 2).mean(-1)[hidden].mean()

    student = two_layers(decode(latent, s, 'feature_decoder', keep, decoder_heads).mean(1), s, 'projector')
    student = two_layers(student, s, 'predictor')
    with torch.no_grad():
        everything = encode(target, s, 'target_backbone', torch.ones_like(hidden), heads, patch)
        teacher = two_layers(everything[:, 1:].mean(1), s, 'target_projector')
    cosine = F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T
    terms = [-(cosine[i] / temperature).log_softmax(0)[i] for i in range(b)]
    return error, 2 * temperature * sum(terms) / b
