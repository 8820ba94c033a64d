"""A run that was cut off and resumed is the run that was not, bit for bit."""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mim_mm.compat.internals import built_loop, draws_by_rank, resumes
from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.stop import exact_resume
from mim_mm.engine.stop.seeded_data import Passes, SeededLoader, set_seeds_again
from mim_mm.registry import HOOKS
from mim_mm.seeds import STEP, mix, seed_everything

# Entries of a checkpoint, under names that readers of models pass over (mim_mm.checkpoint.entries), others' too.
RANDOM, GRADIENT = 'random_state', 'optimizer_gradient'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make every random number of training a function of where it stands, and go on from a checkpoint at its place.

    - The augmentation of an image follows from (seed, epoch, image): :mod:`mim_mm.engine.stop.seeded_data`.
    - What an iteration draws in the process, on the device too (drop path, dropout, mixup, sampling of boxes), follows
      from (seed, iteration), and from the rank with ``randomness.diff_rank_seed``. Validation and other work between
      iterations therefore changes nothing, whether it is repeated after a kill or not.
    - Checkpoints hold the state of all generators of every rank, those that modules keep for themselves included, its
      BatchNorm statistics where they are not those of the first rank, and between two optimizer steps the accumulated
      gradient.
    - A checkpoint from the middle of an epoch goes on with its next batch; what was seen is not read.

    ``configs/_base_/default_runtime.py`` has this hook and ``tools/train.py`` adds it where it is missing. Checkpoints
    of earlier versions go on; their log says what they lack.

    Raises:
        mim_mm.engine.stop.exact_resume.ResumeError: See :func:`mim_mm.engine.stop.exact_resume.unseen`.
    """

    priority = 'HIGHEST'  # an iteration's numbers are there before any hook draws some
    changes_learning = False

    def __init__(self) -> None:
        self.data: SeededLoader | None = None
        self._seed: int | None = None  # before a checkpoint brings its own
        self._rank = 0
        self._loaded: dict[str, Any] | None = None
        self._to_save: dict[str, Any] | None = None

    # ---- going on from a checkpoint

    def before_run(self, runner) -> None:
        self._seed = runner.seed

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._loaded = dict(
            meta=checkpoint.get('meta') or {},  # itself: ResumeScheduleHook converts the place in it after this
            states=checkpoint.pop(RANDOM, None),
            gradient=checkpoint.pop(GRADIENT, None) or {},
        )
        seed = self._loaded['meta'].get('seed')
        if resumes(runner) and isinstance(seed, int):  # mmengine takes it after this, as the seed of the run
            set_seeds_again(runner.train_loop.dataloader, self._seed, seed, runner.logger.info)

    def before_train_epoch(self, runner) -> None:
        """Place the loader; the first time, after all that is done ``before_train``, where the checkpoint was."""
        loop, seen = runner.train_loop, 0
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if self.data is None:
            self._rank = get_rank() if draws_by_rank(runner) else 0
            self.data = SeededLoader(loop.dataloader, runner.seed)
            loaded, self._loaded = self._loaded, None
            if loop.iter > 0 and loaded is not None:
                self._restore(runner, loaded['states'], loaded['gradient'])
                seen = self._seen(runner, loaded['meta']) if by_epoch else 0
            if not by_epoch:
                skipped = 0 if getattr(loop, 'fast_forward_on_resume', False) else loop.iter
                loop.dataloader_iterator = Passes(self.data, skipped, skipped)
        if by_epoch:
            self.data.begin(runner.epoch, seen)

    def _seen(self, runner, meta: dict) -> int:
        loop = runner.train_loop
        # As the checkpoint counts: ResumeScheduleHook may have placed the loop in epochs of another length.
        iteration, epoch = meta.get('iter', loop.iter), meta.get('epoch', loop.epoch)
        seen = exact_resume.unseen(loop, iteration, epoch, meta.get('epoch_length'))
        if seen:
            runner.logger.info(f'epoch {loop.epoch + 1} goes on after {seen} of {len(loop.dataloader)} batches')
            loop.run_iter = lambda idx, data_batch: type(loop).run_iter(loop, idx + seen, data_batch)
        return seen

    def _restore(self, runner, states: list | None, gradient: dict) -> None:
        if states is None:
            runner.logger.info(
                'the checkpoint holds no random state (an earlier version, or another program wrote it): it goes on '
                'with the numbers that a run of this version has at this place'
            )
            return
        if len(states) == get_world_size():
            exact_resume.set_random_state(states[get_rank()], bare_model(runner))
            exact_resume.set_own_buffers(bare_model(runner), states[get_rank()].get('buffers') or {})
        else:
            runner.logger.warning(
                f'the checkpoint is from {len(states)} processes, going on on {get_world_size()}: generators that '
                'modules keep for themselves start anew; all other numbers follow from seed, epoch and iteration'
            )
        if gradient and exact_resume.window_is_open(runner):
            exact_resume.set_gradient(bare_model(runner), gradient)
            runner.logger.info(f'the gradient accumulated before the checkpoint goes on in {len(gradient)} parameters')

    # ---- an iteration

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed_everything(mix(runner.seed, STEP, runner.iter, self._rank))

    def after_train_epoch(self, runner) -> None:
        vars(runner.train_loop).pop('run_iter', None)

    # ---- saving

    def prepare_save(self, runner, with_gradient: bool = True) -> None:
        """Collect what the next checkpoint says of all ranks; called by every rank before the first one writes it.

        Between two optimizer steps the accumulated gradient of each rank becomes their mean, which changes nothing but
        roundings: the step takes the mean of all in any case. So one copy serves any number of ranks.
        """
        gradient = {}
        if with_gradient and exact_resume.window_is_open(runner):
            gradient = exact_resume.mean_gradient(bare_model(runner))
        model = bare_model(runner)
        own = dict(exact_resume.random_state(model), buffers=exact_resume.own_buffers(model))
        random = all_gather_object(own)
        self._to_save = {RANDOM: random, GRADIENT: gradient}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if isinstance(built_loop(runner, 'train'), EpochBasedTrainLoop):
            checkpoint['meta']['epoch_length'] = len(runner.train_dataloader)
        entries, self._to_save = self._to_save, None
        if entries is None:  # a hook that is not ours saves, on this rank alone
            alone = get_world_size() == 1 and exact_resume.window_is_open(runner)
            entries = {
                RANDOM: [exact_resume.random_state(bare_model(runner))],
                GRADIENT: exact_resume.mean_gradient(bare_model(runner)) if alone else {},
            }
        if not entries[GRADIENT] or 'optimizer' not in checkpoint:  # from the best one nobody goes on
            del entries[GRADIENT]
        checkpoint.update(entries)


def prepare_save(runner, with_gradient: bool = True) -> None:
    """To be called on every rank before ``runner.save_checkpoint``; see :meth:`ExactResumeHook.prepare_save`."""
    for hook in runner.hooks:
        if isinstance(hook, ExactResumeHook):
            hook.prepare_save(runner, with_gradient)
