"""What ``--method`` pretrains, and which downstream recipes its encoder has."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mmengine.config import Config

from mim_mm.transfer.chain import ChainError, find_file

STAGES = ('quick_probe', 'linear', 'finetune', 'detect', 'segment')
DATA_OF = dict(detect='boxes', segment='masks')  # stage -> the option with its data; else classes
# Recipes by mmpretrain's name of the architecture; other sizes inherit from those of ViT-B.
SIZES = {
    'base': ('vitb', 'linear_90e', 'finetune_100e'),
    'deit-small': ('vits', 'linear_90e', 'finetune_200e'),
    'large': ('vitl', 'linear_50e', 'finetune_50e'),
    'huge': ('vith', 'linear_50e', 'finetune_50e'),
}
SHORT = dict(s='deit-small', b='base', l='large', h='huge')
SMALL = 2  # --small divides the method's image size by it


@dataclass(frozen=True)
class Encoder:
    """What the other stages must know of the pretrained encoder. Sizes in pixels.

    Attributes:
        kind, method: class names of the backbone and of the pretraining.
        arch: a name of mmpretrain's, or a dict.
        width, depth: of the last tokens, and of blocks of that width.
        shrink: image size over that of the method, 1 without ``--image-size``.
        backbone: settings of the pretrained one that the others have to share.
    """

    kind: str
    arch: Any
    width: int
    depth: int
    img_size: int
    patch_size: int
    mean: list[float] | None
    std: list[float] | None
    method: str = ''
    shrink: float = 1.0
    backbone: dict[str, Any] = field(default_factory=dict)

    @property
    def is_vit(self) -> bool:
        """A backbone that the stages build as mmpretrain's ``VisionTransformer`` or a class derived from it."""
        return self.kind in ('VisionTransformer', 'CAEPretrainViT', 'PostNormViT')

    @property
    def is_conv(self) -> bool:
        return self.kind in ('ConvNeXt', 'ResNet')

    @property
    def detection_patch(self) -> int:
        """ViTDet-H resamples the patches of 14 px to 16, for maps of strides that are powers of two."""
        return 16 if self.patch_size == 14 and self.recipe()[0] == 'vith' else self.patch_size

    def recipe(self) -> tuple[str, str, str]:
        return SIZES.get(self.arch if isinstance(self.arch, str) else 'base', SIZES['base'])

    def recipes(self) -> dict[str, str]:
        """Stage -> recipe under ``configs/``; without the stages that this kind of encoder has no recipe for."""
        size, linear, finetune = self.recipe()
        large, probe = size == 'vitl', 'linear/vitb_quick_probe'
        detect = 'coco/mask_rcnn_vith_simple_lsj_75e' if size == 'vith' else f'coco/mask_rcnn_{size}_fpn_lsj_100e'
        named = dict(BEiT='beit', CAE='cae', BootMAE='bootmae', data2vec='data2vec')
        tuned = 'data2vec2' if self.kind == 'PostNormViT' else named.get(self.method)
        tuned = (
            f'finetune/vitl_finetune_{tuned}_50e'
            if large and tuned
            else f'finetune/vitb_finetune_{tuned or "simmim"}_100e'
        )
        if self.method == 'IJEPA':  # no class token, and the teacher is what is evaluated
            return dict(linear=f'linear/{size}_ijepa_50e') if size in ('vitb', 'vitl', 'vith') else {}
        if self.kind == 'VisionTransformer':
            return dict(
                quick_probe=probe,
                linear=f'linear/{size}_{linear}',
                finetune=f'finetune/{size}_{finetune}',
                detect=detect,
                **({} if size == 'vith' else dict(segment=f'seg/upernet_{"vitl" if large else "vitb"}_160k')),
            )
        if self.kind == 'PostNormViT':
            return dict(quick_probe=probe, linear=f'linear/{size}_{linear}', finetune=tuned, detect=detect)
        if self.kind == 'CAEPretrainViT':
            linear = f'linear/{"vitl" if large else "vitb"}_cae_linear_90e'
            segment = f'seg/upernet_{"vitl" if large else "vitb"}_160k'
            return dict(quick_probe=probe, linear=linear, finetune=tuned, detect=detect, segment=segment)
        if self.kind == 'BEiTPretrainViT':
            return dict(
                quick_probe=probe, linear='linear/vitb_beit_100e', finetune=tuned, segment='seg/upernet_vitb_160k'
            )
        if self.kind == 'BEiTViT':  # BootMAE, whose linear probe reads an encoder that is cut off
            return dict(quick_probe=probe, finetune=tuned, segment='seg/upernet_vitb_bootmae_160k')
        if self.kind == 'HiViT':
            return dict(quick_probe=probe, detect='coco/mask_rcnn_hivitb_fpn_ms_36e')
        if self.kind == 'SimMIMSwinTransformer':
            return dict(finetune='finetune/swinb_finetune_simmim_100e', detect='coco/mask_rcnn_swinb_fpn_ms_36e')
        if self.kind == 'ConvNeXt':
            return dict(finetune='finetune/convnextt_finetune_300e', detect='coco/mask_rcnn_convnextt_fpn_ms_36e')
        if self.kind == 'ResNet':
            return dict(finetune='finetune/resnet50_finetune_spark_300e')
        return {}

    def size_of(self, stage: str) -> int:
        """Side of the images of a classification stage: the pretraining's, or as SimMIM's Swin 224 after 192."""
        return round(self.img_size * 224 / 192) if self.kind == 'SimMIMSwinTransformer' else self.img_size

    def settings(self, stage: str, channels: int) -> dict[str, Any]:
        """Settings of the stage's backbone on top of its recipe's."""
        if self.is_conv:
            return self._conv_settings(channels)
        arch = self.arch if isinstance(self.arch, str) else dict(self.arch)
        merged = dict(_delete_=True, **arch) if isinstance(arch, dict) else arch
        found: dict[str, Any] = dict(arch=merged)
        if self.kind == 'HiViT':
            shared = {
                k: v for k, v in self.backbone.items() if k in ('inner_patches', 'ape', 'stem_mlp_ratio', 'mlp_ratio')
            }
            found.update(shared, img_size=self.img_size, patch_size=self.patch_size)
            if stage == 'quick_probe':
                found.update(_delete_=True, type='mmpretrain.HiViT', arch=arch, rpe=bool(self.backbone.get('rpe')))
        elif self.kind == 'SimMIMSwinTransformer':
            if stage != 'detect':
                found.update(img_size=self.size_of(stage))
        elif stage == 'detect':
            patch = self.detection_patch
            found.update(patch_size=patch, pretrain_img_size=self.img_size // self.patch_size * patch)
            if self.kind == 'PostNormViT':
                found.update(post_norm=True)
        else:
            found.update(img_size=self.img_size, patch_size=self.patch_size)
            if self.kind == 'PostNormViT':
                found.update(type='mim_mm.PostNormViT')
            if self.kind == 'BEiTPretrainViT' and stage == 'quick_probe':
                positions = dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, final_norm=True)
                found.update(_delete_=True, type='mmpretrain.BEiTViT', arch=arch, **positions)
            elif self.kind == 'BEiTViT' and stage == 'quick_probe':
                known = ('use_abs_pos_emb', 'use_rel_pos_bias', 'use_shared_rel_pos_bias', 'layer_scale_init_value')
                shared = {key: self.backbone[key] for key in known if key in self.backbone}
                found.update(_delete_=True, type='mmpretrain.BEiTViT', arch=arch, final_norm=True, **shared)
        if self.backbone.get('layer_scale_init_value') is not None and self.is_vit:
            found['layer_scale_init_value'] = self.backbone['layer_scale_init_value']
        if channels != 3:
            found['in_chans' if self.kind == 'HiViT' else 'in_channels'] = channels
        return found

    def _conv_settings(self, channels: int) -> dict[str, Any]:
        """The pretrained sizes, without what is of the pretraining; such a backbone does not state its image size."""
        left = ('type', 'out_indices', 'norm_cfg', 'init_cfg', 'drop_path_rate')
        found = {key: value for key, value in self.backbone.items() if key not in left and not key.startswith('_')}
        if isinstance(self.arch, dict):
            found['arch'] = dict(_delete_=True, **self.arch)
        return found if channels == 3 else dict(found, in_channels=channels)


