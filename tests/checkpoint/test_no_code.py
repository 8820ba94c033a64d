"""Nothing that reads a checkpoint runs code of it: every entry point, every kind of malicious file, no marker."""

import logging
import runpy
import sys
import types
from pathlib import Path

import malicious
import pytest
import torch
from built_recipes import CONFIGS
from downstream import ARCH, FINETUNE, IMAGE_OPTIONS, write_image_folders
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, FlexibleRunner, Runner, load_checkpoint
from mmengine.runner import checkpoint as upstream
from tiny_run import ROOT, SHRINK, TINY_ARCH
from torch import nn

from mim_mm.algorithms.visual_tokens import load_tokenizer
from mim_mm.checkpoint.read import LoadError
from mim_mm.engine.fsdp.fsdp_strategy import FSDPStrategy
from mim_mm.engine.start import launch
from mim_mm.engine.stop.exact_resume import ResumeError
from mim_mm.evaluation.pictures.detections import load_weights
from mim_mm.evaluation.pictures.mask_gallery import MaskView
from mim_mm.evaluation.quality.quality_watch import WatchCall, measure_checkpoint

pytestmark = pytest.mark.slow
LOADERS_OFF = {f'{split}_dataloader.{key}': value for split in ('train', 'val', 'test')
               for key, value in (('num_workers', 0), ('persistent_workers', False))}  # fmt: skip


class Place:
    """A folder with images, configs, and what a pretraining of one epoch saved."""

    def __init__(self, folder):
        self.folder = folder
        self.images = write_image_folders(folder / 'images')
        self.calls = 0
        options = {k: v for k, v in SHRINK.items() if k != 'model.backbone.arch'}
        options |= {'train_dataloader.dataset.data_root': str(self.images / 'train'), 'train_cfg.max_epochs': 1,
                    'train_dataloader.dataset.data_prefix': '', 'param_scheduler.0.end': 1,
                    'param_scheduler.1.begin': 1, 'train_dataloader.batch_size': 24}  # fmt: skip
        self.pretrain = self._config('pretrain.py', CONFIGS / 'emae/emae_vitb_800e.py', options, TINY_ARCH)
        options = {**IMAGE_OPTIONS, **LOADERS_OFF, 'test_dataloader.dataset.pipeline.1.scale': 36,
                   'test_dataloader.dataset.pipeline.2.crop_size': 32, 'test_evaluator.topk': (1,),
                   'data_preprocessor.num_classes': 3, 'data_root': str(self.images)}  # fmt: skip
        options = {k: v for k, v in options.items() if k != 'data_root'}
        self.finetune = self._config('finetune.py', CONFIGS / FINETUNE, options, ARCH)
        self.runner({'train_cfg.max_epochs': 1}).train()
        self.content = torch.load(next(folder.glob('*/epoch_1.pth')), weights_only=True)

    def _config(self, name, base, options, arch):
        cfg = Config.fromfile(base)
        cfg.merge_from_dict(options)
        cfg.model.backbone.arch = dict(arch)
        cfg.dump(self.folder / name)
        return self.folder / name

    def work_dir(self):
        self.calls += 1
        return str(self.folder / f'run{self.calls}')

    def runner(self, options, kind=Runner):
        cfg = Config.fromfile(self.pretrain)
        cfg.merge_from_dict({'train_cfg.max_epochs': 2, **options})
        cfg.work_dir = self.work_dir()
        cfg.experiment_name = f'{self.folder.name}_{self.calls}'
        return kind.from_cfg(cfg)

    def words(self, *more):
        work_dir = self.work_dir()
        return ['--work-dir', work_dir, *more, '--cfg-options', f'experiment_name={self.folder.name}_{self.calls}']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp('place'))


def tool(name, *words):
    sys.argv = [name, *map(str, words)]
    runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')


def train(place, path, *words):
    launch.train_main([str(place.pretrain), *place.words(*words), 'train_cfg.max_epochs=2'])


