"""The text of a config in a checkpoint is read as data, or not at all."""

import pytest
from built_recipes import CONFIGS
from mmengine.config import Config

from mim_mm.checkpoint.config_text import parse_config


@pytest.mark.parametrize('name', ['emae/emae_vitb_800e.py', 'coco/mask_rcnn_vitb_fpn_lsj_100e.py',
                                  'linear/vitb_linear_90e.py', 'mae/mae_vith_1600e_fsdp.py'])  # fmt: skip
def test_what_mmengine_writes_is_read_as_mmengine_reads_it(name):
    text = Config.fromfile(CONFIGS / name).pretty_text
    assert parse_config(text) == Config.fromstring(text, '.py').to_dict()


def test_every_kind_of_value():
    text = "a = dict(b=[-1, 2.5, 'x' 'y'], c=(1, ), d={'e.f': None}, g={1, 2}, h=dict(), i=True, j=b'k')\nl = set()\n"
    scope = {}
    exec(text, scope)  # Python's own reading
    assert parse_config(text) == {name: scope[name] for name in ('a', 'l')}


@pytest.mark.parametrize('text', [
    'import os', 'a = open("x", "w")', 'a = dict(b=print(1))', 'a = b', 'a = [x for x in ()]', 'a = dict(**{"b": 1})',
    'a = dict([(1, 2)])', 'a, b = 1, 2', 'a.b = 1', 'a = "x".upper()', 'a = f"{1}"', 'a = 1 + 1', 'a = -"x"',
    'print(1)', 'a = {[]: 1}', 'a = {**{}}', 'a = lambda: 0', 'def a(): pass', 'a = (', '\0', '(' * 10000,
    'a = set([1])', None, 7,
], ids=lambda text: str(text)[:20])  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError):
        parse_config(text)
