"""What makes two runs the same: the part of a config that decides what is learned; which code and versions made them.

A stage is run again when its identity changes and only then, so a key that says how fast a run goes or where its files
go must not be part of it (a second call with more loader workers would otherwise repeat 800 epochs), and a key that
decides what is learned must be. What is left out stands in :mod:`mim_mm.engine.start.learning`, and hooks that only
look on say so themselves (``changes_learning = False``); everything else counts.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.config_parts import type_name
from mim_mm.engine.hooks.watching import changes_learning
from mim_mm.engine.start import guard
from mim_mm.engine.start.learning import NOT_LEARNED_ANYWHERE, NOT_LEARNED_KEYS, NOT_LEARNED_PATHS
from mim_mm.transfer import chain as chain_file

_TELL_THE_CLOCK = ('ClockHook', 'MaskSeedHook', 'MaskerEpochHook')
# Evaluators of ours that give the figures of another one, and more beside them.
_SAME_FIGURES = {'mim_mm.InMemoryCocoMetric': 'CocoMetric', 'mim_mm.ClassAccuracy': 'Accuracy'}
CODE_KEY = '<code>'  # beside the keys of the config: hashes of the user's own modules, see user_code.py

PACKAGES = dict(
    torch=['torch'],
    torchvision=['torchvision'],
    numpy=['numpy'],
    mmengine=['onedl-mmengine', 'mmengine', 'mmengine-lite'],
    mmcv=['onedl-mmcv', 'mmcv', 'mmcv-lite'],
    mmpretrain=['onedl-mmpretrain', 'mmpretrain'],
    mmdet=['onedl-mmdetection', 'onedl-mmdet', 'mmdet'],
    mim_mm=['mim_mm', 'mim-mm'],
)


def resolved_config(path: Path, options: dict[str, Any], seed: int, auto_scale_lr: bool = False) -> Config:
    """The config as the training script will see it: bases merged, options applied, seed set.

    Raises:
        ChainError: the config cannot be read, an option cannot be merged into it, or a key looks misspelt.
    """
    try:
        config = Config.fromfile(str(path))
        guard.check_options(config, options)
        config.merge_from_dict(dict(options))
        guard.check_config(config)
        config.merge_from_dict({'randomness.seed': seed})
        if auto_scale_lr and config.get('auto_scale_lr'):
            config.merge_from_dict({'auto_scale_lr.enable': True})
    except guard.ConfigError as error:
        raise chain_file.ChainError(f'config {path}: {error}') from error
    except Exception as error:  # a config is a program: anything can come out of it
        raise chain_file.ChainError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    return config


def data_roots(value: Any) -> list[str]:
    """Every ``data_root`` of a config, in order of appearance, once each."""
    roots: list[str] = []
    if isinstance(value, dict):
        root = value.get('data_root')
        roots += [root] if isinstance(root, str) and root else []
        for item in value.values():
            roots += data_roots(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            roots += data_roots(item)
    return list(dict.fromkeys(roots))


def learned(config: Config) -> dict[str, Any]:
    """The part of a resolved config that decides what is learned, as plain json types.

    Data roots are replaced by their number, because the same images in another folder are the same images: what is in
    them is compared separately (``datasets.py``). The checkpoint a stage starts from (``init``, or ``checkpoint`` of
    the hook that loads it) is compared by its content.
    """
    content = config.to_dict()
    roots = sorted(data_roots(content), key=len, reverse=True)
    names = {root: f'<data {i}>' for i, root in enumerate(data_roots(content))}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            if str(value.get('type', '')).split('.')[-1] == 'LoadPretrainedHook':
                value = {key: item for key, item in value.items() if key != 'checkpoint'}
            if not path and isinstance(value.get('init'), str | None):
                value = {key: item for key, item in value.items() if key != 'init'}
            kept = {}
            for key, item in value.items():
                inner = f'{path}.{key}' if path else str(key)
                if inner in NOT_LEARNED_KEYS or inner in NOT_LEARNED_PATHS or key in NOT_LEARNED_ANYWHERE:
                    continue
                kept[str(key)] = plain(item, inner)
            return kept
        if isinstance(value, (list, tuple)):
            return [plain(item, path) for item in value if not (path == 'custom_hooks' and _only_watches(item))]
        if isinstance(value, str):
            for root in roots:
                stem = root.rstrip('/')
                if value == stem or value.startswith(stem + '/'):
                    inside = value[len(stem) :].strip('/')
                    return f'{names[root]}/{inside}' if inside else names[root]
            return value
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if callable(value):  # its repr holds an address, which changes from run to run
            return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", type(value).__name__)}'
        return str(value)

    return one_form(plain(content, ''))


def one_form(content: dict[str, Any]) -> dict[str, Any]:
    """What is learned, in one spelling where there are two, so that runs of earlier versions stay the same run.

    The clock is told to every pretraining, by whichever hook: without a seed of its own such a hook says nothing. A
    ramp of the consistency term, once a hook, is an option of the model. An evaluator that gives the same figures as
    the one that the recipes had is that one.
    """
    hooks, ramps = [], []
    for hook in content.get('custom_hooks') or []:
        name = type_name(hook) if isinstance(hook, dict) else ''
        if name == 'ConsistencyRampHook' and 'epochs' in hook and isinstance(content.get('model'), dict):
            ramps.append(hook['epochs'])
        elif name not in _TELL_THE_CLOCK or hook.get('seed') is not None:
            hooks.append(hook)
    found = dict(content)
    if 'custom_hooks' in content:
        found['custom_hooks'] = hooks
    if not hooks:
        found.pop('custom_hooks', None)
    evaluator = content.get('val_evaluator')
    if isinstance(evaluator, dict) and evaluator.get('type') in _SAME_FIGURES:
        found['val_evaluator'] = {**evaluator, 'type': _SAME_FIGURES[evaluator['type']]}
    if ramps:
        found['model'] = {**content['model'], 'consistency_ramp': ramps[-1]}
    defaults = content.get('default_hooks')
    if isinstance(defaults, dict) and isinstance(clock := defaults.get('clock'), dict) and clock.get('seed') is None:
        found['default_hooks'] = {key: hook for key, hook in defaults.items() if key != 'clock'}
    return found


def _only_watches(hook: Any) -> bool:
    return isinstance(hook, dict) and not changes_learning(hook.get('type'))


def digest(value: Any) -> str:
    """sha256 of json-like content; the order of dict keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(',', ':'), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Any, new: Any, path: str = '') -> list[str]:
    """Where two configs differ, one line each: ``optimizer.lr: 0.1 -> 0.2``."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in list(old) + [key for key in new if key not in old]:
            inner = f'{path}.{key}' if path else str(key)
            if key not in new:
                lines.append(f'{inner}: {_short(old[key])} -> removed')
            elif key not in old:
                lines.append(f'{inner}: added {_short(new[key])}')
            else:
                lines += differences(old[key], new[key], inner)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new)) for line in differences(*pair, f'{path}.{i}')]
    return [] if old == new else [f'{path}: {_short(old)} -> {_short(new)}']


def say_change(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Why two runs are not the same, in a line: the code's part, then the config's, two differences of each."""
    if not old:
        return 'config changed'
    words = []
    for what, inside in (('code', True), ('config', False)):
        parts = [{k: v for k, v in side.items() if (k == CODE_KEY) == inside} for side in (old, new)]
        if inside:
            parts = [part.get(CODE_KEY, {}) for part in parts]
        lines = differences(*parts)
        more = f' and {len(lines) - 2} more' if len(lines) > 2 else ''
        words += [f'{what} changed: {"; ".join(lines[:2])}{more}'] if lines else []
    return '; '.join(words) or 'config changed'


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 3] + '...'


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the repository this code lies in, not of the current folder (mmengine records that).

    Both are None when the package is installed without its repository; a repository that merely encloses it, such as
    one with a virtual environment inside, is not taken for it.
    """
    here = Path(__file__).resolve().parents[2]

    def git(*args: str) -> str:
        run = subprocess.run(['git', '-C', str(here), *args], capture_output=True, text=True, timeout=60, check=True)
        return run.stdout.strip()

    try:
        if Path(git('rev-parse', '--show-toplevel')).resolve() != here:
            return dict(commit=None, dirty=None)
        return dict(commit=git('rev-parse', 'HEAD'), dirty=bool(git('status', '--porcelain')))
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return dict(commit=None, dirty=None)


def versions() -> dict[str, str]:
    """Versions of what a result depends on, read from the installed metadata, so that nothing is imported for it."""
    found = dict(python=platform.python_version())
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                found[name] = f'{metadata.version(distribution)} ({distribution})'
                break
            except metadata.PackageNotFoundError:
                continue
    return found