def train_from(place, path):
    launch.train_main([str(place.pretrain), *place.words(), f'load_from={path}'])


def fine_tune(place, path):
    words = place.words('--data-root', str(place.images))
    launch.train_main([str(place.finetune), *words, f'init={path}', 'train_cfg.max_epochs=1'])


def measure_whole(place, path):
    launch.test_main([str(place.finetune), str(path), *place.words('--data-root', str(place.images))])


def frozen(name, *words):
    def call(place, path):
        data = [word.format(images=place.images) for word in words or ('--data-root', '{images}')]
        tool(name, place.finetune, path, *data, '--workers', 0, '--device', 'cpu', '--work-dir', place.work_dir())

    return call


def watch(place, path):
    settings = dict(data=str(place.images), workers=0, crop=32, probe=dict(blocks=(1,), iters=2, batch_size=4))
    Path(place.work_dir()).mkdir()
    measure_checkpoint(WatchCall(str(place.folder / f'run{place.calls}'), str(place.pretrain), settings), path)


def backbone(place, path, prefix='backbone.'):
    init_default_scope('mmpretrain')
    init = dict(type='Pretrained', checkpoint=str(path), prefix=prefix)
    model = ROOT_MODELS.build(dict(type='mmpretrain.VisionTransformer', arch=TINY_ARCH, img_size=32, patch_size=8,
                                   out_type='raw', init_cfg=init))  # fmt: skip
    model.init_weights()


def averaged(place, path):
    hook = dict(type='EMAHook', momentum=0.1)
    place.runner({'custom_hooks': [hook], 'resume': True, 'load_from': str(path)}).train()


def sharded(place, path):
    """FSDPStrategy's own reading, below FlexibleRunner's resume; no processes are needed for either."""
    strategy = types.SimpleNamespace(
        logger=logging.getLogger('quiet'), load_model_state_dict=lambda *a, **k: None, _resuming=True,
    )  # fmt: skip
    strategy.resume = lambda name, callback, **_: FSDPStrategy.load_checkpoint(strategy, name, callback=callback)
    runner = types.SimpleNamespace(
        strategy=strategy, cfg=Config(), call_hook=lambda *a, **k: None, world_size=1,
        logger=logging.getLogger('quiet'),
        train_loop=types.SimpleNamespace(), train_dataloader=types.SimpleNamespace(dataset=None), epoch=1, iter=1,
        message_hub=types.SimpleNamespace(load_state_dict=lambda state: None), _auto_scale_lr=None,
    )  # fmt: skip
    FlexibleRunner.resume(runner, str(path))


def inferencer(place, path):
    BaseInferencer._init_model(types.SimpleNamespace(), None, str(path))


def from_address(place, path):
    upstream.load_url(f'https://example.org/{path.name}', model_dir=str(path.parent))


