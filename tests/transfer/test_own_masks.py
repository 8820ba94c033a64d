"""``tools/transfer.py --images --masks``: what is written, what is refused."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from own_chain import chain_of
from own_place import arguments, picture, write_place
from PIL import Image

from mim_mm.transfer import ChainError, load_chain
from mim_mm.transfer.own.own_options import OwnData


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    for i in range(10):
        picture(tmp_path / 'labelled' / 'images' / f'{i}.png', seed=i)
        path = tmp_path / 'labelled' / 'masks' / f'{i}.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.kron(np.array([[0, 3], [7, 255]], np.uint8), np.ones((20, 24), np.uint8))).save(path)
    return write_place(tmp_path)


def own(place, **options):
    settings = dict(images=str(place / 'tree'), masks=str(place / 'labelled'), method=str(place / 'tiny.py'))
    return OwnData(**{**settings, **options})


def test_what_is_written(place):
    said = []
    chain = load_chain(chain_of(own(place), arguments(place), said.append))
    assert [(s.name, s.kind, s.init) for s in chain.stages] == [
        ('pretrain', 'pretrain', None), ('segment', 'seg', 'pretrain'), ('segment_scratch', 'seg', None),
        ('report', 'report', None),
    ]  # fmt: skip
    assert chain['segment_scratch'].options == {'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.0}
    assert chain['segment'].artifacts[0].name == 'segments'
    text = '\n'.join(said)
    assert 'masks      3 classes, 8 training and 2 validation images (0.2 of the images, divided by seed 0)' in text
    assert 'pixels of the number 255 are not learnt' in text
    cfg = Config.fromfile(chain['segment'].config)
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    assert cfg.model.backbone.arch.num_layers == 4 and cfg.model.backbone.out_indices == (0, 1, 2, 3)
    assert cfg.model.neck.embed_dim == cfg.model.decode_head.channels == 32
    assert cfg.train_pipeline[1] == dict(type='mim_mm.LoadMask', values=(0, 3, 7), ignored=(255,))
    assert cfg.test_pipeline[2] == cfg.train_pipeline[1], 'behind Resize'
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_cfg.max_iters == 500 and cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 25


def test_other_sizes_and_one_channel(place):
    options = dict(image_size=16, channels=1)
    cfg = Config.fromfile(load_chain(chain_of(own(place, **options), arguments(place)))['segment'].config)
    assert cfg.model.backbone.img_size == 256 == cfg.model.test_cfg.crop_size[0], '16 of 32 px, and so 256 of 512'
    assert cfg.train_pipeline[3].crop_size == (256, 256) and cfg.test_pipeline[1].scale == (1024, 256)
    assert cfg.model.backbone.in_channels == 1 and len(cfg.model.data_preprocessor.mean) == 1
    assert cfg.train_pipeline[0].color_type == 'grayscale'
    assert 'PhotoMetricDistortion' not in [step.type for step in cfg.train_pipeline]


def test_it_trains(place):
    pytest.importorskip('mmseg', reason='the extra [seg]')
    from mmengine.registry import init_default_scope

    from mim_mm.registry import DATASETS, MODELS

    cfg = Config.fromfile(load_chain(chain_of(own(place, image_size=16), arguments(place)))['segment'].config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    items = [dataset[i] for i in (0, 1)]
    assert len(dataset) == 8
    labels = {int(value) for item in items for value in item['data_samples'].gt_sem_seg.data.unique()}
    assert labels <= {0, 1, 2, 255} and len(labels) > 1
    batch = dict(inputs=[i['inputs'] for i in items], data_samples=[i['data_samples'] for i in items])
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in model.decode_head.parameters())


@pytest.mark.parametrize(
    'options, said',
    [
        (dict(method='configs/emae/emae_hivitb_300e.py'), 'no recipe for HiViT'),
        (dict(masks='/nowhere'), 'must hold images/ and masks/'),
        (dict(val_fraction=1.0), 'between 0 and 1'),
    ],
)
def test_what_is_refused(place, options, said):
    with pytest.raises(ChainError, match=said):
        chain_of(own(place, **options), arguments(place))
