# Runtime that all recipes share. Types carry their scope, so that a recipe may set another default_scope.
custom_imports = dict(imports=['mim_mm'], allow_failed_imports=False)
default_scope = 'mim_mm'

default_hooks = dict(
    # Steps that are not finite are left out; docs/reliability.md, "NaN".
    finite=dict(type='mim_mm.FiniteHook'),
    # Values stay on the device until a log line is due.
    runtime_info=dict(type='mim_mm.DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    # "waited on data x %" after each epoch.
    data_wait=dict(type='mim_mm.DataWaitHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Atomic, tensors only; the newest three are kept.
    checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Masks, ramps and teachers of pretraining follow from seed, step and epoch.
    clock=dict(type='mim_mm.ClockHook'),
    # Random numbers follow from seed, epoch and iteration; a resumed run is the run that was not interrupted.
    exact_resume=dict(type='mim_mm.ExactResumeHook'),
    # A resumed run follows the schedule and rates of its own config, not those of its checkpoint.
    resume_schedule=dict(type='mim_mm.ResumeScheduleHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Seconds that a process waits for the others (NCCL and gloo): a dead or hanging one ends the job after that.
    dist_cfg=dict(backend='nccl', timeout=1800),
)
log_processor = dict(window_size=10)
log_level = 'INFO'
randomness = dict(seed=0, diff_rank_seed=True)
load_from = None
resume = False
