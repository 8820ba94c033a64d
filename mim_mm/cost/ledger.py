"""A training step on tensors without data, entered in a book: FLOPs and bytes of every part of the model.

torch's ``FakeTensorMode`` knows type and shape of every tensor and holds no memory; ``FlopCounterMode`` counts matrix
products and convolutions. Two things are missing there and stand here. Which part of the model an operation belongs
to: the one whose weights it reads; one without weights (attention, pooling) belongs to the part before it. And the
values of small tensors, without which no mask can be indexed and no list of drop rates be read: what follows from
constants and real input alone is computed beside the shapes.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor as Fake
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

aten = torch.ops.aten
# Values are computed of masks, labels and indices up to the first size, of numbers up to the second.
MOST_WHOLE, MOST_NUMBERS = 2**22, 2**12
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args, out_shape=None, **kwargs) -> int:
    """Twice the forward pass, as of every product; that fused kernels form the scores once more is not counted."""
    return 2 * sdpa_flop_count(query, key, value)


def _convolution_backward(gradient, image, weight, bias, stride, padding, dilation, transposed, *args, **kwargs) -> int:
    """The forward pass for each of the two gradients; torch's own formula counts grouped kernels as dense."""
    wanted = args[2]
    return (wanted[0] + wanted[1]) * conv_flop_count(image, weight, gradient, transposed)


ATTENTION = (
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_efficient_attention_backward.default,
)
# In place of torch's formulas, or where it has none; from shapes.
FORMULAS = {
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.convolution_backward: _convolution_backward,
}
_torch_attention = F.scaled_dot_product_attention


def _gpu_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **more) -> Tensor:
    """``scaled_dot_product_attention`` by the fused kernel that a GPU takes for any bias; it keeps no N x N scores."""
    if query.dim() != 4 or more.get('enable_gqa'):
        return _torch_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)
    if torch.is_autocast_enabled('cpu'):
        kind = torch.get_autocast_dtype('cpu')
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros(attn_mask.shape)
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    kernel = aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


class _Copies(TorchFunctionMode):
    """Lets ``copy.deepcopy`` copy tensors without data."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            memo[id(tensor)] = copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            return copy
        return func(*args, **(kwargs or {}))


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Attention as a GPU does it; by replacement, since recomputation in the backward pass must meet the same one.

    mmpretrain takes torch's attention when it is first imported; met here, it would keep this one for the process.
    """
    with suppress(ImportError):
        import mmpretrain.models.utils.attention  # noqa: F401
    with mock.patch.object(F, 'scaled_dot_product_attention', _gpu_attention):
        yield


