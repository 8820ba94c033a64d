"""One statement of what is black and white in a data set, at the top of a config, for every loader in it."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

from mim_mm.config_parts import steps_in, type_name
from mim_mm.engine.start import guard

LOADERS = ('LoadImageFromFile', 'LoadAnyImage', 'LazyLoadImageFromFile')


def fill_value_range(cfg: Config) -> str:
    """Give ``value_range`` of the config to every step that loads images and has none of its own, in place.

    ``value_range`` is (low, high), or ``dict(integer=(low, high), float=(low, high))``; see
    :mod:`mim_mm.data.pixel_values`. mmcv's loader becomes ours, which knows the argument.

    Returns:
        A line that says what was stated.
    """
    stated = cfg.value_range
    for _, dataset in guard.iter_datasets(cfg):
        for step in steps_in(dataset.get('pipeline')):
            name = type_name(step)
            if name in LOADERS and step.get('value_range') is None:
                step['type'], step['value_range'] = f'mim_mm.{name}', stated
    shown = dict(stated) if isinstance(stated, Mapping) else tuple(stated)
    return f'value range: {shown} of files of more than 8 bits becomes 0..255'
