"""``mim_mm::`` names, and the messages of upstream that are left out: those and no others."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine import hub
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mim_mm import registry, utils
from mim_mm.compat import paths, recipes

NAMES = (
    'emae/emae_vits_300e.py', 'beit/beit_vitb_300e.py', 'linear/vits_linear_90e.py', 'linear/vitb_quick_probe.py',
    'finetune/vits_finetune_200e.py', 'coco/mask_rcnn_vits_fpn_lsj_100e.py',
)  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_a_recipe_by_name_is_the_recipe_by_path(name, tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'mim_mm::{name}'\n")
    mine, theirs = Config.fromfile(tmp_path / 'mine.py'), Config.fromfile(paths.configs_root() / name)
    assert mine._cfg_dict.to_dict() == theirs._cfg_dict.to_dict()
    assert hub.get_config(f'mim_mm::{name}')._cfg_dict.to_dict() == theirs._cfg_dict.to_dict()


def test_bases_of_other_packages_keep_their_scope(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = ['mmpretrain::_base_/models/mae_vit-base-p16.py']\n")
    assert Config.fromfile(tmp_path / 'mine.py').model._scope_ == 'mmpretrain'


def test_a_name_without_a_recipe_says_what_is_near(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mim_mm::emae/emae_vits_300.py'\n")
    with pytest.raises(FileNotFoundError, match='near it: emae/emae_vits_300e.py'):
        Config.fromfile(tmp_path / 'mine.py')
    assert recipes.find('emae/emae_vits_300e') == recipes.find('emae/emae_vits_300e.py')


def test_models_are_built_from_a_name():
    with torch.device('meta'):
        model = hub.get_model('mim_mm::emae/emae_vits_300e.py')
    assert type(model).__name__ == 'EMAE' and model.backbone.embed_dims == 384
    with pytest.raises(ValueError, match='no weights are published'):
        hub.get_model('mim_mm::emae/emae_vits_300e.py', pretrained=True)
    utils.register_all_modules(init_default_scope=False)
    assert {'EMAE', 'WindowedViT', 'FrozenProbe'} <= set(registry.MODELS.module_dict)


def test_mmpretrain_finds_every_model_that_is_not_a_detector():
    """Its get_model looks names up in its own scope, whatever the recipe's default is."""
    from mmpretrain.registry import MODELS

    found = {}
    for path in sorted(paths.configs_root().glob('*/*.py')):
        if path.parent.name in ('_base_', 'chains', 'coco', 'seg') or path.stem == 'mask_rcnn':
            continue
        model = Config.fromfile(path).model
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            with MODELS.switch_scope_and_registry(model.get('_scope_')) as scope:
                found[f'{path.parent.name}/{path.stem}'] = scope.get(model.type)
    assert len(found) > 60 and not [name for name, kind in found.items() if kind is None]


def test_a_shortened_recipe_trains_without_our_tools(image_folder, tmp_path):
    """Two epochs, less than the warm-up, by mmengine's Runner alone; the rate follows the shortened schedule."""
    from tiny_run import SHRINK, TINY_ARCH

    (tmp_path / 'mine.py').write_text("_base_ = 'mim_mm::emae/emae_vits_300e.py'\n")
    cfg = Config.fromfile(tmp_path / 'mine.py')
    cfg.merge_from_dict({**SHRINK, 'train_cfg.max_epochs': 2, 'work_dir': str(tmp_path / 'run')})
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.model.backbone.arch = dict(TINY_ARCH)
    cfg.train_dataloader.dataset.update(data_root=str(image_folder), data_prefix='')
    cfg.experiment_name = tmp_path.name
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 4 and runner.optim_wrapper.get_lr()['base_lr'][0] < cfg.optim_wrapper.optimizer.lr / 2


def test_another_packages_schedule_is_left_alone():
    from mim_mm.compat.schedulers import _is_ours

    assert _is_ours(Config.fromfile(recipes.find(NAMES[0])))
    assert not _is_ours(Config(dict(custom_imports=dict(imports=['other'])))) and not _is_ours(Config())


NOISE = """
import logging, sys, warnings
{imports}
from mmengine.logging import print_log
from mmengine.fileio import FileClient
FileClient.infer_client(uri='/tmp/x')
{uses}
print('--')
print_log('OneDL is a name', level=logging.WARNING)
print_log('"FileClient" is another', logger='current', level=logging.WARNING)
warnings.warn('faster_coco_eval is installed')
"""


