"""Checks that run before training, for what mmengine lets pass silently.

A misspelt top-level key trains without the component it meant, ``resume`` without a checkpoint starts afresh, and a
missing data root fails only after the model was built. Here each stops at once, with the value, the rule and the fix.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log

from mim_mm.checkpoint.atomic import find_checkpoint
from mim_mm.checkpoint.checksum import damage, is_whole, older_sound
from mim_mm.checkpoint.finite import newest_finite
from mim_mm.config_parts import datasets_in, type_name
from mim_mm.engine.start.checks.relations import check_relations
from mim_mm.engine.start.checks.settings import check_keys, check_ranges
from mim_mm.engine.start.checks.words import ConfigError

# Keys that Runner reads from the config without being parameters of its constructor.
_READ_ELSEWHERE = set(
    (
        'activation_checkpointing allow_accumulation auto_scale_lr classes_from_data compile custom_imports '
        'default_scope efficient_conv_bn_eval find_unused_parameters max_pixels min_loaded model_wrapper_cfg '
        'optim_wrapper '
        'param_scheduler runner_type sync_bn trust_pickle tta_model tta_pipeline value_range'
    ).split()
)
_DEFAULT_HOOKS = {'runtime_info', 'timer', 'logger', 'param_scheduler', 'checkpoint', 'sampler_seed', 'visualization'}

_LAYOUTS = {
    'imagenet': 'expected {root}/train/<class>/*.JPEG and {root}/val/<class>/*.JPEG',
    'coco': 'expected {root}/annotations/instances_{{train,val}}2017.json, {root}/train2017/ and {root}/val2017/',
    'ade20k': 'expected {root}/{{images,annotations}}/{{training,validation}}/*',
    'demo': 'make it with python tools/make_demo_data.py',
}


def known_keys() -> set[str]:
    """Top-level config keys that mmengine reads."""
    from mmengine.runner import FlexibleRunner, Runner  # a second to import, and the chain asks for guards only

    params = {name for kind in (Runner, FlexibleRunner) for name in inspect.signature(kind.__init__).parameters}
    # ``optimizer`` would be a leftover of the mm 1.x style: nothing reads it.
    return (params | _READ_ELSEWHERE) - {'self', 'cfg', 'param_schedulers'}


def loads_encoder(cfg: Config) -> bool:
    """Whether a run of this config starts from a pretrained encoder, the one that its key ``init`` names."""
    return any(type_name(hook) == 'LoadPretrainedHook' for hook in cfg.get('custom_hooks') or ())


def check_config(cfg: Config) -> None:
    """Refuse top-level keys and default hooks that look like misspellings of known ones, and ``init`` without a reader.

    Then what ``checks`` finds without a class: nested keys, ranges, relations. Own variables (``data_root``,
    ``train_pipeline``, ``epochs`` ...) stay allowed: only close neighbours of top-level keys are refused.

    Raises:
        ConfigError: naming the key and the nearest known one.
    """
    # what a config imports (mmengine's new style, ``type=EMAE``) is a key as well
    written = {key for key in cfg.keys() if not (callable(cfg[key]) or isinstance(cfg[key], ModuleType))}
    _refuse_near_misses(written, known_keys() | ({'init'} if loads_encoder(cfg) else set()), 'top-level key')
    if isinstance(cfg.get('init'), str) and not loads_encoder(cfg):
        raise ConfigError(
            f'init={cfg.init} names a pretrained encoder, and nothing in this config loads one: a downstream recipe '
            'has LoadPretrainedHook in its custom_hooks. A pretraining goes on with --resume; load_from=CKPT starts '
            'any model from a whole checkpoint.'
        )
    _refuse_near_misses(set((cfg.get('default_hooks') or {}).keys()), _DEFAULT_HOOKS, 'default hook')
    if cfg.get('strategy') and not cfg.get('runner_type'):
        raise ConfigError(
            f"strategy={cfg.strategy.get('type')} is set, but mmengine's Runner does not read it: add "
            "runner_type='mim_mm.ShardedRunner' (or inherit from configs/_base_/fsdp.py)"
        )
    check_extra(cfg)
    check_keys(cfg)
    check_ranges(cfg)
    check_relations(cfg)


def check_extra(cfg: Mapping) -> None:
    """Stop where a config is for mmsegmentation, which is an extra, and that is not installed.

    Raises:
        ConfigError: with the command that installs it.
    """
    if cfg.get('default_scope') == 'mmseg' and find_spec('mmseg') is None:
        raise ConfigError(
            "this is a segmentation recipe, and mmsegmentation is not installed: pip install 'mim_mm[seg]', or "
            'pip install -c constraints.txt onedl-mmsegmentation (no compiler)'
        )


# Variables that OpenMMLab configs keep at the top level and that happen to lie near a known key.
_INNOCENT_ENDINGS = ('_pipeline', '_dataset', '_model', '_norm')
_INNOCENT = {'model_cfg', 'optimizer', 'schedule'}


def _refuse_near_misses(given: set[str], known: set[str], what: str) -> None:
    for key in sorted(given - known - _INNOCENT):
        if key.startswith('_') or key.endswith(_INNOCENT_ENDINGS):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if near:
            raise ConfigError(
                f"{what} '{key}' is not known and nothing would read it: did you mean '{near[0]}'? "
                'Rename it (a variable of your own needs a name further from it).'
            )


def check_options(cfg: Config, options: Mapping) -> None:
    """Refuse ``--cfg-options`` whose first name the config does not have, and lists that are indexed out of range.

    Below an existing entry a new name is allowed: it may be an argument that the config left at its default, and a
    wrong one stops in the constructor. ``init`` is left to :func:`check_config`: a config that loads an encoder need
    not state it.

    Raises:
        ConfigError: naming the option and the nearest known name.
    """
    for option in options:
        node = cfg.to_dict()
        for depth, name in enumerate(str(option).split('.')):
            if isinstance(node, (list, tuple)):
                if not name.isdigit() or int(name) >= len(node):
                    raise ConfigError(f"--cfg-options {option}: '{name}' is no index of a list of {len(node)} entries")
                node = node[int(name)]
                continue
            if not isinstance(node, Mapping) or name not in node:
                if depth == 0 and name not in known_keys() | {'init'}:
                    known = set(node) | known_keys() | ({'init'} if loads_encoder(cfg) else set())
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f": did you mean '{near[0]}'?" if near else ''
                    raise ConfigError(f"--cfg-options {option}: the config has no '{name}'{hint}")
                break
            node = node[name]


def iter_datasets(cfg: Config) -> Iterator[tuple[str, dict]]:
    """All dataset configs of the train, val and test loaders, wrappers unfolded, with the name of their loader."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in datasets_in((cfg.get(loader) or {}).get('dataset')):
            yield loader, dataset


