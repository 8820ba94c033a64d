"""The inferencers of mmpretrain and mmdet on what ``tools/transfer.py --images`` writes and on recipes of ours."""

import json

import numpy as np
import pytest
import recipe_table as table
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from own_chain import chain_of
from own_place import arguments, everything, small, write_place
from PIL import Image

from mim_mm.compat import paths
from mim_mm.data.decode import UnreadableImage
from mim_mm.data.own_images import with_channels
from mim_mm.transfer import load_chain


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    return write_place(tmp_path)


def untrained(cfg, path):
    """A checkpoint as a run writes it, with the weights of the start; returns the runner's model."""
    runner = Runner.from_cfg(cfg)
    runner.train_loop  # noqa: B018  builds the loader, whose classes go into the file
    runner.save_checkpoint(str(path.parent), path.name, save_optimizer=False, save_param_scheduler=False)
    torch.load(path, weights_only=True)
    return runner.model.eval()


@pytest.mark.parametrize('channels', [3, 1])
def test_classifier_and_features_on_own_data(place, channels):
    from mmpretrain import FeatureExtractor, ImageClassificationInferencer

    own = everything(place, channels=channels, boxes=None, boxes_images=None)
    chain = load_chain(chain_of(own, arguments(place)))
    config, file = chain['finetune'].config, place / 'finetune.pth'
    cfg = small(config, place / 'run')
    model = untrained(cfg, file)
    image = place / 'tree' / 'bee' / '2.png'
    inferencer = ImageClassificationInferencer(config, pretrained=str(file), device='cpu')
    by_path, by_array = inferencer([str(image), np.asarray(Image.open(image))[..., ::-1]], show_dir=place / 'drawn')
    assert inferencer.classes == ('ant', 'bee', 'cat') and by_path['pred_class'] in inferencer.classes
    np.testing.assert_allclose(by_path['pred_scores'], by_array['pred_scores'], atol=1e-6)
    assert (place / 'drawn' / '2.png').is_file()
    # The recipe's own loader. For grey images it decodes to grey (libpng's weights of R, G, B), an inferencer makes
    # grey what it has decoded to colour.
    sample = Runner.build_dataloader(cfg.test_dataloader).dataset[0]
    shown = sample['data_samples'].img_path
    with torch.no_grad():
        batch = dict(inputs=sample['inputs'][None], data_samples=[sample['data_samples']])
        wanted = model.test_step(batch)[0].pred_score.numpy()
    np.testing.assert_allclose(inferencer(shown)[0]['pred_scores'], wanted, atol=1e-2 if channels == 1 else 1e-6)
    features = FeatureExtractor(config, pretrained=str(file), device='cpu')(str(image))
    assert [tuple(f.shape) for f in features[0]] == [(32,)]


def test_detector_on_own_data(place):
    from mmdet.apis import DetInferencer

    boxes = json.loads((place / 'boxes.json').read_text())
    for annotation in boxes['annotations']:
        annotation.update(segmentation=[[2, 2, 32, 2, 32, 32, 2, 32]], area=900, iscrowd=0)
    (place / 'boxes.json').write_text(json.dumps(boxes))
    chain = load_chain(chain_of(everything(place, classes=None), arguments(place)))
    config = place / 'small.py'
    narrow = table.narrow(Config.fromfile(chain['detect'].config))
    narrow.model.test_cfg.rcnn.score_thr = 0.0
    narrow.dump(str(config))
    untrained(small(config, place / 'run'), place / 'detect.pth')
    inferencer = DetInferencer(str(config), weights=str(place / 'detect.pth'), device='cpu', show_progress=False)
    assert inferencer.model.dataset_meta['classes'] == ('four', 'nine')
    image = place / 'tree' / 'bee' / '0.png'
    found = inferencer(str(image), out_dir=str(place / 'out'), no_save_pred=False)['predictions'][0]
    assert set(found['labels']) <= {0, 1} and len(found['bboxes']) == len(found['scores']) > 0
    assert (place / 'out' / 'vis' / '0.png').is_file() and (place / 'out' / 'preds' / '0.json').is_file()
    by_array = inferencer(np.asarray(Image.open(image))[..., ::-1].copy(), return_vis=True)
    assert by_array['visualization'][0].shape == (40, 48, 3)
    np.testing.assert_allclose(by_array['predictions'][0]['scores'], found['scores'], atol=1e-5)


@pytest.mark.parametrize(
    'name', ['linear/vitb_dino_100e', 'linear/vitb_cae_attentive_90e', 'finetune/vits_finetune_200e']
)
def test_recipes_classify_and_give_features(name):
    from mmpretrain import FeatureExtractor, ImageClassificationInferencer, get_model

    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    model = get_model(table.narrow(table.load(name)))
    assert ImageClassificationInferencer(model)(image)[0]['pred_scores'].shape == (1000,)
    (feature,) = FeatureExtractor(model)(image)[0]
    assert feature.shape == (model.head.in_channels,)


def test_every_detection_recipe_can_be_shown():
    """What DetInferencer asks of a config: mmdet's visualizer and a loader it knows, the image's path kept."""
    names = [f'coco/{path.stem}' for path in sorted((paths.configs_root() / 'coco').glob('*.py'))] + ['demo/mask_rcnn']
    for name in names:
        cfg = table.load(name)
        steps = cfg.test_dataloader.dataset.pipeline
        assert cfg.visualizer.type == 'DetLocalVisualizer', name
        assert any(step.type.split('.')[-1] == 'LoadImageFromFile' for step in steps), name
        assert 'img_path' in steps[-1].get('meta_keys', ('img_path',)), name


def test_channels_of_a_decoded_image():
    grey, colour = np.full((2, 3), 7, np.uint8), np.zeros((2, 3, 3), np.uint8)
    colour[..., 1] = 100
    assert (with_channels(grey, 3) == 7).all() and with_channels(grey, 3).shape == (2, 3, 3)
    assert with_channels(grey[..., None], 1).shape == (2, 3) and with_channels(colour, 3) is colour
    assert (with_channels(colour, 1) == round(0.587 * 100)).all()
    with pytest.raises(UnreadableImage, match='3 channels was given, 4 are wanted'):
        with_channels(colour, 4)