@lru_cache(maxsize=32)
def recipe_config(path: str) -> Config:
    """A recipe, laid out once; to be read only."""
    return Config.fromfile(path)


def read_method(path: str, image_size: int | None = None, small: bool = False) -> tuple[str, Config, Encoder]:
    """A pretraining config: its absolute path, its content, its encoder.

    Args:
        image_size: in place of the method's, in pixels.
        small: half of the method's.

    Raises:
        ChainError: it is no config of a pretraining method, or cannot work on images of that size.
    """
    file = find_file(path, '--method')
    try:
        cfg = Config.fromfile(str(file))
        backbone = cfg.model.backbone
        loader = cfg.train_dataloader.dataset.pipeline[0].type
    except Exception as error:  # a config is a program: anything can come out of it
        raise ChainError(f'--method {path} is no pretraining config: {type(error).__name__}: {error}') from error
    if not str(loader).endswith('LoadImageFromFile') and not str(loader).endswith('LoadAnyImage'):
        raise ChainError(f'--method {path}: its pipeline begins with {loader}; it must begin with LoadImageFromFile')
    kind, arch = str(backbone.type).split('.')[-1], backbone.get('arch')
    arch = SHORT.get(arch, arch) if isinstance(arch, str) or arch is None else arch.to_dict()
    width, depth, patch = _sizes(backbone.to_dict(), path)
    norm = cfg.model.get('data_preprocessor') or {}
    mean, std = (list(norm[key]) if norm.get(key) else None for key in ('mean', 'std'))
    encoder = Encoder(
        kind, arch, width, depth, image_size_of(cfg), patch, mean, std,
        method=str(cfg.model.type).split('.')[-1], backbone=backbone.to_dict(),
    )  # fmt: skip
    if image_size or small:
        encoder = _resized(encoder, cfg, image_size, path)
    return str(file), cfg, encoder


