"""Sequences of different lengths without padding: tokens laid end to end as (T, D), cut apart only for attention.

Linears, norms and MLPs, 95 % of a ViT's arithmetic, do not care where a sequence ends, so they run on the packed
tokens as they are. T tokens of all S sequences (the parts that exist, of all images), H heads of width d.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from mim_mm.encoders.fused import attention, self_attention
from mim_mm.masking.plan import MaskPlan, host_index, ragged_places

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

# Up to this many different lengths a GPU too makes one plain call each: few launches, and no key mask, which would
# exclude the flash kernel. Chosen from how the kernels work, not measured.
FEW_GROUPS = 4


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a plan lie once they are packed.

    The sequences are sorted by length, so that those of equal length are neighbours and attention can take them as one
    rectangular view. All lengths are known to the host: nothing here waits for the device.

    Attributes:
        lengths: tokens of each of the S sequences, prefix tokens included, ascending. Host ints.
        groups: ``((sequences, length), ...)``, how many neighbours are equally long. Host ints.
        num_prefix: P, tokens at the head of each sequence.
        order: long (S, N), ``MaskPlan.order`` of the parts that exist, image by image (not sorted by length).
        source: long (T,), where each token comes from: the P * S prefix tokens first, then tokens (B, N) flattened.
        sequence: long (T,), the sequence of each token.
        place: long (T,), its place in the sequence.
        starts: int32 (S+1,), first token of each sequence, T at the end (``cu_seqlens``).
        destination: long (T,), the place of each token in decoder sequences (S, P+N) flattened, which stand as the
            lines of ``order`` do.
        hidden: long (H,), the hidden patches in decoder sequences flattened, in the order of ``MaskPlan.hidden_index``.
    """

    lengths: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]
    num_prefix: int
    order: Tensor
    source: Tensor
    sequence: Tensor
    place: Tensor
    starts: Tensor
    destination: Tensor
    hidden: Tensor


