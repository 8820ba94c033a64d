"""Measured throughput: JSON files with a list ``measurements``, in docs/results or wherever the user keeps them.

    {"measurements": [{"gpu": "h100", "gpus": 1, "model": "EMAE ViT 768x12/16 224px K=4 decoder 512x8",
                       "images_per_second": 2100, "mfu": 0.49, "source": "tools/..., 2026-12-01, torch 2.9"}]}

``images_per_second`` is that of one GPU; ``gpus`` of how many side by side. An entry counts for a stage of the same
``gpu`` and ``model`` (as the plan prints it) or of the same ``config``. ``mfu`` and the rest are for the reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    gpu: str
    images_per_second: float
    model: str = ''
    config: str = ''
    gpus: int = 1
    source: str = ''


def read_measurements(path: Path) -> list[Measurement]:
    """The entries of a file.

    Raises:
        ValueError: it is no JSON, has no list ``measurements``, or an entry lacks gpu, images_per_second, or both of
            model and config.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} cannot be read as JSON: {error}') from None
    if not isinstance(content, Mapping) or not isinstance(content.get('measurements'), list):
        raise ValueError(f'{path} has no list "measurements": see docs/plan.md')
    return [_entry(item, f'{path}, entry {index}') for index, item in enumerate(content['measurements'])]


def _entry(item: Any, where: str) -> Measurement:
    if not isinstance(item, Mapping) or not item.get('gpu') or not (item.get('model') or item.get('config')):
        raise ValueError(f'{where}: needs "gpu" and "model" or "config", got {item!r}')
    rate = item.get('images_per_second')
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0:
        raise ValueError(f'{where}: images_per_second={rate!r} must be a number above 0 (of one GPU)')
    count = item.get('gpus', 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f'{where}: gpus={count!r} must be a whole number above 0')
    text = {key: str(item.get(key, '')) for key in ('model', 'config', 'source')}
    return Measurement(gpu=str(item['gpu']).lower(), images_per_second=float(rate), gpus=count, **text)


def known_measurements(folder: Path) -> list[Measurement]:
    """Of every JSON file in a folder that has them; other files are other people's."""
    found = []
    for path in sorted(Path(folder).glob('*.json')):
        try:
            found += read_measurements(path)
        except ValueError:
            continue
    return found


def find(measurements: Iterable[Measurement], gpu: str, model: str, config: str, gpus: int) -> Measurement | None:
    """The entry for a stage; with several, that with the nearest number of GPUs, the last among equals."""
    fits = [
        m for m in measurements
        if m.gpu == gpu.lower() and (m.model == model or (m.config and config and Path(config).match(m.config)))
    ]  # fmt: skip
    return min(reversed(fits), key=lambda m: abs(m.gpus - gpus), default=None)
