"""FLOPs, parameters and activations of one image of any recipe, counted: its model is built and its step is run.

Both on tensors without data, see ``ledger.py``. The image goes through the recipe's own pipeline, preprocessor and
``loss``; masks are drawn by its own masker. Only a detector's step depends on what is in the image, so its parts run
one by one, on as many regions as the sampler may draw. A new method, masker or backbone needs nothing here.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mim_mm.cost.inputs import first_view, read_batch
from mim_mm.cost.progressive import mean_work, spans_of
from mim_mm.cost.recipe import backbone_size, bare, detector_size, has_autocast, pair, pipeline_of
from mim_mm.cost.work import ModuleCost, Work

if TYPE_CHECKING:
    from torch import nn

    from mim_mm.cost.ledger import Ledger

# Images that are counted at once: BatchNorm wants two.
BATCH = 2
_known: dict[str, Work] = {}


def work_of(cfg: Mapping, size: int | tuple[int, int] | None = None) -> Work:
    """What one training image of a recipe costs, with ``ProgressiveResolutionHook`` in the mean over its epochs.

    Args:
        cfg: a resolved training config as a plain dict.
        size: side of the input or (height, width), in place of what the config implies.

    Raises:
        ValueError: as :func:`count`.
    """
    stages = [] if size else spans_of(cfg)
    if not stages:
        return count(cfg, size and pair(size))
    works = [count(cfg, span.size) for span in stages]
    return mean_work(stages, works) if works[-1].kind == 'pretrain' else count(cfg)


def count(cfg: Mapping, size: tuple[int, int] | None = None) -> Work:
    """What one training image of a recipe costs at one size.

    The same model is counted once in a process.

    Args:
        cfg: a resolved training config as a plain dict.
        size: height and width of the input, in place of what the config implies.

    Raises:
        ValueError: the model cannot be built, or its step cannot be run without data; the message says why.
    """
    asked = (
        cfg['model'],
        cfg.get('data_preprocessor'),
        pipeline_of(cfg),
        has_autocast(cfg),
        cfg.get('default_scope'),
        size,
    )
    key = json.dumps(asked, sort_keys=True, default=repr)
    if key not in _known:
        try:
            _known[key] = _count(cfg, size)
        except Exception as error:
            raise ValueError(
                f'model {bare(cfg["model"]["type"])} has no cost that can be counted: {type(error).__name__}: {error}'
            ) from error
    return _known[key]


def _count(cfg: Mapping, size: tuple[int, int] | None) -> Work:
    import torch
    from mmpretrain.structures import DataSample

    from mim_mm.cost.ledger import Ledger
    from mim_mm.masking.base import fixed_count

    ledger = Ledger()
    with _quiet(), _scope(cfg), torch.random.fork_rng(devices=[]):
        model = build(cfg, ledger, size)
        half = has_autocast(cfg) or bool(getattr(model, 'autocast', False))
        drawn = _draw_masks(model)
        if is_detector(model):
            size = size or detector_size(cfg)
            rois, run = _detector_step(model, size)
            notes = (f'{rois} RoIs an image; RoIAlign, NMS, assignment and losses are not counted',) if rois else ()
        elif is_segmentor(model):
            size = size or backbone_size(cfg, 512)
            run, notes = (
                _segmentor_step(model, size),
                ('enlarging the scores to the image, and the loss, are not counted',),
            )
        else:
            batch, notes = read_batch(cfg, size, BATCH)
            size = first_view(batch['inputs']).shape[-2:]
            if kind_of(model) != 'pretrain':
                batch.setdefault('data_samples', [DataSample().set_gt_label(0) for _ in range(BATCH)])
            run = _step(model, batch)
            if drawn is not None and not fixed_count(drawn):
                notes += ('how many patches are hidden depends on the images or on chance: it counts by the middle',)
        with ledger.watching(model), torch.autocast('cpu', torch.bfloat16, enabled=has_autocast(cfg)):
            loss = run()
            with torch.autocast('cpu', enabled=False):
                ledger.go_back(loss)
    kind = kind_of(model)
    name = _describe(model, kind, tuple(size), drawn)
    return Work(name, _parts(ledger, model), tuple(size), kind, half, ledger.derived, notes)


@contextmanager
def _quiet():
    """What models say while they are made is for whoever trains them, and must not stand among JSON."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