def set_data_root(cfg: Config, root: str) -> None:
    """Point every dataset that has a ``data_root`` at ``root``, and annotation files below the old root with it."""
    evaluators = [cfg.get('val_evaluator'), cfg.get('test_evaluator')]
    evaluators = [e for group in evaluators for e in (group if isinstance(group, list) else [group]) if e]
    for holder in [dataset for _, dataset in iter_datasets(cfg)] + evaluators:
        old = holder.get('data_root')
        if old:
            holder['data_root'] = root
    old_roots = {cfg.get('data_root')} - {None}
    for holder in evaluators:
        path = holder.get('ann_file')
        for old in old_roots:
            if path and str(path).startswith(str(old)):
                holder['ann_file'] = os.path.join(root, os.path.relpath(path, old))
    cfg['data_root'] = root


def check_data_roots(cfg: Config) -> None:
    """Stop before anything is built when a data root or annotation file is missing.

    Raises:
        ConfigError: naming the loader, the path, the expected layout and how to point elsewhere.
    """
    for loader, dataset in iter_datasets(cfg):
        root = str(dataset.get('data_root') or '').rstrip('/')
        if not root:
            continue
        kind = 'coco' if str(dataset.get('ann_file', '')).endswith('.json') else 'imagenet'
        kind = 'ade20k' if type_name(dataset) == 'ADE20KDataset' else kind
        layout = _LAYOUTS['demo' if 'demo' in Path(root).parts else kind].format(root=root)
        if not os.path.isdir(root):
            raise ConfigError(
                f"{loader}: there is no folder '{root}'; {layout}. Link or move your data there "
                f'(ln -s /where/it/is {root}), set {kind.upper()}_ROOT, or pass --data-root DIR.'
            )
        wanted = [dataset.get('ann_file')] if dataset.get('ann_file') else []
        prefix = dataset.get('data_prefix')
        wanted += list(prefix.values()) if isinstance(prefix, Mapping) else [prefix] if prefix else []
        wanted += [dataset['split']] if dataset.get('split') else []
        numbered_by = None if dataset.get('ann_file') else dataset.get('classes_from')
        wanted += [numbered_by] if isinstance(numbered_by, str) else []
        for relative in wanted:
            path = os.path.join(root, str(relative))
            if relative and not os.path.exists(path):
                raise ConfigError(f"{loader}: '{path}' is missing; {layout}")


