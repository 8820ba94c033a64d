"""Ways to encode images that keep different numbers of patches: padding with a key mask, packing, one by one.

    tools/benchmark.py packed                                     # 2-layer ViT-S, 32 images, one CPU thread
    tools/benchmark.py packed --step                              # with MAE's decoder and a loss
    tools/benchmark.py packed --device cuda --step --width 768 --layers 12 --batch 256 --ratios 0.6 0.9

Forward and backward, median of rounds in which the variants take turns: CPU seconds on a CPU, wall clock under bf16
autocast on a GPU. `fixed` sees, in every image, the mean number of patches; `error` is the largest difference of an
output from `one by one`.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import median

import torch
from torch.nn import functional as F

from mim_mm.encoders.packed import BACKENDS, attention_backend, pack_plan, pack_tokens
from mim_mm.masking import MaskPlan, num_hidden
from mim_mm.registry import MODELS


def packed(name, model, tokens, plan):
    with attention_backend(name):
        return model.encoder.encode_packed(tokens, pack_plan(plan, 1))


def one_by_one(model, tokens, plan):
    """In the order of the packed sequences, by length."""
    rows = sorted((length, image) for image, length in enumerate(plan.rows()[1]))
    latents = [model.encoder.encode(tokens[i : i + 1], plan.order[i : i + 1, :, :length]) for length, i in rows]
    return torch.cat([latent[0] for latent in latents])


def padded_with_key_mask(model, tokens, plan):
    """Every sequence filled up to the longest, through every layer."""
    encoder, packing = model.encoder, pack_plan(plan, 1)
    count, longest = len(packing.lengths), packing.lengths[-1]
    x = pack_tokens(tokens, packing, encoder.prefix)
    place = packing.sequence * longest + packing.place
    x = x.new_zeros(count * longest, x.shape[-1]).index_copy(0, place, x).view(count, longest, -1)
    real = (torch.arange(longest, device=x.device) < packing.starts.diff()[:, None])[:, None, None]
    for layer in encoder.blocks:
        qkv = layer.attn.qkv(layer.ln1(x)).view(count, longest, 3, layer.attn.num_heads, -1)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), attn_mask=real)
        x = x + layer.attn.proj(y.transpose(1, 2).flatten(2))
        x = layer.ffn(layer.ln2(x), identity=x)
    return encoder.norm(x).flatten(0, 1)[place]


def fixed_length(model, tokens, plan):
    return model.encoder.encode(tokens, plan.order[..., : plan.num_visible[0]])


def build(args):
    """The model, tokens (B, 196, D), the ragged plan and one of fixed length with as many tokens."""
    arch = dict(embed_dims=args.width, num_layers=args.layers, num_heads=args.width // 64)
    arch['feedforward_channels'] = 4 * args.width
    backbone = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=224, patch_size=16)
    masker, decoder = dict(type='RandomMasking'), dict(type='MAEDecoder')
    model = MODELS.build(dict(type='MAE', backbone=backbone, masker=masker, decoder=decoder)).to(args.device)
    low, high = args.ratios
    lengths = [196 - num_hidden(196, low + (high - low) * u) for u in torch.rand(args.batch).tolist()]
    order = torch.rand(args.batch, 1, 196).argsort(dim=-1).to(args.device)
    tokens = torch.randn(args.batch, 196, args.width, device=args.device, requires_grad=True)
    even = MaskPlan(order, (round(sum(lengths) / args.batch),))
    return model, tokens, MaskPlan.from_lengths(order, lengths), even


def run(encode, model, tokens, plan, step):
    """Latent and what to differentiate."""
    with torch.autocast('cuda', torch.bfloat16, enabled=tokens.is_cuda):
        latent = encode(model, tokens, plan)
        if not step:
            return latent, latent
        if plan.uniform:
            return latent, model.decoder(latent, plan.order.flatten(0, 1), plan.num_visible[0])
        return latent, model.decoder.forward_packed(latent, pack_plan(plan, 1))


def clock(cuda):
    if not cuda:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def arguments(parser):
    """The options of ``tools/benchmark.py packed``."""
    for name, default in dict(width=384, layers=2, batch=32, threads=1, rounds=7, seed=0).items():
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--ratios', type=float, nargs=2, default=(0.5, 0.9), help='bounds of the uniform mask ratios')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--step', action='store_true', help="add MAE's decoder and a loss")


def execute(args, say):
    """Seconds and errors of every variant."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, tokens, ragged, even = build(args)
    cuda = tokens.is_cuda
    variants = {'one by one': (one_by_one, ragged), 'pad + key mask': (padded_with_key_mask, ragged)}
    variants |= {f'packed, {name}': (partial(packed, name), ragged) for name in BACKENDS if cuda or name != 'varlen'}
    variants[f'fixed {even.num_visible[0]}'] = (fixed_length, even)

    seconds, errors, wanted = {name: [] for name in variants}, {}, None
    for turn in range(args.rounds + 1):
        for name, (encode, plan) in variants.items():
            start = clock(cuda)
            latent, out = run(encode, model, tokens, plan, args.step)
            out.float().square().mean().backward()
            if turn:  # the first round warms up
                seconds[name].append(clock(cuda) - start)
            wanted = latent.detach() if wanted is None else wanted
            errors[name] = f'{(latent - wanted).abs().max().item():.1e}' if plan is ragged else '-'
    visible = ragged.rows()[1]
    lines = [f'{args.batch} images, {min(visible)} to {max(visible)} visible patches, {sum(visible)} in all']
    baseline = median(seconds['pad + key mask'])
    for name, values in seconds.items():
        ratio = baseline / median(values)
        lines.append(f'{name:20} {1000 * median(values):7.0f} ms {ratio:6.2f} x   error {errors[name]}')
    return dict(text='\n'.join(lines), seconds=seconds, errors=errors)
