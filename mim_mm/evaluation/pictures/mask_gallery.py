"""Masks of several maskers on the same images: the arrays behind the gallery, and how much of the objects they hide."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from mim_mm.checkpoint.load import load_encoder
from mim_mm.compat.internals import parse_option
from mim_mm.data.decode import read_image
from mim_mm.encoders import grid_of
from mim_mm.evaluation.pictures.mask_diagnostics import MaskDiagnostics, centre_crop, hidden_foreground, hidden_ratios
from mim_mm.evaluation.pictures.reconstruction import as_tensor, colours, shown_range, shrink
from mim_mm.masking import MaskPlan, salience
from mim_mm.registry import MODELS

__all__ = ['MaskView', 'compare_foreground', 'gallery', 'parse_masker']

# ViT-B/16 at 224 px, as MAE; the decoder is never run.
DEFAULT = dict(
    type='MAE',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224, patch_size=16, out_type='raw'),
    masker=dict(type='RandomMasking'),
    decoder=dict(type='MAEDecoder', embed_dims=16, depth=1, num_heads=1),
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)


def parse_masker(spec: str) -> tuple[str, dict]:
    """``[LABEL=]NAME[:key=value,...]`` as a label and a config; dotted keys nest, brackets protect commas.

    ``'AMR=SalienceMasking:ratio.type=AdaptiveRatio,ratio.base=0.75,ratio.delta_r=0.1,ratio.threshold=0.1'``. Without
    LABEL the label is the text itself.

    Raises:
        ValueError: an option without ``=``.
    """
    head, _, rest = spec.partition(':')
    label, equals, name = head.rpartition('=')
    label = label if equals else spec
    config: dict = dict(type=name)
    depth, word, words = 0, '', []
    for letter in rest:
        depth += (letter in '([') - (letter in ')]')
        if letter == ',' and not depth:
            words.append(word)
            word = ''
        else:
            word += letter
    for option in [*words, word] if rest else []:
        key, equals, value = option.partition('=')
        if not equals or not key:
            raise ValueError(f"masker '{spec}': '{option}' must be key=value, e.g. RandomMasking:ratio=0.6")
        node = config
        *path, last = key.split('.')
        for part in path:
            node = node.setdefault(part, {})
        node[last] = parse_option(value)
    return label, config


@contextmanager
def _without_init_log():
    """mmengine writes three lines a parameter about its initialisation."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


