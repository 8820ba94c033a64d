"""tools/test.py measures a checkpoint that holds the whole model, and stops for any other."""

import json

import pytest
import torch
from built_recipes import CONFIGS
from downstream import ARCH, FINETUNE, IMAGE_OPTIONS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.whole import check_whole
from mim_mm.engine.start.launch import test_main as evaluate  # under this name pytest would collect it
from mim_mm.registry import MODELS

pytestmark = pytest.mark.slow

SMALL = {
    **{k: v for k, v in IMAGE_OPTIONS.items() if k.startswith(('model.', 'val_'))},
    'model.backbone.arch': dict(ARCH, _delete_=True),
    'test_dataloader.dataset.pipeline.1.scale': 36,
    'test_dataloader.dataset.pipeline.2.crop_size': 32,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'test_evaluator.topk': (1,),
    'data_preprocessor.num_classes': 3,
}


@pytest.fixture
def small(tmp_path, image_folders):
    """The fine-tuning recipe at test size as a file, and the tensors of its model."""
    cfg = Config.fromfile(CONFIGS / FINETUNE)
    cfg.merge_from_dict(SMALL)
    cfg.experiment_name = tmp_path.name
    cfg.dump(tmp_path / 'small.py')
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    return tmp_path / 'small.py', MODELS.build(cfg.model).state_dict()


def call(config, state, folder, top='state_dict'):
    path = folder / 'a.pth'
    torch.save({top: state, 'meta': {}} if top else state, path)
    evaluate([str(config), str(path), '--work-dir', str(folder / 'run')])


def test_the_whole_model_is_measured(small, tmp_path):
    config, state = small
    head = {'head.fc.weight': state['head.fc.weight'] * 0, 'head.fc.bias': torch.tensor([0.0, 0.0, 1.0])}
    state = {**state, **head}
    call(config, {f'module.{n}': v for n, v in state.items()}, tmp_path)  # as saved from inside DDP
    (written,) = (tmp_path / 'run').glob('*/*.json')
    assert json.loads(written.read_text())['accuracy/top1'] == pytest.approx(100 / 3)  # class 2 of 3, whatever it sees


HEAD = ('head.fc.weight', 'head.fc.bias')


@pytest.mark.parametrize(
    'change, top, match',
    [
        (lambda s: dict(s, **{HEAD[0]: torch.zeros(7, 32), HEAD[1]: torch.zeros(7)}), 'state_dict',
         'size mismatch for head.fc.weight'),
        (lambda s: {**{n: v for n, v in s.items() if n.startswith('backbone')}, 'decoder.mask_token': torch.zeros(1)},
         'state_dict', 'head.fc.weight'),
        (lambda s: {n: v for n, v in s.items() if n != 'backbone.ln2.bias'}, 'state_dict', 'backbone.ln2.bias'),
        (lambda s: dict(s, **{'backbone.layers.0.attn.gamma1.weight': torch.ones(32)}), 'state_dict', 'gamma1.weight'),
        (dict, 'model', 'are not in it'),  # mmengine would find none of it and measure random weights
    ],
)  # fmt: skip
def test_anything_unfilled_or_left_over_stops(small, tmp_path, capsys, change, top, match):
    config, state = small
    with pytest.raises(SystemExit) as stopped:
        call(config, change(state), tmp_path, top)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and 'error: ' in error and match in error and 'is not of this model' in error
    assert not list((tmp_path / 'run').glob('*/*.json'))


def test_which_tensors_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = model.state_dict()
    check_whole(model, {f'module.{n}': v for n, v in state.items() if 'num_batches' not in n}, 'a.pth')
    with pytest.raises(LoadError, match=r'1 tensors of the model are not in it: 1.running_var'):
        check_whole(model, {n: v for n, v in state.items() if n != '1.running_var'}, 'a.pth')
    with pytest.raises(LoadError, match=r'1 tensors of the file have no place: scale'):
        check_whole(model, dict(state, scale=torch.ones(1)), 'a.pth')
