"""The recipes of configs/, each read once a process, and built once a process where nothing of it is changed.

Full-size models stand on the meta device: shapes without values.
"""

import copy
import functools
import os
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch.overrides import TorchFunctionMode

from mim_mm.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# What a recipe reads from the environment.
VARIABLES = ('IMAGENET_ROOT', 'COCO_ROOT', 'DEMO_ROOT', 'EVIDENCE_ROOT', 'LOWSHOT_LIST')


@functools.cache
def _read(path: Path, *environment: str | None) -> Config:
    return Config.fromfile(path)


def load(name: str | Path) -> Config:
    """A recipe by its path below configs/ (or any path): a copy of its own for each call, to be changed at will."""
    return copy.deepcopy(_read(CONFIGS / name, *map(os.environ.get, VARIABLES)))


def build(cfg, model=None):
    init_default_scope(cfg.default_scope)
    model_cfg = cfg.model if model is None else model
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(model_cfg)


class _SchedulesOnCpu(TorchFunctionMode):
    """Some backbones read their drop path rates from ``torch.linspace(...).item()``, which has no value on meta."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **{**(kwargs or {}), **({'device': 'cpu'} if func is torch.linspace else {})})


@contextmanager
def meta():
    with torch.device('meta'), _SchedulesOnCpu():
        yield


def meta_model(cfg):
    with meta():
        return build(cfg)


@functools.cache
def _built(name: str, *environment: str | None) -> torch.nn.Module:
    return meta_model(load(name))


def built(name: str) -> tuple[Config, torch.nn.Module]:
    """A recipe as it stands, and its model on the meta device, shared by all tests of the process: for reading only."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    return cfg, _built(name, *map(os.environ.get, VARIABLES))


def groups_of(model, cfg) -> dict:
    """Parameter name -> the optimizer group that it is in."""
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: g for g in groups for p in g['params']}
