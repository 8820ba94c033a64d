"""The card beside exported weights: what they are, what made them, what they scored, and what their images must be.

Everything in it is read from the checkpoint, its config and ``run.json`` files; what none of them says is written as
not known, never filled in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim_mm import files
from mim_mm.checkpoint.read import LoadError
from mim_mm.config_parts import type_name
from mim_mm.recipe_facts import pretraining
from mim_mm.version import __version__
from mim_mm.weights.own import Own

UNKNOWN = 'not known: the checkpoint does not say it'


@dataclass(frozen=True)
class Card:
    """What the card is made from; see :func:`mim_mm.weights.exporting.export`."""

    own: Own
    target: str
    part: str
    opened_by: str
    difference: float | None
    why_not: str
    licence: str | None
    runs: tuple[str | Path, ...]

    @staticmethod
    def pixels_of(own: Own) -> tuple | None:
        """(mean, std) of the images in 0..255, RGB; None where nothing says them."""
        if own.about.get('pixels'):
            return tuple(own.about['pixels'])
        model = own.training.get('model') or {}
        settings = model.get('data_preprocessor') or own.training.get('data_preprocessor') or {}
        if not settings.get('mean') or not settings.get('std'):
            return None
        # Files are read as BGR; the last step of the pipeline turns them, or the preprocessor does.
        loader = own.training.get('train_dataloader') or {}
        last = ((loader.get('dataset') or {}).get('pipeline') or [{}])[-1]
        packed = str(last.get('type', '')).endswith('PackImage') and last.get('to_rgb', True)
        swapped = any(settings.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
        order = -1 if last and bool(packed) == swapped else 1
        return tuple(tuple(float(x) for x in settings[key][::order]) for key in ('mean', 'std'))


def write_card(path: Path, card: Card) -> None:
    """Write the card as Markdown with the front matter that model hubs read.

    Raises:
        LoadError: a work dir of ``runs`` has no ``run.json`` that can be read.
    """
    own, licence = card.own, card.licence or card.own.about.get('licence')
    library = {'hf': 'transformers', 'timm': 'timm'}.get(card.target, 'mim_mm')
    head = ['---', f'library_name: {library}', 'tags: [image-feature-extraction, masked-image-modeling]']
    head += [f'license: {licence.lower()}'] if licence and re.fullmatch(r'[\w.-]+', licence) else []
    rows = [
        ('file', f'{own.path.name}, {card.part}, exported by mim_mm {__version__} to {card.target}'),
        ('encoder', _encoder(own)),
        *_training(own),
        ('licence', licence or 'not stated: whoever publishes these weights has to say it'),
        *_images(own),
        ('compared', _compared(card)),
    ]
    table = ['| | |', '|---|---|', *(f'| {name} | {_cell(text)} |' for name, text in rows)]
    code = ['```python', card.opened_by, '```']
    text = [*head, '---', '', f'# {_title(own)}', '', *table, '', '## Open', '', *code, *_results(card), '']
    files.write_text(path, '\n'.join(text))


def _cell(text: str) -> str:
    return text.replace('|', r'\|').replace('\n', ' ')


def _title(own: Own) -> str:
    arch = own.config.get('arch', 'base')
    if isinstance(arch, Mapping):
        depth = arch.get('num_layers') or '-'.join(map(str, arch['depths']))
        arch = f'width {arch["embed_dims"]}, depth {depth}'
    return f'{_method(own)}: {type_name(own.config)}, {arch}'


def _method(own: Own) -> str:
    if own.about.get('origin') and not own.training:
        return own.about['origin']
    return pretraining(own.training).get('method') or 'an encoder'


def _encoder(own: Own) -> str:
    facts = ', '.join(f'{key}={value}' for key, value in own.config.items() if key != 'type')
    return f'`{own.config["type"]}`: {facts}'


def _training(own: Own) -> list[tuple[str, str]]:
    """Rows on method, mask, data, duration and config."""
    source = own.about.get('source') or {}
    imported = [('imported from', f'{own.about.get("origin")}: {source.get("file")}, sha256 {source.get("sha256")}')]
    imported = imported if source else []
    if not own.training:
        return [*imported, *((name, UNKNOWN) for name in ('data', 'epochs', 'config'))]
    facts = pretraining(own.training)
    run = _run_of(own.path.parent) or {}
    loader = own.training.get('train_dataloader') or {}
    dataset = loader.get('dataset') or {}
    root = str(dataset.get('data_root') or '').rstrip('/').rpartition('/')[2]  # no path of the machine it ran on
    counted = [f'{name}: {told.get("files")} files, sha256 {told.get("sha256")}' for name, told in
               (run.get('data') or {}).items() if isinstance(told, Mapping) and 'sha256' in told]  # fmt: skip
    started = own.training.get('load_from') if not own.training.get('resume') else None
    rows = [
        (
            'method',
            f'{facts["method"] or UNKNOWN}' + (f', mask {facts["mask_variant"]}' if facts['mask_variant'] else ''),
        ),
        ('unlike the published method', '; '.join(facts['changes']) or 'nothing that the config states'),
        ('data', '; '.join([f'{type_name(dataset) or UNKNOWN}{f" {root}" if root else ""}', *counted])),
        ('training images', ', '.join(_transform(step) for step in dataset.get('pipeline') or ()) or UNKNOWN),
        ('epochs', _duration(own, facts)),
        ('config', f'sha256 {_digest(own, run)}'),
    ]
    if started:
        rows.insert(1, ('went on from', Path(str(started)).name))
    return [*imported, *rows]


def _transform(step: Any) -> str:
    if not isinstance(step, Mapping):
        return str(step)
    options = ', '.join(
        f'{k}={v}' for k, v in step.items() if k != 'type' and isinstance(v, (int, float, str, list, tuple))
    )
    return f'{type_name(step)}({options})'


def _duration(own: Own, facts: Mapping[str, Any]) -> str:
    done = {key: own.meta[key] for key in ('epoch', 'iter') if isinstance(own.meta.get(key), int)}
    planned = f'{facts["epochs"]} epochs' if facts['epochs'] else f'{facts["iters"]} iterations'
    if not done:
        return f'{UNKNOWN}; planned: {planned}'
    return f'{done.get("epoch", "?")} (iteration {done.get("iter", "?")}) of {planned}'


def _digest(own: Own, run: Mapping[str, Any]) -> str:
    stated = (run.get('config') or {}).get('sha256')
    return (
        f'{stated} of what is learned'
        if stated
        else f'{hashlib.sha256(own.config_text.encode()).hexdigest()} of its text'
    )


def _images(own: Own) -> list[tuple[str, str]]:
    pixels = Card.pixels_of(own)
    size = own.config.get('img_size', 224)
    text = f'{own.config.get("in_channels", 3)} channels, {size} px' + (
        ' (height, width)' if not isinstance(size, int) else ''
    )
    if pixels:
        text += f'; RGB in 0..255, minus {list(pixels[0])}, over {list(pixels[1])}'
    return [('images', text if pixels else f'{text}; mean and std are {UNKNOWN}')]


def _compared(card: Card) -> str:
    if card.difference is None:
        return f'not: {card.why_not}'
    return f'features of two random images, before and after, differ by {card.difference:.1e} of the largest at most'


def _run_of(folder: Path) -> dict[str, Any] | None:
    try:
        content = files.read_json(folder / 'run.json', 'take another work dir')
    except (FileNotFoundError, files.DamagedFile):
        return None
    return content if isinstance(content, dict) else None


def _results(card: Card) -> list[str]:
    """A table of what was measured, from ``run.json`` files; work dirs hold one each, or folders of stages."""
    rows = []
    for place in (card.own.path.parent, *card.runs):
        folders = [Path(place), *sorted(p for p in Path(place).glob('*') if (p / 'run.json').is_file())]
        found = (
            [run for folder in folders if (run := _run_of(folder))] if place in card.runs else [_run_of(Path(place))]
        )
        if place in card.runs and not found:
            raise LoadError(f'{place} holds no run.json that can be read: give the work dir of a stage, or of a chain.')
        for run in filter(None, found):
            rows += [
                f'| {run.get("stage")} | {run.get("arm")} | {run.get("seed")} | {name} | {value} |'
                for name, value in (run.get('metrics') or {}).items()
            ]
    if not rows:
        return ['', '## Results', '', 'None were given to this card.']
    return ['', '## Results', '', '| stage | arm | seed | metric | value |', '|---|---|---|---|---|', *rows]