EVERYTHING = """
import mmdet.datasets.transforms, mmdet.evaluation.metrics
from mim_mm import registry
for value in vars(registry).values():
    if isinstance(value, registry.Registry):
        value.import_from_location()
"""


@pytest.mark.parametrize('imports, uses', [('import mim_mm', EVERYTHING), ('import mmengine, mim_mm', '')])
def test_noise_is_left_out_and_nothing_else(imports, uses):
    code = [sys.executable, '-c', NOISE.format(imports=imports, uses=uses)]
    done = subprocess.run(code, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split('--\n')
    assert 'OneDL' not in before and 'not installed' not in before + done.stderr
    assert 'will be deprecated' not in before + after + done.stderr
    assert 'OneDL is a name' in after and '"FileClient" is another' in after + done.stderr
    assert 'faster_coco_eval is installed' in done.stderr


ONCE = """
{imports}
from mmengine.config import Config
for _ in range(3):
    print(Config.fromfile('{file}').root)
os.environ['SOME_ROOT'] = '/c'
print(Config.fromfile('{file}').root)
"""


@pytest.mark.parametrize('imports', ['import os, mim_mm', 'import os, mmengine.config, mim_mm'])
def test_a_variable_of_a_config_is_named_once(tmp_path, imports):
    file = tmp_path / 'config.py'
    file.write_text("root = r'{{$SOME_ROOT:/a}}'\n")
    code = [sys.executable, '-c', ONCE.format(imports=imports, file=file)]
    done = subprocess.run(code, text=True, capture_output=True, env=dict(os.environ, SOME_ROOT='/b'))
    assert done.returncode == 0, done.stderr
    values = [line for line in done.stdout.splitlines() if line.startswith('/')]
    assert values == ['/b', '/b', '/b', '/c']
    said = [line for line in done.stdout.splitlines() + done.stderr.splitlines() if 'SOME_ROOT' in line]
    assert len(said) == 2 and '/b' in said[0] and '/c' in said[1]


def test_importing_mim_mm_imports_nothing_large():
    code = "import sys, mim_mm; print([m for m in ('torch', 'mmengine', 'mmcv', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


NEW_STYLE = """
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.model import ImgDataPreprocessor
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import RandomResizedCrop
from mmpretrain.models import VisionTransformer
from torch.optim import AdamW

from mim_mm.algorithms.emae import EMAE
from mim_mm.data.unlabelled import PackImage, UnlabelledImages
from mim_mm.decoders.mae_decoder import MAEDecoder
from mim_mm.engine.hooks.progress import ProgressHook
from mim_mm.masking.parallel import ParallelMasking

tiny = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
model = dict(
    type=EMAE,
    data_preprocessor=dict(type=ImgDataPreprocessor, mean=[110.0] * 3, std=[64.0] * 3),
    backbone=dict(type=VisionTransformer, arch=tiny, img_size=32, patch_size=8, out_type='raw'),
    masker=dict(type=ParallelMasking, num_parts=4),
    decoder=dict(type=MAEDecoder, embed_dims=32, depth=1, num_heads=2),
)
steps = [dict(type=LoadImageFromFile), dict(type=RandomResizedCrop, scale=32), dict(type=PackImage)]
train_dataloader = dict(
    batch_size=5,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate),
    dataset=dict(type=UnlabelledImages, data_root={root!r}, pipeline=steps),
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=1)
custom_hooks = [dict(type=ProgressHook)]
"""


def test_new_style_configs_train_with_our_tool(image_folder, tmp_path, monkeypatch):
    """``type`` is a class there, and everything the file imports is a key of the config."""
    from mim_mm.engine.start import launch

    made = []
    monkeypatch.setattr(launch, '_build_runner', lambda cfg: made.append(Runner.from_cfg(cfg)) or made[0])
    (tmp_path / 'new.py').write_text(NEW_STYLE.format(root=str(image_folder)))
    launch.train_main([str(tmp_path / 'new.py'), '--work-dir', str(tmp_path / 'run'), '--amp'])
    (runner,) = made
    assert runner.iter == 2 and type(runner.optim_wrapper).__name__ == 'AutocastOptimWrapper'
    assert [type(hook).__name__ for hook in runner.hooks].count('ProgressHook') == 1
