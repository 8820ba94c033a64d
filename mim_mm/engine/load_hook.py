"""The hook that puts a pretrained encoder into the model of a downstream run."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mim_mm.checkpoint.load import load_encoder
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class LoadPretrainedHook(Hook):
    """Load an encoder before training; every rank loads, the first one prints and saves the load report.

    First entry of ``custom_hooks`` in the downstream recipes, so that
    ``--cfg-options custom_hooks.0.checkpoint=work_dirs/emae/epoch_800.pth`` sets the encoder.

    Args:
        checkpoint (str, optional): File, or work dir (its last checkpoint). None: train from the random encoder.
        prefix (str): Where the encoder lies in the file.
        target (str): Attribute path of the backbone in the model.
        min_loaded (float): Least part of the backbone's parameters that must be filled, else the run stops.
        skip (sequence): Regular expressions of parameters to leave random on purpose.
        trust (bool): Read a file that holds other classes than tensors and plain types.
        rename (dict, optional): Start of a name in the file -> in the backbone: CAE's ``{'ln1.': 'ln2.'}``.
        resample_patches (bool): Resample a patch embedding of another patch size (ViTDet-H: 14 px -> 16 px).

    A resumed run (``runner.iter > 0``) is left alone: its own checkpoint holds the encoder already.

    Raises:
        mim_mm.checkpoint.load.LoadError: See ``load_encoder``.
        ValueError: ``load_from`` gives weights as well.
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
        rename: dict[str, str] | None = None,
        resample_patches: bool = False,
    ):
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.target = target
        self.min_loaded = min_loaded
        self.skip = tuple(skip)
        self.trust = trust
        self.conversion = dict(rename=rename, resample_patches=resample_patches)

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0:
            runner.logger.info(
                f'Resumed at iteration {runner.iter}: the encoder comes from the resumed checkpoint, '
                f'{self.checkpoint} is not loaded again.'
            )
            return
        load_from = runner.cfg.get('load_from')
        if self.checkpoint is None:
            source = f'comes from load_from={load_from}' if load_from else 'starts from RANDOM weights'
            runner.logger.info(
                f'The encoder {source}: no pretraining checkpoint was given (custom_hooks.0.checkpoint=PATH sets one).'
            )
            return
        if load_from:
            raise ValueError(
                f'Both load_from={load_from} and LoadPretrainedHook.checkpoint={self.checkpoint} give weights for the '
                f'encoder: set one of them to None.'
            )
        report = load_encoder(
            self._backbone(runner), self.checkpoint, self.prefix, self.min_loaded, self.skip, self.trust,
            **self.conversion,
        )  # fmt: skip
        if is_main_process():
            report.save(runner.work_dir)
            runner.logger.info(f'{report.table()}\nSaved as {runner.work_dir}/load_report.json')

    def _backbone(self, runner: Runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            return model.get_submodule(self.target)
        except AttributeError as error:
            raise AttributeError(
                f'{type(model).__name__} has no module {self.target!r}: set target of LoadPretrainedHook to the path '
                f'of its encoder.'
            ) from error