def fit_loaders(cfg: Config) -> None:
    """Take out of loaders without workers, in place, what torch accepts with workers only."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name) or {}
        if loader and not loader.get('num_workers'):
            for key in ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context'):
                loader.pop(key, None)


def check_first_batch(runner) -> None:
    """Stop where the training set does not fill one batch, so that an epoch would have no iteration.

    Raises:
        ConfigError: with the number of images and the batch that fits.
    """
    from mmengine.dataset import InfiniteSampler
    from torch.utils.data import IterableDataset

    loader = runner.train_dataloader
    if isinstance(loader.sampler, InfiniteSampler) or isinstance(loader.dataset, IterableDataset) or len(loader):
        return
    images, batch, processes = len(loader.dataset), loader.batch_size, get_world_size()
    fits = images // processes
    raise ConfigError(
        f'the training set has {images} images, less than one batch of {batch} on each of {processes} process(es): '
        + (f'pass --cfg-options train_dataloader.batch_size={fits} --auto-scale-lr' if fits else 'use fewer processes')
    )


def resolve_resume(resume: str | None, work_dir: str, out_dir: str | None = None) -> str | None:
    """The checkpoint to resume from, or None to start afresh; said where it is not the one of ``last_checkpoint``.

    Args:
        resume: None (no), 'latest' (must find one), 'auto' (whatever is there) or a path.
        work_dir: of the run.
        out_dir: of the checkpoint hook, if it keeps them elsewhere.

    Raises:
        ConfigError: if 'latest' finds nothing or the path is no whole checkpoint.
    """
    if resume is None:
        return None
    if resume in ('latest', 'auto'):
        found = newest_sound(work_dir, out_dir)
        if found is None and resume == 'latest':
            raise ConfigError(
                f"--resume: no whole checkpoint in '{work_dir}': name the work dir of the run (--work-dir), "
                'a checkpoint (--resume PATH), or --resume auto to start afresh where there is none'
            )
        return None if found is None else str(found)
    if not is_whole(resume):
        state = 'is cut off' if Path(resume).is_file() else 'does not exist'
        found = find_checkpoint(work_dir, out_dir)[0]
        advice = f'leave the path out to take {found}' if found else f"there is no whole one in '{work_dir}' either"
        raise ConfigError(f"--resume: '{resume}' {state}; {advice}")
    try:
        found = damage(resume)
    except OSError as error:
        raise ConfigError(f"--resume: '{resume}' cannot be read ({error}): resume from another one") from error
    if found:
        other = older_sound(resume)
        advice = f'--resume {other} is the newest sound one beside it' if other else 'there is no other one beside it'
        raise ConfigError(f"--resume: '{resume}' is damaged: {found}; {advice}")
    return resume


def newest_sound(work_dir: str | Path, out_dir: str | Path | None = None) -> Path | None:
    """The newest checkpoint of a run whose bytes are those that were written and whose values are finite.

    Says which ones it passes over, and where it is not the one that ``last_checkpoint`` names.

    Raises:
        ConfigError: there are checkpoints, and none of them is sound: nobody wants to start afresh over them.
    """
    first, note = find_checkpoint(work_dir, out_dir)
    found, refused = newest_finite(work_dir, out_dir)
    if found is None and refused:
        raise ConfigError(
            f"--resume: no checkpoint in '{work_dir}' is sound ({'; '.join(refused)}): copy one from a backup and give "
            'it to --resume, or start afresh in another --work-dir'
        )
    for sentence in refused:
        print_log(f'WARNING: {sentence}; resuming from {found} instead', level=logging.WARNING)
    if note and found == first:
        print_log(f'WARNING: {note}')
    return found