@contextmanager
def _scope(cfg: Mapping):
    """Names without a scope are those of the config's."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        yield


def build(cfg: Mapping, ledger: Ledger, size: tuple[int, int] | None = None) -> nn.Module:
    """The model of a config without data, in training mode, for images of ``size`` if one is given."""
    from mmengine.config import ConfigDict

    from mim_mm.registry import MODELS

    settings = ConfigDict(copy.deepcopy(dict(cfg['model'])))
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', copy.deepcopy(dict(cfg['data_preprocessor'])))
    if size and 'img_size' in (settings.get('backbone') or {}):
        settings['backbone']['img_size'] = size[0] if size[0] == size[1] else size
    with ledger.building():
        model = MODELS.build(settings)
        model.train()
    if getattr(model, 'autocast', None) == 'auto':
        model.autocast = True  # as on a GPU
    return model


def width_of(backbone: Mapping) -> int:
    """Channels at the end of a backbone of mmpretrain."""
    from mim_mm.cost.ledger import Ledger
    from mim_mm.registry import MODELS

    with Ledger().building():
        return MODELS.build(copy.deepcopy(dict(backbone))).embed_dims


# ---- the step


def _step(model: nn.Module, batch: dict) -> Callable[[], Any]:
    """A training step of mmengine's as a function that returns the loss."""

    def run():
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        return model.parse_losses(losses)[0]

    return run


def is_detector(model: nn.Module) -> bool:
    return hasattr(model, 'extract_feat') and (hasattr(model, 'rpn_head') or hasattr(model, 'bbox_head'))