class MaskView:
    """A pretraining model as maskers see it: a patch embedding, a grid, and attention for those that ask for it.

    Args:
        config: pretraining config; None takes MAE's ViT-B/16 at 224 px.
        checkpoint: whose encoder is loaded; None leaves the weights at random, and ``note`` says so.
        seed: of the random weights.

    Attributes:
        note: what the embedding is, for captions.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        cfg = Config(dict(model=DEFAULT)) if config is None else Config.fromfile(str(config))
        init_default_scope(cfg.get('default_scope', 'mim_mm'))
        with torch.random.fork_rng(devices=[]), _without_init_log():
            torch.manual_seed(seed)
            self.model = MODELS.build(cfg.model)
            self.model.init_weights()
        if getattr(self.model, 'encoder', None) is None or not hasattr(self.model, 'masker'):
            raise ValueError(f'{config}: {cfg.model.type} has no masker; give the config of a pretraining')
        self.note = f'random patch embedding (seed {seed}), no checkpoint'
        if checkpoint is not None:
            load_encoder(self.model.backbone, checkpoint, grid=grid_of(self.model.backbone))
            self.note = f'patch embedding of {Path(checkpoint).name}'
        self.model.eval()
        self.value_range = cfg.get('value_range')
        self._attended: tuple[Tensor, Tensor] | None = None  # tokens of the last call that asked, and their attention
        self.rows, self.columns = self.model.grid.height, self.model.grid.width
        self.channels = self.model.grid.in_channels
        self.height, self.width = (side * self.model.grid.patch_size for side in (self.rows, self.columns))

    def read(self, files: Sequence, height: int | None = None, width: int | None = None) -> Tensor:
        """The middle of images in the proportions of the model's, by default in their size: uint8 RGB (B, 3, height,
        width), or the model's channels as the file has them.

        Raises:
            FileNotFoundError, UnreadableImage, ValueRangeError: naming what cannot be read.
        """
        size = (width or self.width, height or self.height)
        images = []
        for file in files:
            image = centre_crop(read_image(file, self.value_range, self.channels), (self.rows, self.columns))
            images.append(as_tensor(shrink(image, size)))
        return torch.stack(images)

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """What a masker of this model gets: tokens (B, N, D) of uint8 images, pooled to mask units where it has any."""
        inputs = self.model.data_preprocessor(dict(inputs=images), False)['inputs']
        tokens = self.model.encoder.embed(inputs)
        return self.model.units_of(*inputs.shape[-2:]).pool(tokens) if hasattr(self.model, 'units_of') else tokens

    @torch.no_grad()
    def plan(self, masker, tokens: Tensor, seed: int) -> MaskPlan:
        """The plan of a masker under a seed; attention is computed if it asks for it."""
        generator = torch.Generator().manual_seed(seed)
        if not getattr(masker, 'needs_attention', False):
            return masker(tokens, generator)
        if getattr(self.model, 'mask_unit', patch := self.model.encoder.grid.patch_size) != patch:
            raise ValueError(
                f'{type(masker).__name__} follows attention between patches of {patch} px, and this model masks units '
                f'of {self.model.mask_unit} px: give the config of a method that hides single patches, such as MAE'
            )
        if self._attended is None or self._attended[0] is not tokens:
            self._attended = tokens, self.model.encoder.cls_attention(tokens)
        return masker(tokens, generator, attention=self._attended[1])


def gallery(view: MaskView, files: Sequence, specs: Sequence[str], seeds: int = 3) -> dict:
    """Arrays for :func:`mim_mm.report.figures_masks.draw_gallery`.

    All images are one batch, which matters only for ratios of scope 'per_batch'.

    Args:
        specs: maskers, see :func:`parse_masker`.
        seeds: how many; 0, 1, ...

    Returns:
        ``note``, ``labels`` and ``rows``, one dict an image: ``name``, ``picture`` (H, W, 3) in 0..1,
        ``salience`` (rows, columns), ``quantiles`` (probability -> S), ``above`` (fraction of S > 0.5), and
        ``masks[masker][seed]``: uint8 (K, rows, columns), 0 visible, 1 hidden, 2 thrown away (AMT: neither), with
        ``ratios[masker][seed]``: hidden share of each part, NaN for a part that this image does not have.
    """
    if not files or not specs or seeds < 1:
        raise ValueError(f'{len(files)} images, {len(specs)} maskers, {seeds} seeds: give one of each at least')
    labels, configs = zip(*map(parse_masker, specs))
    maskers = [MODELS.build(config) for config in configs]
    tokens = view.tokens(view.read(files))
    larger = max(1.0, 224 / min(view.height, view.width))
    raw = view.read(files, round(larger * view.height), round(larger * view.width))
    black, white = shown_range(raw)
    pictures = colours((raw - black) / (white - black)).numpy()
    scores = salience(tokens)
    plans = [[view.plan(masker, tokens, seed) for seed in range(seeds)] for masker in maskers]
    rows = []
    for i, file in enumerate(files):
        spread = MaskDiagnostics().spread(scores[i : i + 1], 0.5)
        rows.append(
            dict(
                name=Path(file).stem,
                picture=pictures[i],
                salience=scores[i].reshape(view.rows, view.columns).numpy(),
                quantiles=spread['salience_quantiles'],
                above=spread['above'],
                masks=[[_states(p, i).reshape(-1, view.rows, view.columns) for p in row] for row in plans],
                ratios=[[hidden_ratios(p)[i].tolist() for p in row] for row in plans],
            )
        )
    return dict(note=view.note, labels=list(labels), rows=rows)


def _states(plan: MaskPlan, image: int) -> np.ndarray:
    """uint8 (K, N) of one image: 0 visible, 1 hidden, 2 thrown away."""
    return (plan.mask[image] + 2 * plan.thrown[image]).to(torch.uint8).numpy()


def compare_foreground(view: MaskView, items: Sequence, specs: Sequence[str], seeds: int = 3) -> list[dict]:
    """How much of the foreground each masker hides, beside how much it hides of everything.

    Args:
        items: ``(path, {'boxes': (N,), 'masks': (N,) or None})`` of
            :func:`mim_mm.evaluation.pictures.mask_diagnostics.coco_foreground` on the grid of ``view``.
        specs: maskers, see :func:`parse_masker`.
        seeds: masks drawn per image and masker; an image counts with the mean of its seeds and parts.

    Returns:
        One dict a masker: ``masker``, ``images``, ``ratio`` (hidden share of all patches), and for boxes and masks
        ``<kind>`` (hidden share of the foreground area), ``<kind>_excess`` (that minus the hidden share of all patches
        of the same image: 0 for a masker blind to objects), ``<kind>_error`` (its standard error over images).
    """
    maskers = {label: MODELS.build(config) for label, config in map(parse_masker, specs)}
    totals = {label: dict(ratio=[], boxes=[], masks=[]) for label in maskers}
    for start in range(0, len(items), 16):
        batch = items[start : start + 16]
        tokens = view.tokens(view.read([path for path, _ in batch]))
        cover = {kind: torch.stack([_or_nan(c[kind], tokens) for _, c in batch]) for kind in ('boxes', 'masks')}
        for label, masker in maskers.items():
            # other noise in each batch: the same masks for every 16th image would add up to a bias
            plans = [view.plan(masker, tokens, seed * len(items) + start) for seed in range(seeds)]
            # over parts and seeds together: (images, seeds * K)
            totals[label]['ratio'].append(torch.cat([hidden_ratios(p) for p in plans], dim=1).nanmean(dim=1))
            for kind, area in cover.items():
                shares = [hidden_foreground(p.mask, area).masked_fill(p.lengths == 0, math.nan) for p in plans]
                totals[label][kind].append(torch.cat(shares, dim=1).nanmean(dim=1))
    return [_row(label, {name: torch.cat(v) for name, v in parts.items()}) for label, parts in totals.items()]


def _or_nan(cover: np.ndarray | None, tokens: Tensor) -> Tensor:
    return torch.full(tokens.shape[1:2], math.nan) if cover is None else torch.from_numpy(cover)


def _row(label: str, values: dict[str, Tensor]) -> dict:
    row = dict(masker=label, images=len(values['ratio']), ratio=float(values['ratio'].mean()))
    for kind in ('boxes', 'masks'):
        excess = values[kind] - values['ratio']
        excess = excess[~excess.isnan()]
        row[kind] = float(values[kind].nanmean())
        row[f'{kind}_excess'] = float(excess.mean()) if len(excess) else math.nan
        row[f'{kind}_error'] = float(excess.std() / math.sqrt(len(excess))) if len(excess) > 1 else math.nan
    return row


def foreground_table(rows: Sequence[dict], note: str) -> str:
    """The rows of :func:`compare_foreground` as a Markdown table, shares in per cent."""
    lines = [
        f'{rows[0]["images"]} images, {note}. Excess: hidden share of the foreground less that of all patches.',
        '',
        '| masker | hidden (%) | of boxes (%) | excess | of object masks (%) | excess |',
        '|---|---|---|---|---|---|',
    ]
    for row in rows:
        cells = [f'`{row["masker"]}`', f'{100 * row["ratio"]:.1f}']
        for kind in ('boxes', 'masks'):
            excess, error = 100 * row[f'{kind}_excess'], 100 * row[f'{kind}_error']
            cells += [f'{100 * row[kind]:.1f}', f'{excess:+.1f} ± {error:.1f}']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)
