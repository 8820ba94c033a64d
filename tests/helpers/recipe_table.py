"""Every recipe of configs/, its model at a reduced width or as it is, a synthetic batch, and two steps of training.

What a recipe needs is derived from the recipe, so a new file is covered without an entry here; a backbone of an unknown
kind stops with the place where it has to be added.
"""

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path

import built_recipes
import torch
from built_recipes import CONFIGS, meta
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from mim_mm.registry import MODELS

FOLDERS = ('linear', 'finetune', 'coco', *(['seg'] if find_spec('mmseg') else []))  # mmseg is an extra
GB = 2**30
NARROW = 32
# Width of the pyramid's stages; what else a family calls its sizes is derived.
STAGED = {'SwinTransformer': ('embed_dims', 8), 'ConvNeXt': ('channels', 8), 'HiViTMaps': ('embed_dims', 8)}
PLAIN = {'VisionTransformer', 'BEiTViT', 'WindowedViT', 'MoCoV3ViT', 'NormedMaps', 'PostNormViT'}
WIDTHS = {'in_channels', 'input_features', 'in_features', 'embed_dims', 'embed_dim', 'channels'}


def downstream() -> list[str]:
    """``folder/name`` of all recipes in configs/{linear,finetune,coco}."""
    return [f'{f}/{p.stem}' for f in FOLDERS for p in sorted((CONFIGS / f).glob('*.py'))]


def every_recipe() -> list[str]:
    """The same for all of configs/ but building blocks, chains and mmpretrain's own methods."""
    files = sorted(CONFIGS.glob('*/*.py'))
    return [f'{p.parent.name}/{p.stem}' for p in files if p.parent.name not in ('_base_', 'chains', 'upstream')]


def load(name: str) -> Config:
    return built_recipes.load(f'{name}.py')


def kind_of(backbone: dict) -> str:
    return backbone['type'].split('.')[-1]


def is_detector(cfg: Config) -> bool:
    return 'roi_head' in cfg.model


def is_segmentor(cfg: Config) -> bool:
    return 'decode_head' in cfg.model


def full_arch(backbone: dict) -> dict:
    """The architecture as a dict, from the class's zoo where the recipe gives a name."""
    arch, kind = backbone.get('arch', 'base'), backbone['type']
    if not isinstance(arch, str):
        return dict(arch)
    if kind_of(backbone) == 'ResNet':  # which has a depth in the place of an architecture
        blocks = MODELS.get('mmpretrain.ResNet').arch_settings[backbone['depth']][1]
        return dict(depths=blocks, channels=[4 * backbone.get('base_channels', 64) * 2**i for i in range(4)])
    known = MODELS.get(kind if '.' in kind else f'mmpretrain.{kind}')
    zoo = getattr(known, 'arch_zoo', None) or known.arch_settings  # ConvNeXt's name for it
    return dict(zoo[arch.lower()])


