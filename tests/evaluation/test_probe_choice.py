"""Choosing among probes: the held-out part, a choice that never sees the test set, the recipe on class folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.models.backbones import VisionTransformer
from PIL import Image

from mim_mm.evaluation.probes.multi_probe import Probe
from mim_mm.evaluation.probes.probe_metric import ProbeAccuracy, ProbeImages, held_out

RECIPE = Path(__file__).resolve().parents[2] / 'configs' / 'linear' / 'vitb_quick_probe.py'
ARCH = dict(embed_dims=32, num_layers=5, num_heads=2, feedforward_channels=64)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


# ---------------------------------------------------------------- the choice


def test_held_out_is_stratified_deterministic_and_by_seed():
    labels = [0] * 40 + [1] * 7 + [2] * 1 + [3] * 1000
    chosen = held_out(labels, 0.1, 50, seed=0)
    assert [int(chosen[np.array(labels) == c].sum()) for c in range(4)] == [4, 1, 0, 50]
    assert np.array_equal(chosen, held_out(labels, 0.1, 50, seed=0))
    assert not np.array_equal(chosen, held_out(labels, 0.1, 50, seed=1))


def evaluate(right_on, test_labels):
    """The metric on two held-out and three test images; row i of ``right_on``: which held-out images head i solves."""
    probes = [Probe(1, 'cls', False, lr) for lr in (0.1, 0.2, 0.3)]
    metric = ProbeAccuracy()
    batch = []
    for image in range(2):
        answers = torch.tensor([0 if right_on[head][image] else 1 for head in range(3)])
        batch.append(dict(probe_part='choose', probes=probes, probe_pred=answers, gt_label=torch.tensor([0])))
    for label in test_labels:
        answers = torch.tensor([0, 1, 2])
        batch.append(dict(probe_part='report', probes=probes, probe_pred=answers, gt_label=torch.tensor([label])))
    metric.process(None, batch)
    return metric.evaluate(len(batch)), metric.details


def test_the_test_set_has_no_say_in_the_choice():
    right_on = [(True, False), (True, True), (False, False)]
    metrics, details = evaluate(right_on, [1, 1, 0])
    assert metrics['probe/best_head'] == 'last1_cls_lr0.2' and metrics['probe/held_out_top1'] == 100
    assert metrics['accuracy/top1'] == pytest.approx(200 / 3)
    other, _ = evaluate(right_on, [2, 2, 2])  # the test set now favours the third head
    assert other['probe/best_head'] == 'last1_cls_lr0.2' and other['accuracy/top1'] == 0
    assert [h['held_out_top1'] for h in details['heads']] == [50, 100, 0]
    assert [h['test_top1'] for h in details['heads']] == pytest.approx([100 / 3, 200 / 3, 0])
    with pytest.raises(ValueError, match="no image of part 'report'"):
        evaluate(right_on, [])
    with pytest.raises(ValueError, match='probe_part=None'):
        ProbeAccuracy().process(None, [dict()])


# ---------------------------------------------------------------- the recipe


@pytest.fixture
def image_folders(tmp_path, monkeypatch):
    """Three classes of one colour each; eight training and two validation images at <root>/{train,val}/<class>/."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'images'
    for split, count in (('train', 8), ('val', 2)):
        for label, name in enumerate(('ant', 'bee', 'cat')):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 80, (40, 48, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(folder / f'{index}.png')
    monkeypatch.setenv('IMAGENET_ROOT', str(root))
    return root


def small(work_dir, **options):
    loaders = {}
    for split in ('train', 'val', 'test'):
        loaders |= {f'{split}_dataloader.num_workers': 0, f'{split}_dataloader.persistent_workers': False}
    cfg = Config.fromfile(RECIPE)
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'experiment_name': work_dir.parent.name + work_dir.name,
            'env_cfg.dist_cfg.backend': 'gloo',
            'model.backbone.arch': dict(ARCH, _delete_=True),
            'model.backbone.img_size': 32,
            'model.head.num_classes': 3,
            'train_dataloader.batch_size': 12,
            'train_dataloader.dataset.pipeline.1.scale': 32,
            'val_dataloader.batch_size': 4,
            'val_dataloader.dataset.datasets.0.pipeline.1.scale': 36,
            'val_dataloader.dataset.datasets.0.pipeline.2.crop_size': 32,
            'val_dataloader.dataset.datasets.1.pipeline.1.scale': 36,
            'val_dataloader.dataset.datasets.1.pipeline.2.crop_size': 32,
            'train_cfg.max_iters': 2,
            'default_hooks.logger.interval': 1,
            **loaders,
            **options,
        }
    )
    return cfg


