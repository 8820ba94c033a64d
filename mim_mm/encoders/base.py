"""What anybody may ask of a backbone, whichever class it is: methods of one :class:`Encoder`, a subclass a family.

The backbone stays the plain mmpretrain module, so its weights load elsewhere without this package, and the Encoder
beside it is no module and owns no parameter. A further family is one subclass that names its backbones, in this room or
in a module of your own (``custom_imports`` of a config):

    class MyEncoder(Encoder):
        backbones = (MyViT,)

        def embed(self, images): ...
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mim_mm.encoders.families import FAMILIES, refusal
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.packed import Packing


class Encoder:
    """A backbone as algorithms, probes and tools use it. A family implements what its backbones can do.

    What it cannot do raises :class:`UnsupportedBackbone`, which says what to do instead; :meth:`can` asks beforehand.
    Nothing is stored between calls, and images may have any size that is whole patches: positions are resampled.

    B images, N patches, V visible, K parts, P prefix tokens, D width.

    Attributes:
        backbones: the classes that this family is for, exactly these (see :func:`family_of`).
        sub_blocks: names in a block of its attention and of its MLP sub-block, the norm in front of each first and a
            layer scale of the block's own last; empty where nobody said. See :func:`mim_mm.encoders.blocks.sub_blocks`.
        any_size: whether the backbone has no size of images that it is built for, so that the method has to say it.
        backbone: the module that is asked.
    """

    backbones: ClassVar[tuple[type[nn.Module], ...]] = ()
    sub_blocks: ClassVar[tuple[tuple[str, ...], ...]] = ()
    any_size: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        for kind in cls.__dict__.get('backbones', ()):  # its own, not those of the family it derives from
            FAMILIES[kind] = cls

    def __init__(self, backbone: nn.Module) -> None:
        # A plain reference: copied or pickled with its model, an Encoder refers to the copy of the backbone.
        self.backbone = backbone

    @classmethod
    def can(cls, name: str) -> bool:
        """Whether the family implements the method or property ``name``."""
        return getattr(cls, name) is not getattr(Encoder, name)

    # ---- what it is made of

    @property
    def grid(self) -> Grid:
        """Geometry at the input, for images of the size that the backbone was built for."""
        raise refusal(type(self.backbone), 'grid')

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Patches along height and width, for a step that is captured, where no :class:`Grid` can be made."""
        grid = self.grid
        return grid.height, grid.width

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks whose outputs are tokens (B, P+N, D), first to last."""
        raise refusal(type(self.backbone), 'blocks')

    @property
    def norm(self) -> nn.Module | None:
        """The final norm, or None where the backbone has none."""
        return None

    @property
    def closing(self) -> list[nn.Module]:
        """What the backbone's own pass has behind its blocks: the final norm, and the norm of pooled tokens."""
        return [] if self.norm is None else [self.norm]

    @property
    def num_prefix(self) -> int:
        """P, tokens in front of the patches; the first is the class token."""
        return self.grid.num_prefix

    @property
    def position_rows(self) -> int:
        """Rows of the table of positions in front of those of the patches; registers have none there."""
        return self.num_prefix

    @property
    def width(self) -> int:
        """D of the tokens at the end."""
        return self.output[1]

    @property
    def depth(self) -> int:
        """How many blocks of that width there are."""
        return self.stages[-1]

    @property
    def stages(self) -> list[int]:
        """How many blocks each stage has, first to last; one stage where all blocks are equally wide."""
        return [len(self.blocks)]

    @property
    def heads(self) -> int | None:
        """Attention heads of a block; None where they differ between blocks."""
        return None

    @property
    def output(self) -> tuple[int, int]:
        """Stride in pixels and channels of the feature map at the end."""
        return self.grid.patch_size, self.grid.embed_dims

    # ---- how it starts

    def prepare(self, pos_embed: str) -> None:
        """Initialise as MAE does: xavier linears and patch projection, class token N(0, 0.02), attention fused.

        Args:
            pos_embed: 'sincos' (fixed) or 'learned' (truncated normal, std 0.02).

        Raises:
            ValueError: an option of the backbone would show hidden patches or lose where patches are.
        """
        raise refusal(type(self.backbone), 'prepare')

    def initialise(self) -> None:
        """Initialise as the release of the method does that masks at the input; as it is where that is mmpretrain's."""

    # ---- what it computes

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, N, D) before any attention, without prefix.

        With position embedding where the backbone adds one at its input. (SimMIM's and BEiT's ViT and Swin know
        positions only as biases inside attention: there a masker sees appearance alone.)
        """
        raise refusal(type(self.backbone), 'embed')

    def positions(self, size: tuple[int, int]) -> Tensor:
        """What :meth:`embed` adds to the patches of images of ``size`` (height, width) in pixels: (1, N, D)."""
        raise refusal(type(self.backbone), 'positions')

    def encode_tokens(self, tokens: Tensor, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """All patches, from their tokens on.

        Args:
            tokens: (B, N, D), as :meth:`embed` gives them or with others in place of hidden ones.
            attention: the class token's attention of the last block too, from the same pass.

        Returns:
            (B, P+N, D) after the final norm, prefix tokens first; and (B, N) of :meth:`cls_attention`, or None.
        """
        raise refusal(type(self.backbone), 'encode_tokens')

    def encode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """What the visible patches alone give.

        Args:
            tokens: (B, N, D) from :meth:`embed`.
            visible: long (B, K, V), places of the visible patches of each part.

        Returns:
            (B*K, P+V, D); all parts in one batch, prefix tokens first, patches in the order of ``visible``.
        """
        raise refusal(type(self.backbone), 'encode')

    def encode_levels(self, tokens: Tensor, visible: Tensor, blocks: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """:meth:`encode`, and what chosen blocks put out on the way, for decoders that read several depths.

        Args:
            tokens, visible: as there.
            blocks: which of :attr:`blocks`, counted from 0.

        Returns:
            the tokens after the final norm, and a tensor for each of ``blocks`` before any norm; (B*K, P+V, D) each.

        Raises:
            UnsupportedBackbone: also where the backbone adds biases of relative positions for all of its patches.
        """
        raise refusal(type(self.backbone), 'encode_levels')

    def encode_packed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """:meth:`encode` for sequences of any lengths: tokens (B, N, D) -> (T, D), laid end to end as ``packing`` says.

        Raises:
            UnsupportedBackbone: also where an option of the backbone does not work token by token.
        """
        raise refusal(type(self.backbone), 'encode_packed')

    def encode_masked(self, images: Tensor, mask: Tensor) -> Tensor:
        """All patches, with mask tokens in place of the hidden ones; the sequence keeps its length.

        It takes images and not the tokens of :meth:`embed`: the mask token enters before positions are added, and so
        the pass is mmpretrain's own, bit for bit.

        Args:
            images: (B, C, H, W).
            mask: bool (B, h, w) over patches, True where hidden; each image may hide its own number.

        Returns:
            (B, P+N', D'), prefix tokens first, then the map of :attr:`output`, row by row.
        """
        raise refusal(type(self.backbone), 'encode_masked')

    def encode_visible(self, images: Tensor, visible: Tensor) -> Tensor:
        """Some patches of each image, as CAE's encoder takes them.

        Args:
            images: (B, C, H, W).
            visible: long (B, V), which ones; ascending, as CAE has them.

        Returns:
            (B, P+V, D), prefix tokens first.
        """
        raise refusal(type(self.backbone), 'encode_visible')

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing hidden: images (B, C, H, W) -> prefix tokens (B, P, D') and patches (B, N', D') of the map at the
        end, after the final norm."""
        raise refusal(type(self.backbone), 'encode_whole')

    def mlp_outputs(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """What the MLPs of chosen blocks put out, before layer scale and the sum with their input; nothing is hidden.

        Args:
            images: (B, C, H, W).
            blocks: which of :attr:`blocks`, counted from 0.

        Returns:
            A tensor (B, P+N, D) for each of ``blocks``, in their order.
        """
        raise refusal(type(self.backbone), 'mlp_outputs')

    def cls_attention(self, tokens: Tensor, minmax_heads: bool = False) -> Tensor:
        """How much the class token attends to each patch in the last block, without gradient and dropout.

        ``softmax(q_cls k^T / sqrt(d))`` over all tokens, its patch entries averaged over heads. A backbone without
        class token asks with the mean of all queries instead. All blocks but the last are run in full; of the last one
        only this row is computed.

        Args:
            tokens: (B, N, D) from :meth:`embed`.
            minmax_heads: rescale each head's patch entries to [0, 1] before averaging, as AMT's code does.

        Returns:
            (B, N), fp32, >= 0; without ``minmax_heads`` a row sums to at most 1, what is missing being the class
            token's attention to itself.
        """
        raise refusal(type(self.backbone), 'cls_attention')

    def read(self, images: Tensor, blocks: Sequence[int], norm: bool = True) -> list[Tensor]:
        """Tokens of chosen blocks from one forward pass of the backbone's own, without gradient: what probes read.

        They are read where they arise, whatever ``out_indices`` and ``out_type`` the backbone was built with. Backbones
        that mask unless told otherwise (``MAEViT``, ``BEiTPretrainViT``) are told so.

        Args:
            images: (B, 3, H, W), normalised.
            blocks: which of :attr:`blocks`, counted from 0.
            norm: apply the final norm to each; False: the blocks' bare outputs.

        Returns:
            A tensor (B, P + N, D) for each block, in the order of ``blocks``.

        Raises:
            UnsupportedBackbone: there is no stack of equally wide blocks.
        """
        backbone, all_blocks = self.backbone, self.blocks
        found: dict[int, Tensor] = {}

        def keep(index: int):
            def hook(module, inputs, output):
                if not isinstance(output, Tensor):
                    raise refusal(type(backbone), 'blocks', f'its blocks put out a {type(output).__name__}, no tokens')
                found[index] = output

            return hook

        handles = [all_blocks[index].register_forward_hook(keep(index)) for index in blocks]
        options = {'mask': None} if 'mask' in inspect.signature(backbone.forward).parameters else {}
        try:
            with torch.no_grad():
                backbone(images, **options)
                tokens = [found[index] for index in blocks]
                return [self.norm(t) for t in tokens] if norm and self.norm is not None else tokens
        finally:
            for handle in handles:
                handle.remove()
