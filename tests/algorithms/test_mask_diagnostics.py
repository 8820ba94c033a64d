"""Mask diagnostics against direct counts, and the hook: right numbers, nothing of the training changed."""

import json
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from tiny import build, images
from tiny_run import shrunken

from mim_mm.engine.hooks.mask_diagnostics_hook import FILE_NAME, MaskDiagnosticsHook
from mim_mm.evaluation.pictures.mask_diagnostics import (
    MaskDiagnostics,
    coco_foreground,
    coverage,
    hidden_foreground,
    hidden_ratios,
)
from mim_mm.files import read_rows
from mim_mm.masking import MaskPlan, RandomMasking, SalienceMasking, salience


def ragged_plan():
    """Two images of 4 patches, two parts; the second part of the second image is absent."""
    order = torch.tensor([[[0, 1, 2, 3], [3, 2, 1, 0]], [[2, 0, 1, 3], [0, 1, 2, 3]]])
    return MaskPlan.from_lengths(order, torch.tensor([[1, 3], [2, 0]]))


def test_coverage_and_ratios_by_hand():
    plan = ragged_plan()
    # hidden: image 0 part 0 {1, 2, 3}, part 1 {0}; image 1 part 0 {1, 3}; three parts exist
    assert torch.allclose(coverage(plan), torch.tensor([1, 2, 1, 2]) / 3)
    ratios = hidden_ratios(plan)
    assert torch.equal(ratios[0], torch.tensor([0.75, 0.25])) and ratios[1, 0] == 0.5 and ratios[1, 1].isnan()


def test_coverage_of_random_masks_is_flat_and_of_fixed_masks_is_not():
    tokens = torch.zeros(4000, 16, 4)
    flat = coverage(RandomMasking(0.75)(tokens, torch.Generator().manual_seed(0)))
    assert (flat - 0.75).abs().max() < 5 * math.sqrt(0.75 * 0.25 / 4000)
    always = MaskPlan.from_scores(torch.arange(16.0).expand(8, 1, 16), 4)
    assert coverage(always).tolist() == [0.0] * 4 + [1.0] * 12


def test_hidden_foreground_by_hand():
    mask = torch.tensor([[[True, False, True, False]], [[True, True, True, False]]])
    foreground = torch.tensor([[1.0, 0.5, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]])
    share = hidden_foreground(mask, foreground)
    assert share[0, 0] == pytest.approx(1.25 / 1.75) and share[1, 0].isnan(), 'no foreground, no share'
    with pytest.raises(ValueError, match='must be'):
        hidden_foreground(mask, foreground[:, :3])


def test_a_look_counts_what_is_there():
    tokens = images(6, 8, seed=1).flatten(2).transpose(1, 2)  # (6, 64, 3)
    masker = SalienceMasking(ratio=dict(type='AdaptiveRatio', base=0.6, delta_r=0.2, threshold=0.15))
    plan = masker(tokens, torch.Generator().manual_seed(0))
    scalars, arrays = MaskDiagnostics(bins=10, max_images=4)(tokens, plan, masker)
    scores = [s for row in salience(tokens)[:4].tolist() for s in row]
    hidden = [sum(row) for row in plan.mask[:, 0].tolist()]
    assert scalars['salience_above'] == pytest.approx(sum(s > 0.15 for s in scores) / 256), 'the delta of the masker'
    assert arrays['threshold'] == 0.15 and arrays['images'] == 6 and arrays['parts'] == 1
    assert scalars['salience_median'] == pytest.approx(float(np.quantile(scores, 0.5)), abs=1e-6)
    assert arrays['salience_quantiles']['0.95'] == pytest.approx(float(np.quantile(scores, 0.95)), abs=1e-6)
    assert arrays['salience_histogram'] == np.histogram(scores, 10, (0, 1))[0].tolist()
    assert scalars['mask_ratio'] == pytest.approx(sum(hidden) / 6 / 64)
    assert scalars['mask_ratio_std'] == pytest.approx(float(np.std([h / 64 for h in hidden])))
    assert arrays['ratio_counts'] == {str(h): hidden.count(h) for h in sorted(set(hidden))}
    assert len(arrays['coverage']) == 64
    assert scalars['mask_coverage_max'] == pytest.approx(max(arrays['coverage']), abs=1e-4)
    assert MaskDiagnostics()(tokens, plan)[1]['threshold'] == 0.5
    assert not [name for name in scalars if 'loss' in name], 'mmengine would optimise it'


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match='threshold is 2'):
        MaskDiagnostics(threshold=2)
    with pytest.raises(ValueError, match='at least 1'):
        MaskDiagnostics(bins=0)
    with pytest.raises(ValueError, match='interval is 0'):
        MaskDiagnosticsHook(interval=0)