def part(name, folder='train', **options):
    return ProbeImages(name, data_root=str(folder), data_prefix='', pipeline=[], **options)


def paths(dataset):
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def test_parts_of_a_folder_are_disjoint_and_complete(image_folders):
    options = dict(fraction=0.25, at_most=50, seed=4)
    fit, choose = (paths(part(p, image_folders / 'train', **options)) for p in ('fit', 'choose'))
    assert choose == paths(part('choose', image_folders / 'train', **options))
    assert len(choose) == 6 and not set(fit) & set(choose)
    assert set(fit) | set(choose) == {str(p) for p in (image_folders / 'train').rglob('*.png')}
    assert sorted(Path(p).parent.name for p in choose) == ['ant'] * 2 + ['bee'] * 2 + ['cat'] * 2
    assert len(part('report', image_folders / 'val')) == 6
    with pytest.raises(ValueError, match="part='test': use one of"):
        part('test', image_folders / 'val')
    with pytest.raises(ValueError, match='fraction=1.0 must be between'):
        part('fit', image_folders / 'train', fraction=1.0)


def test_recipe_states_the_protocol():
    cfg = Config.fromfile(RECIPE)
    assert cfg.custom_hooks[0] == dict(
        type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95
    )
    assert cfg.train_cfg.max_iters == 12500 and cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_dataloader.batch_size * 8 == 1024 and cfg.optim_wrapper.optimizer.lr == 1024 / 256
    assert cfg.train_pipeline[1].interpolation == cfg.test_pipeline[1].interpolation == 'bicubic'
    assert (len(cfg.model.head.lrs), min(cfg.model.head.lrs), max(cfg.model.head.lrs)) == (13, 1e-5, 0.1)
    run_sheet = RECIPE.read_text().split('"""')[1]
    for text in ('tools/dist_train.sh configs/linear/vitb_quick_probe.py', 'Published', 'Cost'):
        assert text in run_sheet


def test_recipe_trains_on_class_folders_and_writes_all_heads(tmp_path, image_folders):
    source = VisionTransformer(arch=ARCH, img_size=32, patch_size=16)
    torch.nn.init.normal_(source.pos_embed, std=0.02)
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}}, checkpoint)
    runner = Runner.from_cfg(small(tmp_path / 'run', **{'init': str(checkpoint)}))
    runner.train()

    assert runner.iter == 2 and len(runner.train_dataloader.dataset) == 21
    for name, tensor in source.state_dict().items():
        assert torch.equal(runner.model.backbone.state_dict()[name], tensor), name
    found = json.loads((tmp_path / 'run' / 'probe_heads.json').read_text())
    assert found['iteration'] == 2 and found['images'] == {'held_out': 3, 'test': 6} and len(found['heads']) == 156
    best = max(found['heads'], key=lambda head: head['held_out_top1'])
    assert found['best_head'] == best['name']
    scalars = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    training, last = json.loads(scalars[0]), json.loads(scalars[-1])
    assert last['accuracy/top1'] == pytest.approx(best['test_top1'])
    assert len([key for key in training if 'loss' in key]) == 1, 'no line for each head'
    # The cosine of two iterations ended at zero, from lr = 4 x the head's own.
    group = runner.optim_wrapper.optimizer.param_groups[12]
    assert group['initial_lr'] == pytest.approx(0.4) and group['lr'] == pytest.approx(0.2, rel=1e-3)


def test_different_divisions_stop_before_training(tmp_path, image_folders):
    runner = Runner.from_cfg(small(tmp_path / 'run', **{'train_dataloader.dataset.seed': 1}))
    with pytest.raises(ValueError, match='must divide the same folder'):
        runner.train()
