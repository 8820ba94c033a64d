"""MoCo v3 and MSN written down plainly from their descriptions (reference for the tests), from a dict of tensors.

Only torch and the plain ViT of ``cmae_restated``; no code of the package. Tensors have the names of checkpoints.
"""

import math

import torch
from cmae_restated import encode, linear, norm
from torch.nn import functional as F


def class_tokens(images, s, name, keep=None, heads=2, patch=8, resized=None):
    """(B, D) after the final norm; ``keep`` bool (N,): patches that are there, ``resized`` a table for these images."""
    count = (images.shape[-1] // patch) ** 2
    keep = torch.ones(count, dtype=torch.bool) if keep is None else keep
    weights = s if resized is None else {**s, f'{name}.pos_embed': resized}
    tokens = encode(images, weights, name, keep.expand(len(images), -1), heads, patch)
    return norm(tokens, s, f'{name}.ln1')[:, 0]


def batch_norm(x, s, name, ran=None, affine=True, eps=1e-5):
    """With the statistics of this batch; ``ran``: a dict that gets the running ones, 0.9 old and 0.1 new (unbiased)."""
    if ran is not None:
        for key, value in (('running_mean', x.mean(0)), ('running_var', x.var(0))):
            old = ran.get(f'{name}.{key}', s[f'{name}.{key}'])
            ran[f'{name}.{key}'] = 0.9 * old + 0.1 * value.detach()
    y = (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()
    return y * s[f'{name}.weight'] + s[f'{name}.bias'] if affine else y


# ---- MoCo v3


def moco_layers(x, s, name, number, ran):
    """Linear and batch norm ``number`` times, ReLU between; the last norm without parameters."""
    for i in range(number):
        last = i == number - 1
        x = batch_norm(linear(x, s, f'{name}.fc{i}'), s, f'{name}.bn{i}', ran, affine=not last)
        x = x if last else torch.relu(x)
    return x


def moco_loss(s, views, ran, temperature=0.2):
    """``s`` holds the momentum encoder as it is after it followed."""
    queries = [
        moco_layers(moco_layers(class_tokens(v, s, 'backbone'), s, 'projector', 3, ran), s, 'predictor', 2, ran)
        for v in views
    ]
    with torch.no_grad():
        keys = [moco_layers(class_tokens(v, s, 'teacher.backbone'), s, 'teacher.projector', 3, ran) for v in views]
    total = 0
    for q, k in ((queries[0], keys[1]), (queries[1], keys[0])):
        for i in range(len(q)):
            cosines = torch.stack([q[i] @ other / (q[i].norm() * other.norm()) for other in k])
            total = total - 2 * temperature * (cosines / temperature).log_softmax(0)[i] / len(q)
    return total


def moco_momentum(share, start=0.99):
    return 1 - 0.5 * (1 + math.cos(math.pi * share)) * (1 - start)


# ---- MSN


def msn_head(x, s, name, ran):
    x = F.gelu(batch_norm(linear(x, s, f'{name}.fc1'), s, f'{name}.bn1', ran))
    x = F.gelu(batch_norm(linear(x, s, f'{name}.fc2'), s, f'{name}.bn2', ran))
    return linear(x, s, f'{name}.fc3')


def msn_assign(z, s, temperature=0.1):
    z, q = z / z.norm(dim=1, keepdim=True), s['prototypes'] / s['prototypes'].norm(dim=1, keepdim=True)
    return (z @ q.T / temperature).softmax(1)


def small_table(s, name, side, base=4):
    """Positions of small views: bicubic by the plain factor sqrt(n / N)."""
    table = s[f'{name}.pos_embed']
    maps = table[:, 1:].reshape(1, base, base, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, scale_factor=math.sqrt(side**2 / base**2), mode='bicubic')
    return torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).reshape(1, side**2, -1)], dim=1)


def msn_losses(s, views, keep, ran, large=1, rounds=3, sharpen=0.25):
    """Assignment and me-max; ``keep`` bool (N,): what is left of the large anchors."""
    groups = [torch.cat(views[1 : 1 + large]), torch.cat(views[1 + large :])]
    z = [msn_head(class_tokens(groups[0], s, 'backbone', keep), s, 'head', ran)]
    z += [msn_head(class_tokens(groups[1], s, 'backbone', resized=small_table(s, 'backbone', 2)), s, 'head', ran)]
    probs = msn_assign(torch.cat(z), s)
    with torch.no_grad():
        t = msn_assign(msn_head(class_tokens(views[0], s, 'teacher.backbone'), s, 'teacher.head', ran), s)
        t = t ** (1 / sharpen)
        t = t / t.sum(1, keepdim=True)
        q, (count, prototypes) = t.T / t.sum(), t.shape
        for _ in range(rounds):
            q = q / q.sum(1, keepdim=True) / prototypes
            q = q / q.sum(0, keepdim=True) / count
        t = torch.cat([(q * count).T] * (len(views) - 1))
    mean = probs.mean(0)
    return -(t * probs.log()).sum(1).mean(), (mean * mean.log()).sum() + math.log(len(mean))