ENTRIES = {
    'train --resume': lambda place, path: train(place, path, '--resume', str(path)),
    'train load_from': train_from,
    'plain Runner resume': lambda place, path: place.runner({'resume': True, 'load_from': str(path)}).train(),
    'plain Runner load_from': lambda place, path: place.runner({'load_from': str(path)}).train(),
    'EMAHook resume': averaged,
    'init=': fine_tune,
    'tools/test.py': measure_whole,
    'knn': frozen('knn.py'),
    'lowshot': frozen('lowshot.py'),
    'label_free': frozen('label_free.py', '--images', '{images}/train', '--views', '2'),
    'transfer_sets': frozen('transfer_sets.py', '--sets', 'a={images}', '--k', '1'),
    'watch': watch,
    'visualize_reconstruction': lambda place, path: tool(
        'visualize_reconstruction.py', place.pretrain, path, place.images / 'val', '--out', place.work_dir() + '.png'
    ),
    'visualize_masks': lambda place, path: MaskView(place.pretrain, path),
    'draw_detections': lambda place, path: load_weights(nn.Linear(1, 1), path),
    'import_weights': lambda place, path: tool('import_weights.py', path, place.work_dir() + '.pth'),
    'export': lambda place, path: tool('export.py', path, '--to', 'timm', '--out', place.work_dir()),
    'init_cfg of a backbone': backbone,
    'init_cfg without prefix': lambda place, path: backbone(place, path, None),
    'FSDP resume': sharded,
    'load_checkpoint of mmengine': lambda place, path: load_checkpoint(nn.Linear(1, 1), str(path)),
    'CheckpointLoader': lambda place, path: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
    'an address': from_address,
    'an inferencer of weights alone': inferencer,
    'tokenizer': lambda place, path: load_tokenizer(dict(type='mmpretrain.DALL-E'), str(path)),
}
# These take the file whose weights are fine and whose config is code; the others say why it is not theirs.
RUN = {
    'train --resume', 'train load_from', 'plain Runner resume', 'plain Runner load_from', 'watch',
    'visualize_reconstruction', 'visualize_masks', 'init_cfg of a backbone', 'FSDP resume',
    'load_checkpoint of mmengine', 'CheckpointLoader', 'an address',
}  # fmt: skip


@pytest.mark.parametrize('kind', malicious.KINDS)
@pytest.mark.parametrize('entry', ENTRIES)
def test_no_code(place, tmp_path, monkeypatch, capfd, entry, kind):
    monkeypatch.setattr(sys, 'argv', sys.argv)
    marker = tmp_path / 'ran'
    path = malicious.write(kind, tmp_path, place.content, marker)
    error = None
    try:
        ENTRIES[entry](place, path)
    except (LoadError, ResumeError, ValueError) as found:  # what the tools turn into one line
        error = str(found)
    except SystemExit as found:
        error = str(found) + capfd.readouterr().err
    assert not marker.exists(), f'{entry} ran code of the file'
    if kind == 'config' and entry in RUN:
        assert error is None
    elif kind != 'config':
        said = ('cannot be read', 'more than tensors', 'without a config', 'is cut off')  # the last by --resume's look
        assert path.name in error and any(words in error for words in said), error


@pytest.fixture
def trusted_file(place, tmp_path):
    return malicious.write('object', tmp_path, place.content, tmp_path / 'ran')


def test_a_config_may_trust(place, tmp_path, trusted_file):
    place.runner({'load_from': str(trusted_file), 'trust_pickle': True}).train()
    assert (tmp_path / 'ran').exists()
    with pytest.raises(LoadError, match='trust_pickle'):  # that run alone
        place.runner({'load_from': str(trusted_file)}).train()


@pytest.mark.parametrize('entry', ['train', 'visualize_reconstruction'])
def test_a_tool_may_trust(place, tmp_path, monkeypatch, trusted_file, entry):
    monkeypatch.setattr(sys, 'argv', sys.argv)
    if entry == 'train':
        train(place, trusted_file, '--trust-pickle', '--resume', str(trusted_file))
    else:
        tool('visualize_reconstruction.py', place.pretrain, trusted_file, place.images / 'val', '--trust-pickle',
             '--out', place.work_dir() + '.png')  # fmt: skip
    assert (tmp_path / 'ran').exists()


@pytest.mark.parametrize('hook', ['CheckpointHook', 'mim_mm.AtomicCheckpointHook'])
def test_what_a_training_writes_resumes_without_trust(place, hook):
    """mmengine's own form as well, with log buffers and numpy; and the config in it is still there to be shown."""
    runner = place.runner({'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.type': hook})
    runner.train()
    path = Path(runner.work_dir, 'epoch_1.pth')
    resumed = place.runner({'resume': True, 'load_from': str(path), 'default_hooks.checkpoint.type': hook})
    resumed.train()
    assert resumed.epoch == 2 and resumed.iter == 2 * runner.iter
    assert 'max_epochs' in resumed.load_checkpoint(str(path))['meta']['cfg']
