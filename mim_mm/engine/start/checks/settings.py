"""The nested keys that mmengine reads without a class behind them, and the range of each; imports no model.

mmengine reads these by ``get``, so that a misspelt one is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mmengine.config import Config

from mim_mm.engine.start.checks import rules
from mim_mm.engine.start.checks.rules import COUNT, NOT_NEGATIVE, POSITIVE, WHOLE, Rule, complaint, one_of, yes_or_no
from mim_mm.engine.start.checks.words import ConfigError, nearest, shown, unknown

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

# Place -> the names that are read there. Everything else is refused.
KEYS: dict[str, str] = {
    'auto_scale_lr': 'enable base_batch_size',
    'env_cfg': 'cudnn_benchmark mp_cfg dist_cfg resource_limit',
    'env_cfg.mp_cfg': 'mp_start_method opencv_num_threads',
    'env_cfg.dist_cfg': (
        'backend init_backend timeout port init_method world_size rank store group_name pg_options device_id'
    ),
    'randomness': 'seed diff_rank_seed deterministic',
    'custom_imports': 'imports allow_failed_imports',
    **dict.fromkeys(
        LOADERS,
        'dataset sampler batch_sampler collate_fn worker_init_fn num_batch_per_epoch disable_subprocess_warning '
        'batch_size num_workers persistent_workers pin_memory pin_memory_device prefetch_factor drop_last timeout '
        'multiprocessing_context generator in_order',
    ),
    'compile': 'fullgraph dynamic backend mode options disable target',
}
# Where own names are common as well: only close neighbours of these are refused.
NEAR: dict[str, str] = {
    'model.train_cfg': 'augments rpn rpn_proposal rcnn',
    'model.test_cfg': 'rpn rcnn',
    'model.train_cfg.rpn': 'assigner sampler allowed_border pos_weight debug',
    'model.train_cfg.rpn_proposal': 'nms_pre max_per_img nms min_bbox_size',
    'model.train_cfg.rcnn': 'assigner sampler mask_size match_low_quality pos_weight debug',
    'model.test_cfg.rpn': 'nms_pre max_per_img nms min_bbox_size',
    'model.test_cfg.rcnn': 'score_thr nms max_per_img mask_thr_binary',
    **dict.fromkeys((f'{loader}.dataset.filter_cfg' for loader in LOADERS), 'filter_empty_gt min_size'),
}
# Top-level keys of 1.x with what took their place; nothing reads them.
OLD_KEYS = dict(
    lr_config='param_scheduler', optimizer_config='optim_wrapper.clip_grad',
    checkpoint_config='default_hooks.checkpoint',
    log_config='default_hooks.logger', dist_params='env_cfg.dist_cfg', total_epochs='train_cfg.max_epochs',
    cudnn_benchmark='env_cfg.cudnn_benchmark', gpu_ids='--launcher', resume_from='--resume', seed='randomness.seed',
    fp16='optim_wrapper.type', workflow='train_cfg',
)  # fmt: skip

RANGES: dict[str, Rule] = {
    'auto_scale_lr.base_batch_size': WHOLE,
    'auto_scale_lr.enable': yes_or_no,
    'env_cfg.cudnn_benchmark': yes_or_no,
    'env_cfg.mp_cfg.mp_start_method': one_of('fork', 'spawn', 'forkserver'),
    'env_cfg.mp_cfg.opencv_num_threads': COUNT,
    'env_cfg.dist_cfg.backend': one_of('nccl', 'gloo', 'mpi', 'ucc', 'hccl', 'cncl', 'mccl', 'xccl'),
    'env_cfg.dist_cfg.timeout': POSITIVE,
    'env_cfg.resource_limit': WHOLE,
    'randomness.seed': COUNT,
    'randomness.deterministic': yes_or_no,
    'randomness.diff_rank_seed': yes_or_no,
    'min_loaded': rules.PART,
    'launcher': one_of('none', 'pytorch', 'slurm', 'mpi'),
    'log_level': one_of('CRITICAL', 'FATAL', 'ERROR', 'WARNING', 'WARN', 'INFO', 'DEBUG', 'NOTSET'),
    'train_cfg.max_epochs': WHOLE,
    'train_cfg.max_iters': WHOLE,
    'train_cfg.val_interval': WHOLE,
    'train_cfg.val_begin': COUNT,
    'train_cfg.by_epoch': yes_or_no,
    '*_dataloader.batch_size': WHOLE,
    '*_dataloader.num_workers': COUNT,
    '*_dataloader.prefetch_factor': WHOLE,
    '*_dataloader.timeout': NOT_NEGATIVE,
    '*_dataloader.num_batch_per_epoch': WHOLE,
    '*_dataloader.persistent_workers': yes_or_no,
    '*_dataloader.pin_memory': yes_or_no,
    '*_dataloader.drop_last': yes_or_no,
    '*_dataloader.sampler.shuffle': yes_or_no,
    'optim_wrapper.accumulative_counts': WHOLE,
    'optim_wrapper.clip_grad.max_norm': POSITIVE,
    'optim_wrapper.clip_grad.clip_value': POSITIVE,
    'optim_wrapper.clip_grad.type': one_of('norm', 'value', 'tensor'),
    'optim_wrapper.paramwise_cfg.layer_decay_rate': rules.POSITIVE_PART,
    'optim_wrapper.paramwise_cfg.*_mult': NOT_NEGATIVE,
    'log_processor.window_size': WHOLE,
    'data_preprocessor.std': rules.spread,
    'data_preprocessor.pad_size_divisor': WHOLE,
    'data_preprocessor.num_classes': WHOLE,
}


def nodes(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Every value of a config with its dotted path, the containers too."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if _is_list(value) else ()
    for key, item in items:
        yield from nodes(item, f'{path}.{key}' if path else str(key))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def check_keys(cfg: Config) -> None:
    """Refuse nested keys that nothing reads.

    Raises:
        ConfigError: with the place, the key and the nearest known one.
    """
    for key, place in OLD_KEYS.items():
        if isinstance(cfg.get(key), Mapping) or (key in ('total_epochs', 'resume_from', 'workflow') and cfg.get(key)):
            raise ConfigError(
                f"{key}={shown(cfg[key])}: '{key}' is a key of OpenMMLab 1.x and nothing reads it: use {place}"
            )
    for place, names in KEYS.items():
        for key, value in _mapping(cfg, place).items():
            if key not in names.split():
                at = f'{place}.{key}={shown(value)}'
                raise ConfigError(unknown(at, names.split(), 'nothing would read'))
    for place, names in NEAR.items():
        for key, value in _mapping(cfg, place).items():
            near = None if key in names.split() else nearest(key, names.split(), 0.8)
            if near:
                raise ConfigError(unknown(f'{place}.{key}={shown(value)}', names.split(), 'nothing would read'))


def _mapping(cfg: Config, place: str) -> Mapping:
    first, *below = place.split('.')
    node: Any = cfg.get(first)
    for name in below:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def check_ranges(cfg: Config) -> None:
    """Refuse settings of mmengine that have a value without a meaning.

    Raises:
        ConfigError: with the setting, its value and the rule.
    """
    read = {key.split('.')[0] for key in RANGES} | set(LOADERS)
    for path, value in nodes({key: cfg[key] for key in cfg.keys() if key in read}):
        for pattern, rule in RANGES.items():
            said = complaint(path, value, rule) if fnmatchcase(path, pattern) else None
            if said:
                raise ConfigError(said)
