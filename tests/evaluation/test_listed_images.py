"""Few labelled images by a list or an own draw, and the low-shot and averaged recipes on them, through the Runner."""

import json

import pytest
import torch
from built_recipes import load
from downstream import IMAGE_OPTIONS, metrics_of, pretraining_checkpoint, small
from mmengine.runner import Runner

from mim_mm.registry import DATASETS

LIST = ['bee/3.png', 'ant/1.png', 'cat/0.png', 'bee/0.png']


def build(root, **options):
    return DATASETS.build(dict(type='mim_mm.LowShotImages', data_root=str(root), data_prefix='train', **options))


def names(dataset):
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {('/'.join(info['img_path'].split('/')[-2:]), info['gt_label']) for info in infos}


def test_a_list_chooses_the_images_and_all_classes_stay(tmp_path, image_folders):
    (tmp_path / 'few.txt').write_text('bee/3.png\n\nbee/0.png\n')
    dataset = build(image_folders, ann_file=str(tmp_path / 'few.txt'))
    assert names(dataset) == {('bee/3.png', 1), ('bee/0.png', 1)}
    assert dataset.metainfo['classes'] == ('ant', 'bee', 'cat')
    (image_folders / 'few.txt').write_text('cat/7.png')
    assert names(build(image_folders, ann_file='few.txt')) == {('cat/7.png', 2)}, 'relative to data_root'


def test_an_own_draw_takes_its_part_of_each_class(image_folders):
    first, same, other = (build(image_folders, fraction=0.25, seed=s) for s in (0, 0, 1))
    assert names(first) == names(same) and len(first) == 6  # 2 of 8 images, 3 classes
    assert sorted(label for _, label in names(other)) == [0, 0, 1, 1, 2, 2]


def test_refusals(tmp_path, image_folders):
    with pytest.raises(FileNotFoundError, match='LOWSHOT_LIST'):
        build(image_folders, ann_file='meta/1percent.txt')
    (tmp_path / 'few.txt').write_text('bee/3.png\ndog/0.png\n')
    with pytest.raises(ValueError, match='dog/0.png'):
        build(image_folders, ann_file=str(tmp_path / 'few.txt'))
    (tmp_path / 'bare.txt').write_text('3.png\n')
    with pytest.raises(ValueError, match='several classes'):
        build(image_folders, ann_file=str(tmp_path / 'bare.txt'))
    for options in ({}, dict(ann_file='few.txt', fraction=0.1)):
        with pytest.raises(ValueError, match='fraction'):
            build(image_folders, **options)


def test_low_shot_recipe_trains_on_the_listed_images_and_an_average_is_saved(tmp_path, monkeypatch, image_folders):
    (tmp_path / 'few.txt').write_text('\n'.join(LIST))
    monkeypatch.setenv('LOWSHOT_LIST', str(tmp_path / 'few.txt'))
    source = pretraining_checkpoint(tmp_path / 'epoch_1.pth')
    options = {
        **IMAGE_OPTIONS, 'init': str(tmp_path / 'epoch_1.pth'), 'train_dataloader.batch_size': 2,
        'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'default_hooks.checkpoint.interval': 1,
        'param_scheduler.0.end': 0.5, 'param_scheduler.1.begin': 0.5, 'optim_wrapper.optimizer.lr': 1e-2,
    }  # fmt: skip
    cfg = small(load('finetune/vitb_lowshot_10pct.py'), tmp_path / 'run', **options)
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.25))  # the recipe has none
    runner = Runner.from_cfg(cfg)
    weights = []
    original = runner.model.train_step

    def watched(*args, **kwargs):
        out = original(*args, **kwargs)
        weights.append(runner.model.backbone.layers[0].attn.qkv.weight.detach().clone())
        return out

    runner.model.train_step = watched
    runner.train()

    assert runner.iter == 2 and len(runner.train_dataloader.dataset) == 4
    assert json.loads((tmp_path / 'run' / 'load_report.json').read_text())['fraction'] == 1.0
    saved = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)
    name = 'backbone.layers.0.attn.qkv.weight'
    # the average starts with the weights after the first step, which come from the checkpoint and not from its random
    # copy made before; then 0.75 of it and 0.25 of the new ones
    wanted = 0.75 * weights[0] + 0.25 * weights[1]
    torch.testing.assert_close(saved['state_dict'][name], wanted)
    torch.testing.assert_close(saved['ema_state_dict'][f'module.{name}'], weights[1])
    assert (wanted - source.layers[0].attn.qkv.weight).abs().max() < 0.05
    assert any('accuracy/top1' in row for row in metrics_of(tmp_path / 'run'))
