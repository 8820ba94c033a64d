"""The hook that puts a pretrained encoder into the model of a downstream run."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.checkpoint.whole import check_whole
from mim_mm.encoders import grid_of
from mim_mm.engine.bare_model import bare_model
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class LoadPretrainedHook(Hook):
    """Load an encoder before training; every rank loads, the first one prints and saves the load report.

    The weights are those of the config's ``init``: ``--cfg-options init=work_dirs/emae/epoch_800.pth``. Where a config
    has several hooks of this class, ``init`` is the first one's.

    Args:
        checkpoint (str, optional): File, or work dir (its last checkpoint). None: ``init`` of the config, and without
            that the encoder stays random.
        prefix (str): Where the encoder lies in the file.
        target (str): Attribute path of the backbone in the model.
        min_loaded (float): Least part of the backbone's parameters that must be filled, else the run stops; below 0.95
            single ones may stay random, else all must be filled or be in ``skip``.
        skip (sequence): Regular expressions of names left out on purpose: parameters of the backbone that stay random,
            tensors of the file that are not used.
        trust (bool): Read a file that holds other classes than tensors and plain types.
        complete (bool): For an encoder that stays frozen, so that nothing makes up for what is missing: stop unless
            every parameter was filled, those that may start by design included.
        rename (dict, optional): Start of a name in the file -> in the backbone: CAE's ``{'ln1.': 'ln2.'}``.
        resample_patches (bool): Resample a patch embedding of another patch size (ViTDet-H: 14 px -> 16 px).
        entry (str, optional): Which model of a file with several: ``'model_ema'``, ``'student'``.
        cut_depth (bool): Take the first blocks of a deeper encoder (BootMAE's probe).

    A resumed run (``runner.iter > 0``) is left alone: its own checkpoint holds the encoder already.

    Raises:
        mim_mm.checkpoint.load.LoadError: See ``load_encoder`` and ``complete``.
        ValueError: ``load_from`` gives weights as well, ``checkpoint`` and ``init`` differ, or ``init`` is no path.
        AttributeError: The model has no module ``target``.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        checkpoint: str | None = None,
        prefix: str = 'backbone.',
        target: str = 'backbone',
        min_loaded: float = 0.95,
        skip: Sequence[str] = (),
        trust: bool = False,
        complete: bool = False,
        rename: dict[str, str] | None = None,
        resample_patches: bool = False,
        entry: str | None = None,
        cut_depth: bool = False,
    ):
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.target = target
        self.min_loaded = min_loaded
        self.skip = tuple(skip)
        self.trust = trust
        self.complete = complete
        self.options = dict(rename=rename, resample_patches=resample_patches, entry=entry, cut_depth=cut_depth)
        self._sharded = False

    def before_wrap(self, runner: Runner, model: nn.Module) -> None:
        """Load before the model is sharded; ``mim_mm.ShardedRunner`` calls this, other runners do not."""
        self._sharded = True
        if not runner.resuming:
            self._load(runner, model)

    def before_train(self, runner: Runner) -> None:
        if self._sharded and not runner.resuming:
            return  # done before the model was sharded
        if runner.iter > 0:
            runner.logger.info(
                f'Resumed at iteration {runner.iter}: the encoder comes from the resumed checkpoint, '
                f'{self._weights(runner)} is not loaded again.'
            )
            return
        self._load(runner, bare_model(runner))

    def _weights(self, runner: Runner) -> str | None:
        """The checkpoint of this hook: its own or the config's ``init``, which say the same where both are set."""
        init = runner.cfg.get('init')
        if init is None or self is not next(hook for hook in runner.hooks if isinstance(hook, LoadPretrainedHook)):
            return self.checkpoint
        if not isinstance(init, (str, PathLike)):
            raise ValueError(
                f'init={init!r} is no path: it names the pretrained encoder, a checkpoint file or a work dir; None '
                'starts from random weights (a variable of your own needs another name).'
            )
        if self.checkpoint is not None and str(self.checkpoint) != str(init):
            raise ValueError(
                f'init={init} and LoadPretrainedHook.checkpoint={self.checkpoint} (in custom_hooks) both name the '
                'pretrained encoder and differ: set the latter to None.'
            )
        return str(init)

    def _load(self, runner: Runner, model: nn.Module) -> None:
        load_from, weights = runner.cfg.get('load_from'), self._weights(runner)
        if weights is None:
            source = f'comes from load_from={load_from}' if load_from else 'starts from RANDOM weights'
            runner.logger.info(
                f'The encoder {source}: no pretraining checkpoint was given (--cfg-options init=PATH sets one).'
            )
            return
        if load_from:
            name = 'init' if self.checkpoint is None else 'LoadPretrainedHook.checkpoint'
            raise ValueError(
                f'Both load_from={load_from} and {name}={weights} give weights for the encoder: set one of them to '
                'None.'
            )
        backbone = self._backbone(model)
        report = load_encoder(
            backbone, weights, self.prefix, self.min_loaded, self.skip, self.trust,
            grid=grid_of(backbone), **self.options,
        )  # fmt: skip
        if is_main_process():
            report.save(runner.work_dir)
            runner.logger.info(f'{report.table()}\nSaved as {runner.work_dir}/load_report.json')
        left = [*report.random, *report.by_design]
        if self.complete and left:
            raise LoadError(
                f'{report.checkpoint} leaves {len(left)} parameters of the frozen encoder at their start, among them '
                f'{left[:3]}: give the recipe of this kind of encoder (docs/probes.md), or set '
                f'custom_hooks.0.complete=False if that is meant.'
            )

    def _backbone(self, model: nn.Module) -> nn.Module:
        try:
            return model.get_submodule(self.target)
        except AttributeError as error:
            raise AttributeError(
                f'{type(model).__name__} has no module {self.target!r}: set target of LoadPretrainedHook to the path '
                f'of its encoder.'
            ) from error


@HOOKS.register_module()
class WholeCheckpointHook(Hook):
    """Stop unless the checkpoint that the runner loads holds the whole model; ``tools/test.py`` adds it.

    mmengine warns of what is missing or has another shape and measures with random weights.

    Raises:
        mim_mm.checkpoint.load.LoadError: See ``check_whole``.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_whole(bare_model(runner), checkpoint.get('state_dict', checkpoint), str(runner.cfg.get('load_from')))
