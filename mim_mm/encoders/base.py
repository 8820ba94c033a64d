"""What an algorithm may ask of a backbone, whichever class it is: a few functions, one file per class.

The backbone stays the plain mmpretrain module, so its weights load elsewhere without this package. A further backbone
is supported by a file beside ``vit.py`` that adds its class to ``ADAPTERS``. (A table looked up once, and not
``functools.singledispatch``: that cannot be captured by torch.compile.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from mim_mm.encoders.packed import Packing
from mim_mm.registry import MODELS


@dataclass(frozen=True)
class Grid:
    """Geometry of a backbone.

    Attributes:
        height, width: patches along each side; N = height * width.
        patch_size: side of a patch in pixels.
        in_channels: channels of the image.
        embed_dims: D, width of a token.
        num_prefix: P, tokens in front of the patches (class token), which no mask plan counts.
    """

    height: int
    width: int
    patch_size: int
    in_channels: int
    embed_dims: int
    num_prefix: int

    @property
    def num_patches(self) -> int:
        return self.height * self.width

    def of_image(self, images: Tensor) -> tuple[int, int]:
        """Patches along height and width of a batch (B, C, H, W).

        Raises:
            ValueError: if the image is not a whole number of patches.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'images of {height} x {width} px are not a whole number of {self.patch_size}-px patches: '
                f'resize or crop them to multiples of {self.patch_size}'
            )
        return height // self.patch_size, width // self.patch_size


def _cannot_pack(backbone: nn.Module, tokens: Tensor, packing: Packing) -> Tensor:
    raise NotImplementedError(
        f'the adapter of {type(backbone).__name__} has no encode_packed, which parts of unequal length need: add it '
        '(see mim_mm/encoders/vit.py), or use a masker with one number of visible patches for all images and parts'
    )


class Adapter(NamedTuple):
    """What an algorithm may ask of a backbone, as functions of it.

    Attributes:
        describe: ``(backbone) -> Grid``.
        prepare: ``(backbone, pos_embed) -> None``; initialise as MAE does: xavier linears and patch projection, cls
            N(0, 0.02), positions 'sincos' (fixed) or 'learned' (truncated normal, std 0.02).
        embed: ``(backbone, images (B, C, H, W)) -> tokens (B, N, D)`` with position embedding, before any attention and
            without class token.
        encode: ``(backbone, tokens (B, N, D), visible long (B, K, V)) -> (B*K, P+V, D)``; all parts in one batch,
            prefix tokens first, the patches in the order of ``visible``.
        encode_packed: ``(backbone, tokens (B, N, D), packing) -> (T, D)``; the same for sequences of any lengths, laid
            end to end as :class:`mim_mm.encoders.packed.Packing` says. Optional.
    """

    describe: Callable[[nn.Module], Grid]
    prepare: Callable[[nn.Module, str], None]
    embed: Callable[[nn.Module, Tensor], Tensor]
    encode: Callable[[nn.Module, Tensor, Tensor], Tensor]
    encode_packed: Callable[[nn.Module, Tensor, Packing], Tensor] = _cannot_pack


ADAPTERS: dict[type[nn.Module], Adapter] = {}
EXACTLY = (
    'these classes exactly: a subclass may embed, order or attend otherwise, and nothing would notice; one that does '
    'not is added as ADAPTERS[YourClass] = ADAPTERS[ItsBase]'
)


def adapter_of(backbone: nn.Module | type[nn.Module]) -> Adapter:
    """The adapter of a backbone, or of a class of backbones.

    Of exactly this class. By inheritance mmpretrain's DeiT3 (positions without class token), its
    DistilledVisionTransformer (a second prefix token) and ViTEVA02 (rotary positions) would be encoded wrongly.

    Raises:
        NotImplementedError: if there is none.
    """
    kind = backbone if isinstance(backbone, type) else type(backbone)
    if kind in ADAPTERS:
        return ADAPTERS[kind]
    raise NotImplementedError(
        f'{kind.__name__} cannot encode visible patches only: supported are the mmpretrain backbones '
        f'{" and ".join(k.__name__ for k in ADAPTERS)} ({EXACTLY}). Add yours to mim_mm.encoders.ADAPTERS'
    )


def build_backbone(config: dict, adapter: Callable[[type[nn.Module]], object]) -> nn.Module:
    """Build a backbone of a config, once ``adapter`` (:func:`adapter_of` or its like) has not refused its class."""
    with MODELS.switch_scope_and_registry(config.get('_scope_')) as registry:
        kind = config.get('type')
        kind = registry.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type):
        adapter(kind)
    return MODELS.build(config)


def gather_parts(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, N, D) at ids (B, K, V) as (B*K, V, D)."""
    batch, parts, length = ids.shape
    index = ids.reshape(batch, parts * length, 1).expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, index).view(batch * parts, length, tokens.shape[-1])
