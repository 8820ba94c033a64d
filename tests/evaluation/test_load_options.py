"""The tools on frozen features, the watcher and the hook take an encoder from a file in one way, and say how."""

import argparse
import logging
from types import SimpleNamespace

import pytest
import torch
from frozen_data import VIT, write_classes
from mmpretrain.registry import MODELS as MMPRETRAIN
from watched import VIT as WATCHED
from watched import save, write_run

from mim_mm.checkpoint.load import LoadError
from mim_mm.engine.hooks.load_hook import LoadPretrainedHook
from mim_mm.evaluation.frozen import command
from mim_mm.evaluation.quality.quality_watch import WatchCall, measure_checkpoint


def state_of(value, kind=VIT, **options):
    model = MMPRETRAIN.build(dict(kind, **options))
    state = {n: torch.full_like(v, value) for n, v in model.state_dict().items()}
    return {**state, 'patch_embed.projection.weight': torch.randn_like(state['patch_embed.projection.weight'])}


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / 'data')


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


@pytest.fixture
def frozen(tmp_path, root, capsys):
    """What tools/knn.py and tools/lowshot.py do first with a checkpoint; gives the features and what was printed."""
    kind = {k: v for k, v in VIT.items() if 'drop' not in k}
    (tmp_path / 'tiny.py').write_text(f'default_scope = "mmpretrain"\nmodel = dict(type="X", backbone={kind!r})\n')

    def call(checkpoint, *words):
        parser = argparse.ArgumentParser()
        command.add_feature_arguments(parser)
        words = [str(tmp_path / 'tiny.py'), str(checkpoint), '--data-root', str(root), '--workers', '0', *words]
        args = parser.parse_args([*words, '--device', 'cpu', '--work-dir', str(tmp_path / 'w')])
        train, _, _ = command.frozen_features(args)
        return train, capsys.readouterr().out

    return call


def test_tools_print_the_load_report_also_of_stored_features(tmp_path, frozen):
    trained = dict(state_of(0.1), mask_token=torch.zeros(1))
    torch.save({'model': trained, 'model_ema': state_of(0.2)}, tmp_path / 'a.pth')
    for reused in (False, True):
        train, said = frozen(tmp_path / 'a.pth')
        assert train.provenance['reused'] is reused
        assert "Entry 'model' of the file was taken" in said and 'mask_token  (mask token)' in said
        assert '100.00 % of what a pretraining' in said
    other, said = frozen(tmp_path / 'a.pth', '--entry', 'model_ema')
    assert "'model_ema' of the file was taken (as asked)" in said and other.provenance['reused'] is False
    assert not torch.equal(other.get('mean'), train.get('mean'))
    assert 'Random encoder, seed 0' in frozen('random')[1]


def test_tools_stop_where_the_encoder_does_not_fit(tmp_path, frozen):
    torch.save(state_of(0.1, layer_scale_init_value=0.1), tmp_path / 'a.pth')
    with pytest.raises(LoadError, match='layer_scale_init_value'):
        frozen(tmp_path / 'a.pth')
    assert 'named in skip' in frozen(tmp_path / 'a.pth', '--skip', 'gamma[12]')[1]
    part = {n: v for n, v in state_of(0.1).items() if n != 'layers.1.ln1.bias'}
    torch.save(part, tmp_path / 'part.pth')
    assert 'random    layers.1.ln1.bias' in frozen(tmp_path / 'part.pth', '--min-loaded', '0.9')[1]
    with pytest.raises(LoadError, match='leaves 1 parameter of the model.*layers.1.ln1.bias'):
        frozen(tmp_path / 'part.pth')  # what was stored for those who allow a part is not taken


def test_the_watcher_too(run, capsys):
    path = save(run, 1)
    content = torch.load(path)
    content['state_dict']['backbone.layers.0.attn.q_norm.weight'] = torch.ones(8)
    torch.save(content, path)
    with pytest.raises(LoadError, match='q_norm.*(?s:.*)not supported'):
        measure_checkpoint(WatchCall(str(run)), path)
    measure_checkpoint(WatchCall(str(run), skip=('q_norm',)), path)
    assert 'q_norm.weight  (named in skip)' in capsys.readouterr().out
    averaged = {f'backbone.{n}': v for n, v in state_of(0.2, WATCHED).items()}
    torch.save(dict(content, model_ema=averaged), path)
    measure_checkpoint(WatchCall(str(run), entry='model_ema'), path)
    assert "'model_ema' of the file was taken" in capsys.readouterr().out


def test_the_hook_takes_the_entry_that_it_is_given(tmp_path):
    torch.save({'model': state_of(0.1), 'model_ema': state_of(0.2)}, tmp_path / 'a.pth')
    model = torch.nn.ModuleDict(dict(backbone=MMPRETRAIN.build(dict(VIT))))
    runner = SimpleNamespace(cfg={}, work_dir=str(tmp_path / 'run'), logger=logging.getLogger('hook'))
    LoadPretrainedHook(str(tmp_path / 'a.pth'), entry='model_ema')._load(runner, model)
    assert model['backbone'].cls_token[0, 0, 0].item() == pytest.approx(0.2)
    assert "entry 'model_ema'" in (tmp_path / 'run/load_report.txt').read_text()