def _detector_step(model: nn.Module, size: tuple[int, int]) -> tuple[int, Callable[[], Any]]:
    """The regions of an image, and the parts of a detector one after the other as a function that returns a loss.

    Backbone, pyramid and the dense head run on whole images; the heads of regions on as many as the sampler may draw,
    that of masks on as many of them as may be positive.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    roi = getattr(model, 'roi_head', None)
    sampler = model.train_cfg['rcnn']['sampler'] if roi is not None else {}
    drawn, positive = sampler.get('num', 0), int(sampler.get('num', 0) * sampler.get('pos_fraction', 0.25))

    def on_regions(heads, extractors, count: int) -> list:
        many = isinstance(heads, torch.nn.ModuleList)
        pairs = zip(heads, extractors) if many else [(heads, extractors)]
        return [
            head(torch.empty(BATCH * count, extractor.out_channels, *_side(extractor), requires_grad=True))
            for head, extractor in pairs
        ]

    def run():
        maps = model.extract_feat(torch.empty(BATCH, 3, *size))
        out = [getattr(model, name)(maps) for name in ('rpn_head', 'bbox_head') if hasattr(model, name)]
        if roi is not None:
            out += on_regions(roi.bbox_head, roi.bbox_roi_extractor, drawn)
            if roi.with_mask:
                out += on_regions(roi.mask_head, roi.mask_roi_extractor or roi.bbox_roi_extractor, positive)
        return sum(leaf.float().sum() for leaf in tree_leaves(out) if torch.is_tensor(leaf))

    return drawn, run


def is_segmentor(model: nn.Module) -> bool:
    return hasattr(model, 'extract_feat') and hasattr(model, 'decode_head')


def _segmentor_step(model: nn.Module, size: tuple[int, int]) -> Callable[[], Any]:
    """Encoder, neck and the heads of a segmentation model as a function that returns a loss."""
    import torch

    def run():
        maps = model.extract_feat(torch.empty(BATCH, 3, *size))
        return sum(head(maps).float().sum() for head in model.heads().values())

    return run


def _side(extractor: nn.Module) -> tuple[int, int]:
    return pair(extractor.roi_layers[0].output_size)


class DrawnMasks:
    """In place of a model's masker: the same, but its plans have values, and sizes that are the mean.

    The masker draws for real tokens of noise beside the tensors without data. Where the number of hidden patches
    follows the image or a range, every image gets the number in the middle.

    Attributes:
        counts: (visible, hidden, thrown) patches of each part of an image, once a plan was drawn.
    """

    def __init__(self, masker: Any) -> None:
        self._masker, self.counts = masker, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._masker, name)

    def __call__(self, tokens, generator=None, **given):
        import torch
        from torch.utils._python_dispatch import _disable_current_modes

        from mim_mm.masking import MaskPlan
        from mim_mm.masking.base import counts

        with _disable_current_modes():
            noise = torch.rand(*tokens.shape[:2], 8)
            plan = self._masker(noise, **{name: torch.rand(value.shape) for name, value in given.items()})
            self.counts = counts(self._masker, noise.shape[1])
            lengths = torch.tensor([part.visible for part in self.counts]).expand(len(noise), -1)
            if not torch.equal(lengths, plan.lengths):
                kept = dict(num_thrown=self.counts[0].thrown, same_visible=plan.same_visible)
                plan = replace(MaskPlan.from_lengths(plan.order[:, : len(self.counts)], lengths), **kept)
        return plan


def _draw_masks(model: nn.Module) -> DrawnMasks | None:
    """Put :class:`DrawnMasks` into a model that has a masker."""
    masker = getattr(model, 'masker', None)
    if masker is None:
        return None
    from mim_mm.clock import Clock
    from mim_mm.masking.base import set_clock

    set_clock(masker, Clock.at_epoch(10**6))  # after any warm-up
    del model.masker
    model.masker = DrawnMasks(masker)
    return model.masker


# ---- the result


def kind_of(model: nn.Module) -> str:
    """pretrain, linear, probe, finetune, coco, seg or seg_linear."""
    if is_detector(model):
        return 'coco'
    if is_segmentor(model):
        return 'seg' if any(p.requires_grad for p in model.backbone.parameters()) else 'seg_linear'
    head = getattr(model, 'head', None)
    if hasattr(model, 'masker') or not hasattr(model, 'predict') or head is None:
        return 'pretrain'
    if hasattr(head, 'probes'):  # a grid of heads, of which the evaluation chooses one
        return 'probe'
    if hasattr(model, 'tuned_blocks'):  # fine-tuning's recipe, also where it tunes no block
        return 'finetune'
    return 'finetune' if any(p.requires_grad for p in getattr(model, 'backbone', model).parameters()) else 'linear'


def _parts(ledger: Ledger, model: nn.Module) -> tuple[ModuleCost, ...]:
    """The entries of the ledger for one image, with the parameters of the model."""
    from mim_mm.cost.ledger import part_of

    forward, backward = ledger.flops_of_parts()
    params, trainable = Counter(), Counter()
    for name, parameter in model.named_parameters():
        params[part_of(name)] += parameter.numel()
        trainable[part_of(name)] += parameter.numel() * parameter.requires_grad
    found = []
    for key in dict.fromkeys([*forward, *((part, True) for part in params)]):
        part, graded = key
        name = (part or 'input') if graded or (part, True) not in forward else f'{part} without gradient'
        flops, back, saved = forward.get(key, 0.0), backward.get(key, 0.0), ledger.saved[key] / BATCH
        working = 0.0 if back or saved or not part else ledger.working[key] / BATCH
        owner = graded or (part, True) not in forward  # the parameters stand at the pass that trains them
        own = (params.pop(part, 0), trainable.pop(part, 0)) if owner else (0, 0)
        entry = ModuleCost(name, flops / BATCH, back / flops if flops else 0.0, *own, saved, working)
        if entry.forward or entry.params or entry.saved:
            found.append(entry)
    if ledger.repeated:
        found.append(ModuleCost('repeated forward passes', 0.0, 0.0, saved=ledger.repeated / BATCH))
    return tuple(found)


# ---- its name


def _describe(model: nn.Module, kind: str, size: tuple[int, int], drawn: DrawnMasks | None) -> str:
    """What measurements are looked up by."""
    net, sides = outline(getattr(model, 'backbone', model)), f'{size[0]}px'
    if kind == 'coco':
        masks = getattr(getattr(model, 'roi_head', None), 'with_mask', False)
        return f'{"Mask R-CNN" if masks else type(model).__name__} {net} {size[0]}x{size[1]}px'
    if kind != 'pretrain':
        names = dict(linear='linear probe', probe='quick probe', finetune='fine-tune', seg='UperNet')
        return f'{names.get(kind, "linear segmentation")} {net} {sides}{_tuned(model)}'
    words, decoder = [type(model).__name__, net, sides], getattr(model, 'decoder', None)
    if decoder is not None and drawn is not None:
        one = drawn.counts[0]
        words.append(f'K={len(drawn.counts)}' if len(drawn.counts) > 1 else f'hidden={one.hidden}/{sum(one)}')
        words.append(f'decoder {decoder.embed_dims}x{len(decoder.decoder_blocks)}')
    return ' '.join(words)


def _tuned(model: nn.Module) -> str:
    """`` 1 block tuned`` of a partial fine-tuning; nothing where all is trained."""
    from mim_mm.recipe_facts import tuned_words

    words = tuned_words(getattr(model, 'tuned_blocks', None))
    return f' {words}' if words else ''


def outline(backbone: nn.Module) -> str:
    """Width x depth / patch of a backbone, as far as it says so itself; else the name of its class."""
    dims, depths = getattr(backbone, 'embed_dims', None), getattr(backbone, 'depths', None)
    if dims and hasattr(backbone, 'num_main_blocks'):
        return f'HiViT {dims}x{backbone.num_main_blocks}/{backbone.patch_size}'
    if dims and depths:
        return f'Swin {dims}x{"-".join(map(str, depths))}'
    if dims and hasattr(backbone, 'layers') and hasattr(backbone, 'patch_embed'):
        patch = backbone.patch_embed.projection.kernel_size[0]
        windows = f' windows {backbone.window_size}' if isinstance(getattr(backbone, 'window_size', None), int) else ''
        return f'ViT {dims}x{len(backbone.layers)}/{patch}{windows}'
    return type(backbone).__name__