def narrow(cfg: Config) -> Config:
    """The recipe with all of its blocks, each a few channels wide, and detectors on small images."""
    backbone = cfg.model.backbone
    kind, arch = kind_of(backbone), full_arch(backbone)
    if kind == 'ResNet':
        factor, arch = 8, None
        backbone.update(stem_channels=64 // factor, base_channels=64 // factor)
    elif kind in PLAIN:
        factor = arch['embed_dims'] // NARROW
        arch |= dict(embed_dims=NARROW, num_heads=2, feedforward_channels=2 * NARROW)
    elif kind in STAGED:
        key, factor = STAGED[kind]
        width = arch[key]
        arch[key] = [w // factor for w in width] if isinstance(width, list | tuple) else width // factor
        if kind == 'SwinTransformer':
            arch['num_heads'] = [1, 2, 4, 4]
        elif kind == 'HiViTMaps':
            arch['num_heads'] = 2
    else:
        raise KeyError(
            f'{kind} is a backbone that tests/helpers/recipe_table.py does not know: add it to PLAIN or STAGED'
        )
    if arch is not None:
        backbone.arch = arch
    backbone.pop('_scope_', None)
    above = [cfg.model.get('neck')]
    if not is_detector(cfg):
        above += [cfg.model.get(k) for k in ('head', 'decode_head', 'auxiliary_head')]
    for part in above:
        _divide(part, factor, heads=not is_detector(cfg))
    if is_segmentor(cfg):
        backbone.img_size = 64
        cfg.model.data_preprocessor.update(size=(64, 64), test_cfg=dict(size=(64, 64)))
        cfg.model.test_cfg.update(crop_size=(64, 64), stride=(42, 42))
    if is_detector(cfg):
        _narrow_heads(cfg.model)
        if cfg.model.data_preprocessor.get('pad_size_divisor', 32) > 128:
            cfg.model.data_preprocessor.pad_size_divisor = 128
        if 'img_size' in backbone:
            backbone.img_size = tuple(small_image(cfg))
    return cfg


def _divide(part, factor: int, heads: bool) -> None:
    """Divide every width of a config by ``factor``, in place; attention above the backbone gets two heads."""
    if isinstance(part, list | tuple):
        for item in part:
            _divide(item, factor, heads)
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        if key in WIDTHS and isinstance(value, int) and value % factor == 0:
            part[key] = value // factor
        elif key in WIDTHS and isinstance(value, list | tuple):
            part[key] = [v // factor for v in value]
        elif key == 'num_heads' and heads:
            part[key] = 2
        elif key not in ('loss', 'init_cfg', 'fpn'):
            _divide(value, factor, heads)


def _narrow_heads(model: dict) -> None:
    """Pyramid and heads of Mask R-CNN with 16 channels, and few proposals."""
    few = 16
    neck = model.neck.get('fpn') or model.neck
    neck.out_channels = few
    model.rpn_head.update(in_channels=few, feat_channels=few)
    roi = model.roi_head
    roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = few
    roi.bbox_head.update(in_channels=few, fc_out_channels=64)
    if 'Conv' in roi.bbox_head.type:
        roi.bbox_head.conv_out_channels = few
    roi.mask_head.update(in_channels=few, conv_out_channels=few)
    model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    model.train_cfg.rcnn.sampler.num = 32


def small_image(cfg: Config) -> tuple[int, int]:
    return (128, 128) if cfg.model.data_preprocessor.get('pad_size_divisor', 32) >= 128 else (96, 128)


def real_image(cfg: Config) -> tuple[int, int]:
    """(H, W) that the recipe trains on; several scales: the largest."""
    if is_detector(cfg):
        divisor = cfg.model.data_preprocessor.get('pad_size_divisor', 32)
        return (divisor, divisor) if divisor > 32 else (800, 1344) if 'demo' not in cfg.filename else (128, 128)
    size = cfg.model.backbone.get('img_size', 224)
    return (size, size) if isinstance(size, int) else tuple(size)


def build(cfg: Config) -> torch.nn.Module:
    """As mmengine's Runner on one process without a GPU."""
    init_default_scope(cfg.default_scope)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')  # init_weights writes a line about every tensor
    try:
        model = MODELS.build(cfg.model)
        model.init_weights()
    finally:
        logger.setLevel(level)
    return revert_sync_batchnorm(model).train()


def batch_for(cfg: Config, size: tuple[int, int], count: int) -> dict:
    """``count`` random images with labels, boxes or second views, as the recipe's loader gives them."""
    rng = torch.Generator().manual_seed(0)
    height, width = size
    images = [torch.randint(0, 256, (3, height, width), generator=rng, dtype=torch.uint8) for _ in range(count)]
    if is_detector(cfg):
        return dict(inputs=images, data_samples=[_annotated(height, width) for _ in images])
    if is_segmentor(cfg):
        return dict(inputs=images, data_samples=[_labelled(height, width) for _ in images])
    if 'tokenizer' in cfg.model:
        second = [torch.randint(0, 256, (3, height // 2, width // 2), generator=rng, dtype=torch.uint8) for _ in images]
        return dict(inputs=[torch.stack(images), torch.stack(second)], data_samples=None)
    if 'masker' in cfg.model:
        return dict(inputs=torch.stack(images))
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(i % 3) for i in range(count)])


def _labelled(height: int, width: int):
    """An image whose left third is of one class, whose right half of another, and the rest not labelled."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.full((1, height, width), 255)
    labels[..., : width // 3], labels[..., width // 2 :] = 0, 1
    sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


def _annotated(height: int, width: int):
    """An image of which the left and the lower right half are objects, as mmdet's DetDataSample."""
    # mmdet looks for compiled operators when it is imported: mim_mm, which provides them, has to come first
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    boxes = torch.tensor([[2.0, 2.0, width / 2, height - 2.0], [width / 3, height / 3, width - 2.0, height - 2.0]])
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    for mask, box in zip(masks, boxes.int().tolist()):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1]), masks=BitmapMasks(masks.numpy(), height, width)
    )
    return sample


def two_steps(cfg: Config, model: torch.nn.Module, batch: dict) -> tuple[list[float], set[str]]:
    """Train two iterations with the recipe's own optimizer; the losses, and the parameters that changed."""
    if not torch.cuda.is_available():
        cfg.optim_wrapper.optimizer.pop('fused', None)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrapper.initialize_count_status(model, 0, 2)
    # one value of each tensor is enough to see it move, and leaves room for ViT-H
    before = {n: p.detach().flatten()[:64].clone() for n, p in model.named_parameters()}
    losses = [float(model.train_step(batch, wrapper)['loss']) for _ in range(2)]
    after = dict(model.named_parameters())
    return losses, {n for n, value in before.items() if not torch.equal(after[n].detach().flatten()[:64], value)}


# ---------------------------------------------------------------- what a real size needs


def available_bytes() -> int:
    """Memory that this process may still take: the machine's, or what its control group leaves."""
    values = [os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
    with contextlib.suppress(OSError, ValueError):
        lines = Path('/proc/meminfo').read_text().splitlines()
        values = [1024 * int(line.split()[1]) for line in lines if line.startswith('MemAvailable')] or values
    with contextlib.suppress(OSError, ValueError):
        group = Path('/sys/fs/cgroup')
        values.append(int((group / 'memory.max').read_text()) - int((group / 'memory.current').read_text()))
    return min(values)


def token_channels(cfg: Config, size: tuple[int, int]) -> float:
    """Sum over the blocks of tokens x width, for one image."""
    backbone = cfg.model.backbone
    arch, pixels = full_arch(backbone), size[0] * size[1]
    depths = arch.get('depths')
    if depths is None:
        return arch['num_layers'] * pixels / backbone.get('patch_size', 16) ** 2 * arch['embed_dims']
    widths = arch.get('channels') or [arch['embed_dims'] * 2**i for i in range(len(depths))]
    return sum(d * w * pixels / 16 / 4**i for i, (d, w) in enumerate(zip(depths, widths)))


def needed_bytes(cfg: Config, size: tuple[int, int], count: int) -> int:
    """Rough, from above: weights, gradients and two moments; 120 bytes a token and channel; a detector's head.

    A shared bias of relative positions is heads x N x N values in fp32, about three times for each global block.
    """
    with contextlib.ExitStack() as stack:
        heads = full_arch(cfg.model.backbone).get('num_heads', 12)
        if kind_of(cfg.model.backbone) in PLAIN:  # others read values while they are built
            stack.enter_context(meta())
        init_default_scope(cfg.default_scope)
        # a tokenizer wants its weights at once: count the encoder, CAE's copy of it, and DALL-E's 54 M
        parts = cfg.copy().model
        model = MODELS.build(parts.backbone if 'tokenizer' in parts else parts)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if 'tokenizer' in cfg.model:
        total, trained = 2 * total + 54_000_000, 1.3 * trained
    need = 4 * total + 12 * trained + 120 * count * token_channels(cfg, size)
    if is_detector(cfg):
        need += 3 * GB * count * size[0] * size[1] / 1024**2
        if cfg.model.backbone.get('rel_pos') == 'shared_bias':
            need += 12 * 4 * heads * (size[0] * size[1] / 256) ** 2
    return int(need + 1.5 * GB)  # the interpreter, torch and the ecosystem