def where_size_is(cfg: Config):
    """The part of a pretraining's model that states its image size: MAE itself for a backbone that takes any."""
    return cfg.model if 'img_size' in cfg.model else cfg.model.backbone


def image_size_of(cfg: Config) -> int:
    return where_size_is(cfg).get('img_size', 224)


def _sizes(backbone: dict[str, Any], path: str) -> tuple[int, int, int]:
    """Width of the last tokens, number of blocks of that width (0 where the kind of backbone is not known), and the
    side of a patch in pixels: a convolutional encoder's stride."""
    from mim_mm.encoders import FAMILIES, class_of, encoder_of, sketch

    patch = backbone.get('patch_size', 16)
    if class_of(backbone) not in FAMILIES:
        return 0, 0, patch
    try:
        known = encoder_of(sketch(backbone))
    except Exception as error:  # an architecture that mmpretrain does not have, an option that it does not know
        raise ChainError(f'--method {path}: its backbone cannot be built: {type(error).__name__}: {error}') from error
    return known.width, known.depth, getattr(known, 'stride', patch)


def _resized(encoder: Encoder, cfg: Config, size: int | None, path: str) -> Encoder:
    """The encoder of images of another size; ``cfg`` is made to fit in place."""
    unit = cfg.model.get('mask_unit') or encoder.patch_size
    before = encoder.img_size
    size = size or max(1, round(before / SMALL / unit)) * unit
    if size < 2 * unit or size % unit:
        raise ChainError(
            f'--image-size {size}: {path} hides squares of {unit} px, so it must be a multiple of {unit}, '
            f'at least {2 * unit}'
        )
    where_size_is(cfg).img_size = size
    for hook in cfg.get('custom_hooks') or ():
        if str(hook.get('type')).split('.')[-1] == 'ProgressiveResolutionHook':
            patch = encoder.patch_size
            hook['stages'] = [
                (share, max(1, round(side * size / before / patch)) * patch) for share, side in hook.get('stages') or ()
            ]
    return dataclasses.replace(encoder, img_size=size, shrink=size / before)