@pytest.fixture
def scenes(tmp_path):
    """COCO annotations: an image 40 x 80 whose centre square holds one object, and one without objects."""
    boxes = [
        dict(
            id=1,
            image_id=1,
            category_id=1,
            iscrowd=0,
            bbox=[30, 10, 20, 20],
            area=400,
            segmentation=[[30, 10, 40, 10, 40, 30, 30, 30]],
        )
    ]  # the outline is the left half of the box
    boxes += [dict(id=2, image_id=1, category_id=1, iscrowd=1, bbox=[20, 0, 40, 40], area=9, segmentation=[])]
    names = [dict(id=1, file_name='a.png', height=40, width=80), dict(id=2, file_name='b.png', height=40, width=40)]
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(dict(images=names, annotations=boxes, categories=[dict(id=1, name='x')])))
    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8))
    return path


def test_foreground_of_coco_annotations(scenes):
    found = list(coco_foreground(scenes, scenes.parent, (4, 4)))
    assert [path.name for path, _ in found] == ['a.png'], 'an image without objects is left out'
    boxes, masks = (found[0][1][kind].reshape(4, 4) for kind in ('boxes', 'masks'))
    # The square is x 20..60: the box covers x 10..30, y 10..30 of it, four patches of 10 px.
    expected = np.zeros((4, 4), np.float32)
    expected[1:3, 1:3] = 1
    assert np.array_equal(boxes, expected), 'the crowd is not counted'
    assert masks[1:3, 1].min() > 0.8 and masks[:, 2].max() < 0.2 and masks[:, [0, 3]].sum() == 0
    with pytest.raises(FileNotFoundError, match='no annotation file'):
        list(coco_foreground(scenes.parent / 'none.json', scenes.parent, (4, 4)))
    (scenes.parent / 'a.png').unlink()
    with pytest.raises(FileNotFoundError, match='which is not in'):
        list(coco_foreground(scenes, scenes.parent, (4, 4)))


# ---- the hook


class Runner:
    """What the hook asks of mmengine's Runner."""

    def __init__(self, model, folder, iteration=0):
        self.model, self.work_dir, self.iter, self.epoch = model, str(folder), iteration, 0
        self.logged = {}
        self.message_hub = SimpleNamespace(update_scalar=self.logged.__setitem__)


