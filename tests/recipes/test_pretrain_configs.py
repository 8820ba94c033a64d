"""Every pretraining recipe: its model builds at full size, its schedule and run sheet hold together."""

import ast
import contextlib
import re
from pathlib import Path

import pytest
import torch
from built_recipes import load, meta

from mim_mm.engine.start import guard
from mim_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / 'configs/emae').glob('*.py')) + sorted((ROOT / 'configs/mae').glob('*.py'))


@pytest.mark.parametrize('path', RECIPES, ids=lambda p: p.stem)
def test_recipe(path):
    cfg = load(path)
    guard.check_config(cfg)
    # The file name says what is inside.
    name = re.fullmatch(r'(emae|mae)_(hi)?vit([sblh])_(\d+)e(?:_k(\d+))?(_fsdp)?(_progressive|_weight1)?', path.stem)
    assert cfg.model.type.lower() == name[1]
    assert cfg.train_cfg.max_epochs == int(name[4])
    assert cfg.param_scheduler[0].end == 40 and 'end' not in cfg.param_scheduler[1]
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size * accumulated
    if name[1] == 'emae':
        assert cfg.model.masker == dict(type='ParallelMasking', num_parts=int(name[5] or 4))
        assert cfg.model.consistency_weight == (1 if name[7] == '_weight1' else 0.1)
    with torch.device('cpu' if name[2] else 'meta'):  # shapes are what matters; HiViT reads values while it is built
        model = MODELS.build(cfg.model)
    assert model.grid.num_patches == (256 if name[3] == 'h' else 196)
    if not name[2]:
        assert model.grid.embed_dims == {'s': 384, 'b': 768, 'l': 1024, 'h': 1280}[name[3]]
    assert bool(name[6]) == (cfg.get('runner_type') == 'mim_mm.ShardedRunner') == ('strategy' in cfg)
    decoder = sum(p.numel() for p in model.decoder.decoder_blocks.parameters())
    assert decoder == 8 * (12 * 512**2 + 13 * 512)  # qkv, proj, MLP x4, their biases and two LayerNorms


@pytest.mark.parametrize('path', RECIPES, ids=lambda p: p.stem)
def test_run_sheet(path):
    sheet = ast.get_docstring(ast.parse(path.read_text()))
    assert f'tools/dist_train.sh configs/{path.parent.name}/{path.name} 8' in sheet
    for line in ('Published: ', 'Cost: '):
        assert line in sheet, line


@pytest.mark.parametrize(
    'path',
    [p for folder in ('linear', 'finetune', 'coco', 'demo') for p in sorted((ROOT / 'configs' / folder).glob('*.py'))],
    ids=lambda p: f'{p.parent.name}-{p.stem}',
)
def test_downstream_models_build_from_our_registry(path):
    """Without a default scope, as somebody would who reads a config in a script."""
    cfg = load(path)
    guard.check_config(cfg)
    with contextlib.nullcontext() if path.parent.name == 'demo' else meta():
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 1e5
    if cfg.model.type not in ('EMAE', 'MAE'):
        assert cfg.custom_hooks[0].type == 'mim_mm.LoadPretrainedHook' and cfg.custom_hooks[0].checkpoint is None
