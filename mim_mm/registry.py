"""Registries of scope ``mim_mm``, children of mmengine's root registries.

Any OpenMMLab config reaches our classes as ``type='mim_mm.EMAE'``: mmengine imports ``mim_mm.registry`` when it meets
the scope, and the modules below on the first look-up in the registry that lists them. Until then nothing is imported:
``import mim_mm`` and ``--help`` stay cheap. A new module is entered here; ``tests/packaging/test_layers.py`` finds
those that are not.
"""

from mmengine import registry as _root
from mmengine.registry import Registry


def _child(parent: Registry, modules: str = '') -> Registry:
    """A registry of this scope that imports ``modules``, names below ``mim_mm``, at its first look-up."""
    locations = [f'mim_mm.{module}' for module in modules.split()] or [__name__]
    return Registry(parent.name, parent=parent, scope='mim_mm', locations=locations)


# Right after its import a Runner that is made without tools/train.py fits its schedule to the run.
_FIT = 'engine.start.schedule '

MODELS = _child(
    _root.MODELS,
    'masking.adaptive masking.attended masking.block masking.cells masking.drawn masking.grid masking.inverse_block '
    'masking.multi_block masking.parallel masking.random masking.salience masking.salience_parallel '
    'encoders.post_norm encoders.raw_pixels encoders.register_vit encoders.swin_v2 '
    'decoders.cross_decoder decoders.mae_decoder '
    'algorithms.beit algorithms.bootmae algorithms.cae algorithms.cmae algorithms.data2vec '
    'algorithms.data2vec2 algorithms.dino algorithms.emae algorithms.ibot algorithms.ijepa algorithms.mae '
    'algorithms.masked_dino algorithms.mocov3 algorithms.msn algorithms.simmim '
    'detection.detectors detection.hivit_maps detection.necks detection.predictors detection.roi_extractor '
    'detection.windowed_vit detection.without_waits '
    'data.batches data.colours data.device_decode data.own_images '
    'evaluation.probes.attentive_pool evaluation.probes.frozen_probe evaluation.probes.layer_norm_l2 '
    'evaluation.probes.multi_probe evaluation.probes.partial_finetuning',
)
DATASETS = _child(
    _root.DATASETS,
    'data.class_dataset data.own_images data.streaming data.unlabelled '
    'evaluation.frozen.listed_images evaluation.probes.probe_metric',
)
TRANSFORMS = _child(
    _root.TRANSFORMS,
    'data.device_decode data.erasing data.fast_crop data.loading data.one_draw_crop data.own_images data.unlabelled '
    'data.views',
)
HOOKS = _child(
    _root.HOOKS,
    _FIT
    + 'engine.hooks.class_results_hook engine.hooks.clock_hook engine.hooks.compile_hook engine.hooks.data_wait_hook '
    'engine.hooks.finite_hook engine.hooks.freeze_hook engine.hooks.fused_attention_hook engine.hooks.load_hook '
    'engine.hooks.mask_diagnostics_hook engine.hooks.matmul_hook engine.hooks.pretrain_hooks engine.hooks.progress '
    'engine.hooks.progressive_hook engine.hooks.tracking '
    'engine.start.class_count engine.start.resume_schedule engine.start.runtime_info '
    'engine.stop.checkpoint_hook engine.stop.exact_hook engine.stop.ranks engine.stop.stop_hook '
    'evaluation.probes.probe_metric evaluation.quality.collapse_hook evaluation.quality.quality_hook',
)
OPTIMIZERS = _child(_root.OPTIMIZERS, _FIT + 'engine.optim.lars')
OPTIM_WRAPPERS = _child(_root.OPTIM_WRAPPERS, _FIT + 'engine.optim.precision')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    _root.OPTIM_WRAPPER_CONSTRUCTORS, _FIT + 'engine.optim.layer_decay engine.optim.probe_optim'
)
PARAM_SCHEDULERS = _child(_root.PARAM_SCHEDULERS, _FIT + 'engine.optim.rates')
METRICS = _child(
    _root.METRICS,
    'detection.metric evaluation.pictures.mask_diagnostics evaluation.probes.class_accuracy '
    'evaluation.probes.probe_metric',
)
RUNNERS = _child(_root.RUNNERS, _FIT + 'engine.fsdp.sharded_runner')
STRATEGIES = _child(_root.STRATEGIES, _FIT + 'engine.fsdp.fsdp_strategy')
FUNCTIONS = _child(_root.FUNCTIONS, 'data.batches')
TASK_UTILS = _child(_root.TASK_UTILS, 'detection.without_waits')
VISBACKENDS = _child(_root.VISBACKENDS, 'engine.hooks.tracking')

# Empty, but there: for each registry that a scope lacks, mmengine warns at every build under that default scope, and
# for one without a location it says that mim_mm is not installed; this module is a location that costs nothing.
for _name in (
    'DATA_SAMPLERS EVALUATOR INFERENCERS LOG_PROCESSORS LOOPS MODEL_WRAPPERS RUNNER_CONSTRUCTORS '
    'VISUALIZERS WEIGHT_INITIALIZERS'
).split():
    globals()[_name] = _child(getattr(_root, _name))
