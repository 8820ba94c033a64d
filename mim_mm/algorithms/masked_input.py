"""What SimMIM, BEiT and CAE share: a masker decides about units of the image, the backbone gets the mask itself."""

from __future__ import annotations

from torch import Tensor

from mim_mm.algorithms.base import Pretraining
from mim_mm.encoders import Grid, build_backbone, encoder_of
from mim_mm.encoders.mask_units import MaskUnits
from mim_mm.encoders.positions import plain_drop_path
from mim_mm.masking import MaskPlan
from mim_mm.masking.plan import host_index


class MaskedInput(Pretraining):
    """A backbone with mask tokens and any masker. Methods derive from it and add target and loss.

    The masker is called exactly as by MAE: with the tokens of the units, (B, N, D), and a generator, after one more
    embedding of the patches (0.2 % of the FLOPs of a ViT-B step; mmpretrain's backbones stay as they are). A plan of K
    parts is run as B*K images; ratios that differ between images cost nothing here: the sequence keeps its length.

    Weights are initialised by ``init_weights``, which mmengine's Runner calls: the encoder as the method's release
    does, unless its config has an ``init_cfg`` (a checkpoint to go on from, or another start).

    Args:
        backbone: config of a backbone whose :class:`mim_mm.encoders.Encoder` has what the method ``needs``. Saved as
            ``backbone.*``.
        masker: config of a masking strategy; its ratio and block sizes count units.
        mask_unit: side of the squares that are hidden, in pixels; None means one patch.
        data_preprocessor: as :class:`Pretraining`.
    """

    needs = ('encode_masked',)  # what the Encoder of the backbone must have

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        mask_unit: int | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        self.backbone = build_backbone(backbone, *self.needs)
        self._own_start = backbone.get('init_cfg') is not None
        self.encoder = encoder_of(self.backbone, *self.needs)
        plain_drop_path(self.backbone)
        tokens = self.encoder.grid
        self.patch_size = tokens.patch_size
        self.mask_unit = mask_unit or tokens.patch_size
        units = self.units_of(tokens.height * tokens.patch_size, tokens.width * tokens.patch_size)
        # The grid that plans live on; its patches are the mask units.
        self.grid = Grid(
            units.rows, units.columns, self.mask_unit, tokens.in_channels, tokens.embed_dims, tokens.num_prefix
        )

    def init_weights(self) -> None:
        """As the release of the method; a backbone with an ``init_cfg`` in its config as that says."""
        super().init_weights()
        if not self._own_start:
            self.encoder.initialise()

    def units_of(self, height: int, width: int) -> MaskUnits:
        """The mask units of an image of height x width px."""
        return MaskUnits.cover(height, width, self.patch_size, self.mask_unit)

    def features(self, images: Tensor):
        """What the backbone makes of whole images, without a mask."""
        return self.backbone(images, None)

    def mask_units(self, images: Tensor) -> MaskUnits:
        """Plans are over units."""
        return self.units_of(*images.shape[-2:])

    def attention(self, tokens: Tensor) -> Tensor:
        """The class token's attention (B, N) to the patches ``tokens`` (B, N, D) of whole images.

        Raises:
            ValueError: the backbone has no class token.
        """
        if not self.encoder.can('cls_attention'):
            raise ValueError(
                f'{type(self.masker).__name__} follows the class token, which {type(self.backbone).__name__} '
                'lacks: use a ViT, or a masker that needs no attention (SalienceMasking)'
            )
        return super().attention(tokens)

    @staticmethod
    def masked_parts(plan: MaskPlan, *per_image: Tensor) -> tuple[Tensor, ...]:
        """The masks of the R parts that exist, bool (R, N), and tensors (B, ...) repeated to (R, ...) for them.

        R is B for a plan of one part, B*K for K parts, less the parts that an image does not have.
        """
        mask = plan.mask.flatten(0, 1)
        if plan.num_parts == 1:
            return mask, *per_image
        rows = host_index(plan.rows()[0], mask.device)
        return mask[rows], *(tensor[rows // plan.num_parts] for tensor in per_image)