def steps(model, hook, folder, count, start=0):
    """``count`` optimiser steps with the hook around them; the weights and the random state that are left."""
    torch.manual_seed(5)
    runner = Runner(model, folder, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if hook:
        hook.before_train(runner)
    for i in range(start, start + count):
        runner.iter = i
        if hook:
            hook.before_train_iter(runner, i)
        out = model(images(4, seed=i), mode='loss')
        optimizer.zero_grad()
        out['loss_whole'].backward()
        optimizer.step()
        if hook:
            hook.after_train_iter(runner, i, outputs=out)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, torch.random.get_rng_state(), runner


@pytest.mark.parametrize('masker', [dict(type='RandomMasking'), dict(type='AttMask', ratio=0.75)])
def test_the_hook_changes_nothing(tmp_path, masker):
    torch.manual_seed(0)
    model = build('MAE', masker)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    watched = steps(model, MaskDiagnosticsHook(interval=2), tmp_path, 5)
    assert type(model.masker).__name__ == masker['type'], 'the masker is itself again'
    model.load_state_dict(state)
    alone = steps(model, None, tmp_path, 5)
    assert torch.equal(watched[0], alone[0]) and torch.equal(watched[1], alone[1])
    lines = read_rows(tmp_path / FILE_NAME)
    assert [line['iter'] for line in lines] == [1, 2, 4], 'the first one, then every second'
    assert watched[2].logged['train/mask_ratio'] == 0.75 == lines[-1]['mask_ratio']
    assert not [key for key in watched[2].logged if 'loss' in key]


def test_the_hook_sees_the_masks_of_the_step(tmp_path):
    model = build('MAE', dict(type='RandomMasking', ratio=0.5))
    seen, masker = [], model.masker
    model.masker = lambda *args, **options: seen.append(masker(*args, **options)) or seen[-1]
    steps(model, MaskDiagnosticsHook(interval=1), tmp_path, 3)
    lines = read_rows(tmp_path / FILE_NAME)
    assert len(seen) == len(lines) == 3, 'no mask was drawn for the diagnostics alone'
    for plan, line in zip(seen, lines):
        assert line['coverage'] == [pytest.approx(v) for v in plan.mask[:, 0].float().mean(0).tolist()]


def test_a_resumed_run_drops_what_is_trained_again(tmp_path):
    model, hook = build('MAE'), MaskDiagnosticsHook(interval=1)
    steps(model, hook, tmp_path, 4)
    with open(tmp_path / FILE_NAME, 'a') as file:
        file.write('{"iter": 5, "cut o')
    steps(model, hook, tmp_path, 2, start=2)
    assert [line['iter'] for line in read_rows(tmp_path / FILE_NAME)] == [1, 2, 3, 4]
    steps(model, hook, tmp_path, 1)
    assert [line['iter'] for line in read_rows(tmp_path / FILE_NAME)] == [1], 'a fresh run starts anew'


def test_a_model_without_masker_is_refused(tmp_path):
    with pytest.raises(ValueError, match='Linear has no masker'):
        MaskDiagnosticsHook().before_train(Runner(torch.nn.Linear(2, 2), tmp_path))
    model = build('MAE')
    runner, hook = Runner(model, tmp_path), MaskDiagnosticsHook()
    hook.before_train_iter(runner, 0)
    with pytest.raises(ValueError, match='did not call its masker'):
        hook.after_train_iter(runner, 0)
    assert type(model.masker).__name__ == 'RandomMasking'


def test_a_run_of_the_runner_logs_it(image_folder, tmp_path):
    """In a recipe, through mmengine: the scalars are in the log beside the loss, which is the same as without."""
    from mmengine.runner import Runner as RealRunner

    logs = {}
    for watched in (False, True):
        cfg = shrunken(**{
            'train_dataloader.dataset.data_root': str(image_folder),
            'train_dataloader.dataset.data_prefix': '',
            'train_cfg.max_epochs': 2,
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
            'work_dir': str(tmp_path / str(watched)),
        })  # fmt: skip
        cfg.experiment_name = f'diagnostics-{watched}'
        if watched:
            cfg.custom_hooks.append(ConfigDict(type='MaskDiagnosticsHook', interval=2))
        RealRunner.from_cfg(cfg).train()
        file = next((tmp_path / str(watched)).rglob('scalars.json'))
        logs[watched] = [json.loads(line) for line in file.read_text().splitlines()]
    assert logs[True][-1]['mask_ratio'] == 0.75 and 0 <= logs[True][-1]['salience_above'] <= 1
    assert [line['loss'] for line in logs[True]] == [line['loss'] for line in logs[False]]
    assert set(logs[True][-1]) - set(logs[False][-1]) == {
        'mask_ratio', 'mask_ratio_std', 'mask_coverage_min', 'mask_coverage_max', 'salience_median', 'salience_above'
    }  # fmt: skip
    assert [line['iter'] for line in read_rows(tmp_path / 'True' / FILE_NAME)] == [1, 2, 4]
