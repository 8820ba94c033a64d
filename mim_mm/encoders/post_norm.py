"""A ViT that normalises behind its residuals, as data2vec 2.0 has it (Baevski et al., ICML 2023, arXiv 2212.07525)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models import VisionTransformer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.class_attention import project_row, row_of
from mim_mm.encoders.initial import init_data2vec2
from mim_mm.encoders.positions import set_positions
from mim_mm.encoders.vit import ViTEncoder
from mim_mm.registry import MODELS


class PostNormLayer(TransformerEncoderLayer):
    """``x = ln1(x + attn(x))``, then ``ln2(x + mlp(x))``; parameters are named as in mmpretrain's layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.behind_attention(x + self.attn(x))

    def behind_attention(self, x: Tensor) -> Tensor:
        """The rest of the layer, from the sum of its input and its attention on."""
        x = self.ln1(x)
        return self.ln2(self.ffn(x, identity=x))


def norms_behind(layers: Iterable[nn.Module]) -> None:
    """Let mmpretrain's layers run as :class:`PostNormLayer`; parameters and their names stay as they are.

    Raises:
        ValueError: an MLP that adds its input in its own way (SwiGLU).
    """
    for layer in layers:
        if type(layer) is not TransformerEncoderLayer or not isinstance(layer.ffn, FFN):
            raise ValueError(
                f'{type(layer).__name__} with {type(layer.ffn).__name__}: norms behind the residuals are those of '
                "mmpretrain's TransformerEncoderLayer with its plain MLP; leave ffn_type out of layer_cfgs"
            )
        layer.__class__ = PostNormLayer


@MODELS.register_module()
class PostNormViT(VisionTransformer):
    """mmpretrain's ViT with norms behind the residuals, one in front of the first block and none at the end.

    Positions are fixed sines and cosines, also downstream; the class token has none. Parameters are named as in
    ``VisionTransformer`` (``pre_norm`` is the norm in front), and start as in data2vec 2.0's release. Under layer
    decay everything in front of the blocks counts as behind them: its fine-tuning decays the rates of blocks alone.

    Args:
        **kwargs: as ``VisionTransformer``; ``pre_norm`` is set, ``final_norm`` False unless it is asked for.

    Raises:
        ValueError: ``pre_norm=False``, or an MLP other than the plain one.
    """

    def __init__(self, *args, patch_cfg: Mapping | None = None, final_norm: bool = False, **kwargs) -> None:
        if not kwargs.pop('pre_norm', True):
            raise ValueError('pre_norm=False: PostNormViT has a norm in front of its first block; leave it out')
        # mmpretrain's patch embedding has no bias where a norm follows, as CLIP's; this one has.
        patch_cfg = {'bias': True, **(patch_cfg or {})}
        super().__init__(*args, patch_cfg=patch_cfg, final_norm=final_norm, pre_norm=True, **kwargs)
        norms_behind(self.layers)
        set_positions(self, 'sincos', *self.patch_resolution, self.num_extra_tokens)

    def init_weights(self) -> None:
        """As data2vec 2.0's release, unless ``init_cfg`` names a checkpoint or another start; positions stay fixed."""
        super().init_weights()
        if self.init_cfg is None:
            init_data2vec2(self)
        elif not (isinstance(self.init_cfg, Mapping) and self.init_cfg.get('type') == 'Pretrained'):
            set_positions(self, 'sincos', *self.patch_resolution, self.num_extra_tokens)  # drawn anew by mmpretrain

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As mmpretrain's, but patch embedding and class token have the depth of what stands behind the blocks."""
        depth, count = super().get_layer_depth(param_name, prefix)
        return depth or count - 1, count


class PostNormEncoder(ViTEncoder):
    """A ViT whose blocks take what they attend to as it is."""

    backbones = (PostNormViT,)
    backbone: PostNormViT
    encode_packed = Encoder.encode_packed  # the packed layer is that with its norms in front

    def initialise(self) -> None:
        init_data2vec2(self.backbone)

    def _row(self, x: Tensor, minmax_heads: bool = False) -> Tensor:
        attn = self.backbone.layers[-1].attn
        query, keys = project_row(x, attn.qkv, self.num_prefix)
        return row_of(query, keys, attn.num_heads, self.num_prefix, minmax_heads)
