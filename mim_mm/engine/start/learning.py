"""Which settings decide what is learned: one table, with reasons, for the chain (run again?) and for ``--resume``.

What stands here does not decide it; everything else does. Hooks that only look on say so themselves
(:mod:`mim_mm.engine.hooks.watching`).
"""

from __future__ import annotations

# Top-level keys that say where a run goes and how it is watched or launched. `resume` and the test loop are here
# because a chain's training stages decide resuming themselves and take their metrics from validation.
NOT_LEARNED_KEYS = {
    'work_dir': 'where files go',
    'experiment_name': 'a name',
    'log_level': 'logging',
    'log_processor': 'logging',
    'visualizer': 'logging',
    'vis_backends': 'logging',
    'launcher': 'how processes are started',
    'local_rank': 'how processes are started',
    'env_cfg': 'the machine',
    'resume': 'decided by --resume',
    'model_wrapper_cfg': 'how gradients travel, not what they are',
    'compile': 'speed; equal to what is not compiled (docs/speed.md)',
    'find_unused_parameters': 'how gradients travel, not what they are',
    'test_cfg': 'measures',
    'test_dataloader': 'measures',
    'test_evaluator': 'measures',
    'test_pipeline': 'measures',
}
# Settings that cost or save time at any depth, and where evaluators drop their files.
NOT_LEARNED_ANYWHERE = {
    'num_workers': 'speed of loading',
    'persistent_workers': 'speed of loading',
    'pin_memory': 'speed of loading',
    'prefetch_factor': 'speed of loading',
    'with_cp': 'memory against time',
    'backend_args': 'how files are read',
    'file_client_args': 'how files are read',
    'outfile_prefix': 'where files go',
    'skip_list': 'an old name without effect',
}
# Single settings of a group whose other keys do count.
NOT_LEARNED_PATHS = {
    'default_hooks.logger': 'logging',
    'default_hooks.timer': 'logging',
    'default_hooks.checkpoint': 'when files are written',
    'default_hooks.visualization': 'logging',
    'default_hooks.runtime_info': 'logging',
    'default_hooks.resume_schedule': 'decides how a run is resumed',
    'default_hooks.exact_resume': 'decides how a run is resumed',
    'train_cfg.val_interval': 'measures',
    'train_cfg.val_begin': 'measures',
    'train_cfg.dynamic_intervals': 'measures',
}

# ---- on resume only, where weights and optimizer come from the checkpoint and the rest of the run is still to come

RESUME_ONLY = {
    'init': 'the encoder comes from the resumed checkpoint',
    'load_from': 'the weights come from the resumed checkpoint',
    'min_loaded': 'the weights come from the resumed checkpoint',
    'auto_scale_lr': 'acts on the learning rate, which is compared itself',
    'trust_pickle': 'how files are read',
    'custom_imports': 'code that is imported; what is used of it is compared',
    'strategy': 'how the model lies on the devices; equal to what is not sharded (docs/fsdp.md)',
    'runner_type': 'how the model lies on the devices; equal to what is not sharded (docs/fsdp.md)',
    'optim_wrapper.optimizer.fused': 'speed; the same step',
    'optim_wrapper.optimizer.foreach': 'speed; the same step',
    'randomness.deterministic': 'the machine',
    'max_pixels': 'which images are too large to read',
    'val_cfg': 'measures',
    'val_dataloader': 'measures',
    'val_evaluator': 'measures',
    'tta_model': 'measures',
    'tta_pipeline': 'measures',
    'train_dataloader.timeout': 'speed of loading',
    'train_dataloader.multiprocessing_context': 'speed of loading',
    'default_hooks.data_wait': 'logging',
    'model.init_cfg': 'the weights come from the resumed checkpoint',
    'model.backbone.init_cfg': 'the weights come from the resumed checkpoint',
}
# Of these a run may have others from here on without being another run: mim_mm/engine/start/resume_schedule.py.
CONVERTED = {
    'train_cfg.max_epochs': 'the schedule is that of a run of this length from the start',
    'train_cfg.max_iters': 'the schedule is that of a run of this length from the start',
    'train_dataloader.batch_size': 'iterations and schedule are counted in the new batches',
    'optim_wrapper.accumulative_counts': 'iterations and schedule are counted in the new batches',
}
# Hooks that tools/train.py adds by itself, or that another version of it did.
TOOL_HOOKS = {
    'ClockHook': 'told to every pretraining, by whichever hook',
    'ResumeScheduleHook': 'decides how a run is resumed',
    'ExactResumeHook': 'decides how a run is resumed',
    'RankWatchHook': 'watches',
    'ResumedFromHook': 'watches',
    'FusedAttentionHook': 'speed; the same attention',
    'CompileHook': 'speed; equal to what is not compiled (docs/speed.md)',
    'ClassResultsHook': 'watches',
    'ProgressHook': 'watches',
    'StopOnSignalHook': 'watches',
}


def why_not_learned(path: str) -> str | None:
    """Why a setting does not change what a resumed run learns; None where it does.

    Args:
        path: dotted names, e.g. ``train_dataloader.num_workers``.
    """
    names = path.split('.')
    for name in names:
        if name in NOT_LEARNED_ANYWHERE:
            return NOT_LEARNED_ANYWHERE[name]
    for table in (NOT_LEARNED_KEYS, NOT_LEARNED_PATHS, RESUME_ONLY):
        for depth in range(1, len(names) + 1):
            if (reason := table.get('.'.join(names[:depth]))) is not None:
                return reason
    return None