def pack_plan(plan: MaskPlan, num_prefix: int) -> Packing:
    """Lay out the visible patches of a plan, any plan, behind ``num_prefix`` tokens a sequence."""
    device, patches = plan.order.device, plan.num_patches
    rows, visible = plan.rows()
    by_length = sorted(range(len(rows)), key=visible.__getitem__)  # stable: equal lengths stay as they are
    lengths = tuple(num_prefix + visible[i] for i in by_length)
    counts: dict[int, int] = {}
    for length in lengths:
        counts[length] = counts.get(length, 0) + 1
    order = plan.order.flatten(0, 1)
    if len(rows) < len(order):
        order = order.index_select(0, host_index(rows, device))
    line = host_index(by_length, device)  # of each sequence, in order
    image = host_index([rows[i] // plan.num_parts for i in by_length], device)

    sequence, place = ragged_places(lengths, device)
    patch = order[line[sequence], (place - num_prefix).clamp(min=0)]
    source = num_prefix * len(rows) + image[sequence] * patches + patch
    if num_prefix:
        source = torch.where(place < num_prefix, sequence * num_prefix + place, source)
    starts = F.pad(host_index(lengths, device).cumsum(0), (1, 0)).int()
    whole = num_prefix + patches
    destination = line[sequence] * whole + place
    row, rank = ragged_places([patches - v for v in visible], device)
    hidden = row * whole + num_prefix + host_index(visible, device)[row] + rank
    groups = tuple((count, length) for length, count in counts.items())
    return Packing(lengths, groups, num_prefix, order, source, sequence, place, starts, destination, hidden)


def pack_tokens(tokens: Tensor, packing: Packing, prefix: Tensor | None = None) -> Tensor:
    """Tokens (B, N, D) and prefix tokens (1, P, D) as (T, D)."""
    flat = tokens.flatten(0, 1)
    if packing.num_prefix:
        flat = torch.cat([prefix.to(flat.dtype).expand(len(packing.lengths), -1, -1).flatten(0, 1), flat])
    return flat.index_select(0, packing.source)


def drop_path(x: Tensor, layer: nn.Module, packing: Packing) -> Tensor:
    """Apply a block's ``DropPath`` to packed tokens (T, D): one draw a sequence, as it does for a batch of them.

    Any other layer works token by token and is applied as it is.
    """
    if not isinstance(layer, DropPath):
        return layer(x)
    if not layer.drop_prob or not layer.training:
        return x
    keep = 1 - layer.drop_prob
    kept = (keep + torch.rand(len(packing.lengths), dtype=x.dtype, device=x.device)).floor()
    return x.div(keep) * kept[packing.sequence, None]


def attend(qkv: Tensor, packing: Packing, scale: float | None = None, dropout: float = 0.0) -> Tensor:
    """Attention inside each sequence.

    On CUDA in fp16 or bf16 torch's ``varlen_attn`` (flash attention over ``cu_seqlens``) where the running torch has
    it; else, on CUDA, padded attention with a key mask, because a launch for each length is what a GPU minds most; on a
    CPU, where calls are cheap and padding is not, a plain attention call for each length that occurs. The CPU's choice
    is measured (docs/results/packed_attention.md), the GPU's is not.

    Args:
        qkv: (T, 3, H, d).
        scale: factor of the logits; d ** -0.5 by default.
        dropout: probability of dropping an attention weight.

    Returns:
        (T, H * d).
    """
    width = qkv.shape[-1]
    if scale is not None and scale != width**-0.5:
        # Folded into the queries: the varlen_attn of torch 2.10 takes no scale.
        q, k, v = qkv.unbind(1)
        qkv = torch.stack([q * (scale * width**0.5), k, v], dim=1)
    return BACKENDS[_forced or choose_backend(qkv, packing, dropout)](qkv, packing, dropout).flatten(1)


def choose_backend(qkv: Tensor, packing: Packing, dropout: float) -> str:
    """The name of the fastest attention that can do it; see :func:`attend`."""
    if not qkv.is_cuda:
        return 'by_length'
    if varlen_attn is not None and not dropout and _flash_takes(qkv):
        return 'varlen'
    return 'by_length' if len(packing.groups) <= FEW_GROUPS else 'padded'


def _flash_takes(qkv: Tensor) -> bool:
    """Whether flash attention has a kernel for it: half precision, head width in steps of 8 up to 256, Ampere on."""
    width = qkv.shape[-1]
    return (
        qkv.dtype in (torch.float16, torch.bfloat16)
        and width % 8 == 0
        and width <= 256
        and (torch.version.hip is not None or torch.cuda.get_device_capability(qkv.device) >= (8, 0))
    )


def _varlen(qkv: Tensor, packing: Packing, dropout: float) -> Tensor:
    q, k, v = qkv.unbind(1)
    longest = packing.lengths[-1]
    return varlen_attn(q, k, v, packing.starts, packing.starts, longest, longest)


def _by_length(qkv: Tensor, packing: Packing, dropout: float) -> Tensor:
    heads, width = qkv.shape[2:]
    out = []
    # split, not slices: its backward is one concatenation, that of a slice writes zeros over all T tokens.
    pieces = qkv.split([count * length for count, length in packing.groups])
    for piece, (count, length) in zip(pieces, packing.groups, strict=True):
        y = self_attention(piece.reshape(count, length, -1), heads, dropout)
        out.append(y.view(count * length, heads, width))
    return torch.cat(out)


def _padded(qkv: Tensor, packing: Packing, dropout: float) -> Tensor:
    count, longest = len(packing.lengths), packing.lengths[-1]
    place = packing.sequence * longest + packing.place
    full = qkv.new_zeros(count * longest, *qkv.shape[1:]).index_copy(0, place, qkv)
    q, k, v = full.unflatten(0, (count, longest)).permute(2, 0, 3, 1, 4).unbind(0)
    real = torch.arange(longest, device=qkv.device) < packing.starts.diff()[:, None]
    y = attention(q, k, v, bias=real[:, None, None], dropout=dropout)
    return y.transpose(1, 2).flatten(0, 1).index_select(0, place)


BACKENDS = {'varlen': _varlen, 'by_length': _by_length, 'padded': _padded}
_forced: str | None = None


@contextmanager
def attention_backend(name: str) -> Iterator[None]:
    """Within this context every packed attention uses one backend of ``BACKENDS``: for comparing and timing them.

    Raises:
        ValueError: if there is none of that name.
    """
    global _forced
    if name not in BACKENDS:
        raise ValueError(f"there is no attention backend '{name}': use one of {', '.join(BACKENDS)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before
