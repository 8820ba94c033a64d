"""Progressive resolution: pretraining starts on small images and ends on those that the checkpoint is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mim_mm.engine.bare_model import bare_model
from mim_mm.masking.base import needs_attention
from mim_mm.registry import HOOKS
from mim_mm.resolution import STAGES, Size, read_stages, span_of, spans


class SharedSize(Sequence):
    """(height, width) in memory that the workers of a loader share, in place of a transform's ``scale``.

    Workers live as long as the run and hold a copy of the dataset each; what they read here is what the main process
    wrote last. They ask for no sample of an epoch before it has begun.
    """

    def __init__(self, size: Size) -> None:
        self._sides = torch.tensor(size, dtype=torch.int64).share_memory_()

    def set(self, size: Size) -> None:
        self._sides.copy_(torch.tensor(size, dtype=torch.int64))

    def __getitem__(self, index):
        return tuple(self._sides.tolist())[index]

    def __len__(self) -> int:
        return 2

    def __repr__(self) -> str:
        return repr(self[:])


def crops_of(part: object) -> Iterator[object]:
    """The random resized crops of a dataset, inside wrappers of datasets and of transforms too.

    They are known by what they have: the size of their result (``scale``) and a ``crop_ratio_range``. That is
    mmpretrain's ``RandomResizedCrop`` with our faster ones that derive from it, and ``MAERandomResizedCrop``.
    """
    if isinstance(part, (list, tuple)):
        for item in part:
            yield from crops_of(item)
        return
    if hasattr(part, 'crop_ratio_range') and hasattr(part, 'scale'):
        yield part
    for name in ('dataset', 'datasets', 'pipeline', 'transforms'):
        yield from crops_of(getattr(part, name, ()))


@HOOKS.register_module()
class ProgressiveResolutionHook(Hook):
    """Train MAE or EMAE on images that grow in stages, e.g. 160, 192, then 224 px.

    It changes the method: published MAE and EMAE figures do not apply to models trained with it. The size depends on
    the epoch alone, so that all ranks agree and a resumed run, in the middle of an epoch too, has the size it had. The
    crops keep their share of the image: only what they are resized to changes. Positions of encoder and decoder are
    resampled from the tables of the last size.

    Args:
        stages: ``[(share, size), ...]``: from that share of the epochs on (rounded up to a whole epoch; the first is 0)
            the images have that size, in pixels or as (height, width). The last size is the backbone's ``img_size``.

    Raises:
        ValueError: stages that cannot be, sizes that are no whole number of patches, a masker that cannot mask one of
            them, a last size that is not the backbone's, epochs too few for the stages.
        TypeError: another algorithm, an iteration-based loop, or no random resized crop in the dataset.
        RuntimeError: batches of another size than the stage says.
    """

    priority = 'NORMAL'  # after ClockHook, since the masker is tried out

    def __init__(self, stages: Sequence = STAGES) -> None:
        self.stages = read_stages(stages)
        self.unseen = False
        self.size: Size | None = None

    def before_train(self, runner) -> None:
        loop, model = runner.train_loop, bare_model(runner)
        if not isinstance(loop, EpochBasedTrainLoop):
            raise TypeError(
                f'ProgressiveResolutionHook counts epochs, and {type(loop).__name__} has none: its loader reads ahead '
                'without end, so sizes would change in the middle of a batch; use train_cfg=dict(by_epoch=True, ...)'
            )
        if not hasattr(model, 'sizes_vary'):
            raise TypeError(f'ProgressiveResolutionHook: {type(model).__name__} takes one size only; MAE and EMAE vary')
        self.plan = spans(self.stages, loop.max_epochs)
        self._check_sizes(model)
        self.crops = list(crops_of(loop.dataloader.dataset))
        if not self.crops:
            raise TypeError(
                f'ProgressiveResolutionHook: {type(loop.dataloader.dataset).__name__} has no random resized crop whose '
                'scale could be set; use FastRandomResizedCrop, or RandomResizedCrop of mmpretrain'
            )
        for crop in self.crops:
            if not isinstance(crop.scale, SharedSize):
                crop.scale = SharedSize(self.plan[-1].size)
        self._try_masker(runner, model)
        model.sizes_vary = True
        shown = ', '.join(f'{span.text} in epochs {span.first + 1} to {span.end}' for span in self.plan)
        runner.logger.info(
            f'progressive resolution: {shown}. The method is no longer the published one, and its figures do not apply'
        )

    def before_train_epoch(self, runner) -> None:
        span = span_of(self.plan, runner.epoch)
        if span.size != self.size:
            runner.logger.info(f'epoch {runner.epoch + 1}: images of {span.text} from here on')
        self.size, self.unseen = span.size, True
        for crop in self.crops:
            crop.scale.set(span.size)
        preprocessor = bare_model(runner).data_preprocessor
        if hasattr(preprocessor, 'size'):  # DecodingPreprocessor resizes on the device what CropOnDevice leaves to it
            preprocessor.size = span.size

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if not self.unseen or not isinstance(data_batch, dict):
            return
        self.unseen = False
        found = {tuple(image.shape[-2:]) for image in data_batch.get('inputs', ()) if image.ndim == 3}
        if found - {self.size}:
            raise RuntimeError(
                f'epoch {runner.epoch + 1} is to have images of {self.size} px (height, width), the loader gives '
                f'{sorted(found)}: a transform behind the random crop changes the size; take it out of the pipeline'
            )

    def after_train(self, runner) -> None:
        bare_model(runner).sizes_vary = False

    def _check_sizes(self, model: torch.nn.Module) -> None:
        patch, grid = model.grid.patch_size, model.grid
        for _, size in self.stages:
            if any(side % patch for side in size):
                near = [max(1, round(side / patch)) * patch for side in size]
                raise ValueError(
                    f'ProgressiveResolutionHook: {size[0]} x {size[1]} px are no whole number of {patch}-px patches; '
                    f'{near[0]} x {near[1]} would be'
                )
        base, last = (grid.height * patch, grid.width * patch), self.stages[-1][1]
        if last != base:
            raise ValueError(
                f'ProgressiveResolutionHook: the last size is {last[0]} x {last[1]} px, but the backbone is built for '
                f'{base[0]} x {base[1]} (img_size), and the checkpoint must end at the size it is for; make them equal'
            )

    def _try_masker(self, runner, model: torch.nn.Module) -> None:
        """Draw a mask at every size: what cannot be masked stops here, what loses its speed is said."""
        patch, plans = model.grid.patch_size, {}
        # A masker may reduce over all ranks, which NCCL does on the device only.
        device = next(model.parameters()).device
        for span in self.plan:
            rows, columns = (side // patch for side in span.size)
            tokens = torch.zeros(2, rows * columns, model.grid.embed_dims, device=device)
            options = dict(attention=tokens[..., 0]) if needs_attention(model.masker) else {}
            try:
                plans[span] = model.masker(tokens, torch.Generator().manual_seed(0), **options)
            except ValueError as error:
                raise ValueError(
                    f'ProgressiveResolutionHook: {type(model.masker).__name__} cannot mask images of {span.text} '
                    f'({rows} x {columns} patches): {error}'
                ) from error
        for span, plan in plans.items():
            if not plan.uniform and plans[self.plan[-1]].uniform:
                runner.logger.warning(
                    f'progressive resolution: images of {span.text} are {plan.num_patches} patches, of which the parts '
                    f'of {type(model.masker).__name__} see {plan.num_visible}: unequal parts are packed, which is '
                    'slower and is not compiled; choose sizes whose number of patches is a multiple of that of parts'
                )
