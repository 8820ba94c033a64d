"""Every method's own checkpoint goes on in our downstream stages: whatever else it holds is known to be no encoder."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mim_mm.checkpoint.load import load_encoder
from mim_mm.registry import MODELS

FOLDER = Path(__file__).resolve().parents[2] / 'configs/evidence'
RECIPES = sorted(path.stem for path in FOLDER.glob('pretrain_*.py'))


def test_every_method_has_a_small_recipe():
    """So that a new one is met here."""
    from mim_mm.algorithms.base import Pretraining

    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    small = {MODELS.get(Config.fromfile(FOLDER / f'{name}.py').model.type) for name in RECIPES}
    ours = {kind for kind in below(Pretraining) if kind.__module__.startswith('mim_mm.algorithms.')}
    # those with a tokenizer, SimMIM, whose encoder a test of its own follows into its recipes, DINO's masked sibling
    named = {kind.__name__ for kind in ours if MODELS.get(kind.__name__) is kind}
    assert named - {kind.__name__ for kind in small} <= {'BEiT', 'CAE', 'SimMIM', 'MaskedDINO'}


@pytest.mark.parametrize('name', RECIPES)
def test_the_encoder_and_its_teacher_load_from_the_checkpoint(name, tmp_path):
    torch.manual_seed(0)
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    model = MODELS.build(copy.deepcopy(cfg.model))
    for parameter in model.parameters():
        parameter.data.normal_()
    state = model.state_dict()
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'epoch_1.pth')
    prefixes = [prefix for prefix in ('backbone.', 'teacher.backbone.') if any(k.startswith(prefix) for k in state)]
    assert prefixes
    for prefix in prefixes:
        encoder = MODELS.build(copy.deepcopy(cfg.model.backbone))
        report = load_encoder(encoder, tmp_path / 'epoch_1.pth', prefix=prefix)
        assert report.fraction == 1 and report.prefix == prefix
        for key, value in encoder.state_dict().items():
            assert torch.equal(value, state[prefix + key]), key
