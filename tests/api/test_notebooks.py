"""The notebooks run from the first cell to the last, small: their cells as they stand, with other parameters."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from forget import forget
from matplotlib import pyplot as plt
from tiny_run import ROOT

NOTEBOOKS = ROOT / 'docs' / 'notebooks'


def cells_of(name):
    content = json.loads((NOTEBOOKS / name).read_text())
    assert content['nbformat'] == 4
    return [cell for cell in content['cells'] if cell['cell_type'] == 'code']


def run(name, **parameters):
    """The variables that the notebook leaves; ``parameters`` take the place of what its first cell sets."""
    found = {'__name__': '__main__'}
    for cell in cells_of(name):
        source = ''.join(cell['source'])
        exec(compile(source, f'{name}, {cell["id"]}', 'exec'), found)
        if 'parameters' in cell['metadata'].get('tags', ()):
            assert set(parameters) <= set(found), 'a parameter that the notebook does not have'
            found.update(parameters)
    return found


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two classes that differ in brightness, and the same images without labels; nothing is left in this process."""
    for part, count in (('train', 6), ('val', 4)):
        for label in range(2):
            for i in range(count):
                path = tmp_path / 'labelled' / part / f'class{label}' / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(10 * i + label).integers(0, 120, (36, 36, 3)) + 130 * label
                cv2.imwrite(str(path), pixels.astype(np.uint8))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    yield tmp_path
    plt.close('all')
    forget('column_masks')


def test_notebooks_are_kept_without_outputs():
    names = sorted(path.name for path in NOTEBOOKS.glob('*.ipynb'))
    assert names == ['own_images.ipynb', 'own_masker.ipynb']
    assert not any(cell['outputs'] or cell['execution_count'] for name in names for cell in cells_of(name))


def test_from_own_images_to_a_probe(images):
    found = run('own_images.ipynb', images=str(images / 'labelled'), labelled=str(images / 'labelled'),
                work_dir=str(images / 'work'), options={'train_cfg.max_iters': 2})  # fmt: skip
    assert found['checkpoint'].is_file() and (images / 'work' / 'report.html').is_file()
    assert found['encoder'].report.fraction == 1 and found['cls'].shape[1] == 128
    for name in ('pretrained', 'random'):
        result = found['results'][name]
        assert result['images'] == dict(train=12, val=8)
        assert result['logistic']['mean'] == 100, 'dark and bright images, told apart by any features'
    weights = [e.backbone.patch_embed.projection.weight for e in (found['encoder'], found['control'])]
    assert not torch.equal(*weights)


def test_a_masker_of_ones_own(images):
    found = run('own_masker.ipynb', images=str(images / 'labelled'), work_dir=str(images / 'work'), iterations=2)
    record = json.loads((images / 'work' / 'chain' / 'pretrain' / 'run.json').read_text())
    assert record['status'] == 'done' and 'column_masks' in record['code']
    mask = found['plan'].mask[:, 0].view(6, 8, 8)
    assert (mask == mask[:, :1]).all() and (mask[:, 0, ::2] != mask[:, 0, 1::2]).all()
    assert (images / 'work' / 'masks.png').stat().st_size > 1000 and found['checkpoint'].name == 'iter_2.pth'