def part_of(name: str) -> str:
    """The part that a parameter or buffer belongs to: the first two steps to its module."""
    return '.'.join(name.split('.')[:-1][:2])


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Alive:
    """Bytes of the storages that are alive, of those that were added."""

    def __init__(self) -> None:
        self.now = 0
        self._known: set[int] = set()

    def add(self, tensor: Tensor) -> int:
        """The bytes that this one adds: 0 if its storage is there already."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return 0
        self._known.add(key)
        self.now += size
        weakref.finalize(storage, self._free, key, size).atexit = False
        return size

    def leave_out(self, tensor: Tensor) -> None:
        self._known.add(tensor.untyped_storage()._cdata)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class Ledger(TorchDispatchMode):
    """The book. Make the model inside of :meth:`building`, run its step inside of :meth:`watching`.

    A part is a module one or two steps below the model, ``backbone.layers``. What runs without gradient (a look-ahead
    pass, a teacher) is entered apart: keys are (part, with gradient).

    Attributes:
        forward, backward: FLOPs; a forward pass that is repeated for the backward pass counts to that.
        saved: bytes kept for the backward pass, without what follows from weights alone.
        working: the most bytes alive at one time while the part ran, besides those kept.
        repeated: the most bytes that repeated forward passes keep at one time.
        derived: the most bytes kept at one time that follow from weights alone, whatever the batch (casts, biases).
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.flops = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        self.forward, self.backward, self.saved, self.working = (defaultdict(float) for _ in range(4))
        self.repeated = self.derived = 0.0
        self._part, self._watched, self._going_back = '', False, False
        self._alive, self._kept, self._again, self._derived = (Alive() for _ in range(4))

    @contextmanager
    def building(self) -> Iterator[None]:
        """Modules that are made inside have weights without data."""
        made = mock.patch.object(nn.utils, 'skip_init', lambda kind, *args, **kwargs: kind(*args, **kwargs))
        with self.fake, self, _Copies(), _as_on_a_gpu(), made:
            yield

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """What runs inside is entered; backward passes go through :meth:`go_back`."""
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            tensor.part = part_of(name)
            self._derived.leave_out(tensor)
        hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        with self.fake, self.flops, self, _as_on_a_gpu(), hooks:
            self._watched = True
            yield
            self._watched = False

    def go_back(self, loss: Tensor) -> None:
        """The backward pass of ``loss``."""
        self._going_back = True
        loss.backward()
        self._going_back = False

    def flops_of_parts(self) -> tuple[dict, dict]:
        """``forward`` and ``backward``, each part in the first of them.

        Checkpointing runs the forward pass without gradient although the part is trained. And the gradient of a weight
        whose input needs none is taken before anything reads a weight of that part: it stands at a part without
        forward FLOPs behind it.
        """
        forward, backward = dict(self.forward), dict(self.backward)
        for part, graded in list(forward):
            if not graded and backward.get((part, True)) and not forward.get((part, True)):
                forward[part, True] = forward.pop((part, False))
        keys = list(forward)
        for key in [key for key in backward if backward[key] and not forward.get(key)]:
            before = [k for k in keys[: keys.index(key)] if forward[k]] if key in keys else []
            target = (before or [k for k in keys if forward[k]])[-1]
            backward[target] = backward.get(target, 0.0) + backward.pop(key)
        return forward, backward

    def _key(self) -> tuple[str, bool]:
        return self._part, self._going_back or torch.is_grad_enabled()

    def _keep(self, tensor: Tensor) -> Tensor:
        """Hook of autograd for each tensor that it saves."""
        if getattr(tensor, 'part', None) is not None:
            self._derived.add(tensor)
            self.derived = max(self.derived, self._derived.now)
        elif self._going_back:
            self._again.add(tensor)
            self.repeated = max(self.repeated, self._again.now)
        else:
            self.saved[self._part, True] += self._kept.add(tensor)
        return tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not all(isinstance(tensor, Fake) for tensor in _tensors((args, kwargs))):
            args, kwargs = tree_map_only(Tensor, self._adopt, (args, kwargs))
        if func in INDEXING:
            args = (args[0], self._places(args[1]), *args[2:])
        tensors = _tensors((args, kwargs))
        if not self._watched:
            return self._run(func, args, kwargs, tensors)
        parts = [getattr(tensor, 'part', None) for tensor in tensors]
        if func not in ATTENTION:  # a bias there may be another part's
            self._part = next((part for part in parts if part is not None), self._part)
        before = self.flops.get_total_flops()
        out = self._run(func, args, kwargs, tensors)
        column = self.backward if self._going_back else self.forward
        column[self._key()] += self.flops.get_total_flops() - before
        of_weights = bool(parts) and None not in parts
        for tensor in _tensors(out):
            if of_weights:
                tensor.part = self._part
            elif not self._going_back and getattr(tensor, 'part', None) is None:
                self._alive.add(tensor)
        self.working[self._key()] = max(self.working[self._key()], self._alive.now - self._kept.now)
        return out

    # ---- values of small tensors

    def _adopt(self, tensor: Tensor) -> Fake:
        """A tensor with data as one without, which remembers its value if that is small."""
        if isinstance(tensor, Fake):
            return tensor
        fake = self.fake.from_tensor(tensor)
        if self._small(fake):
            fake.value = tensor
        return fake

    @staticmethod
    def _small(tensor: Tensor) -> bool:
        return tensor.numel() <= (MOST_NUMBERS if tensor.dtype.is_floating_point else MOST_WHOLE)

    def _places(self, indices) -> list[Fake | None]:
        """Indices of an indexing operation, masks replaced by the places where they are True."""
        found = []
        for index in indices:
            value = getattr(index, 'value', None)
            if value is None or value.dtype not in (torch.bool, torch.uint8):
                found.append(index)
            else:
                with _disable_current_modes():
                    places = value.nonzero().unbind(1)
                found += map(self._adopt, places)
        return found

    def _run(self, func, args, kwargs, tensors):
        """The operation on shapes and, where all that it takes is known, on values."""
        values = [getattr(tensor, 'value', None) for tensor in tensors]
        known = all(value is not None for value in values)
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            if not known and not self._watched and func is aten._local_scalar_dense.default:
                return 0  # of weights that are being drawn
            if known:
                return tree_map_only(Tensor, self._adopt, self._on_values(func, args, kwargs))
            raise ValueError(
                f'the model asks for values that depend on the images ({error}), and its cost is counted without any. '
                'What is drawn or chosen belongs into the masker, whose plans are known here'
            ) from error
        made = _tensors(out)
        if known and all(map(self._small, made)):
            for fake, value in zip(made, _tensors(self._on_values(func, args, kwargs)), strict=True):
                fake.value = value
        elif func._schema.is_mutable:
            for tensor in made:
                tensor.value = None
        return out

    @staticmethod
    def _on_values(func, args, kwargs):
        with _disable_current_modes():
            return func(*tree_map_only(Fake, lambda t: t.value, args), **tree_map_only(Fake, lambda t: t.value, kwargs))
