"""Maps of the encoder, depth of the parameters and labels of the pixels, against plain restatements."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mim_mm  # noqa: F401  (before anything that wants mmcv's compiled operations)

pytest.importorskip('mmseg', reason='the extra [seg]')

from built_recipes import CONFIGS
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from recipe_table import batch_for, build, load, narrow

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.encoders import grid_of
from mim_mm.folders import DataError
from mim_mm.registry import MODELS
from mim_mm.segmentation.mask_pairs import LoadMask
from mim_mm.segmentation.metric import ExactIoUMetric

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
VIT = dict(type='mmpretrain.VisionTransformer', arch=ARCH, patch_size=16, final_norm=True)


def vit(size, **options):
    torch.manual_seed(0)
    model = MODELS.build(dict(VIT, img_size=size, **options))
    model.init_weights()
    for parameter in model.parameters():  # biases and norms, too
        torch.nn.init.normal_(parameter, std=0.2)
    model.train(False)
    return model


def saved(model, path):
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in model.state_dict().items()}), path)
    return path


def test_the_fine_tuned_encoder_begins_as_the_pretrained_one(tmp_path):
    """Zero relative positions and layer scales of one change nothing: the maps are those of the plain ViT."""
    plain = vit(64, out_type='featmap', out_indices=[0, 3])
    path = saved(plain, tmp_path / 'mae.pth')
    recipe = load('seg/upernet_vitb_160k').model.backbone
    recipe.update(arch=ARCH, img_size=64, out_indices=(0, 3), drop_path_rate=0.0)
    tuned = MODELS.build(recipe)
    tuned.init_weights()
    report = load_encoder(tuned, path, grid=grid_of(tuned))
    assert report.fraction == 1.0 and not report.random
    assert set(report.kinds) == {'ln1.weight', 'ln1.bias'}
    plain.final_norm = False
    tuned.train(False)
    images = torch.randn(2, 3, 64, 64)
    for ours, theirs in zip(tuned(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_positions_of_another_size_and_a_layer_scale_that_would_change_the_encoder(tmp_path):
    path = saved(vit(32), tmp_path / 'mae.pth')
    recipe = load('seg/upernet_vitb_160k').model.backbone
    recipe.update(arch=ARCH, img_size=64, out_indices=(3,))
    tuned = MODELS.build(recipe)
    report = load_encoder(tuned, path, grid=grid_of(tuned))
    assert report.fraction == 1.0 and list(report.resized) == ['pos_embed'] and tuned.pos_embed.shape == (1, 17, 32)
    recipe.layer_scale_init_value = 0.1
    with pytest.raises(LoadError, match='gamma_1'):
        load_encoder(MODELS.build(recipe), path)


def test_normed_maps_share_the_final_norm():
    plain = vit(64, out_type='raw', out_indices=[1, 3])
    plain.final_norm = False
    normed = MODELS.build(dict(VIT, type='mim_mm.NormedMaps', img_size=64, out_indices=[1, 3]))
    normed.load_state_dict(plain.state_dict())
    normed.train(False)
    images = torch.randn(2, 3, 64, 32)
    for ours, tokens in zip(normed(images), plain(images), strict=True):
        wanted = plain.ln1(tokens)[:, 1:].transpose(1, 2).reshape(2, 32, 4, 2)
        torch.testing.assert_close(ours, wanted)


def test_frozen_segmentor_reads_blocks_of_an_encoder_that_stays(tmp_path):
    cfg = narrow(load('seg/linear_vitb_160k'))
    model = build(cfg)
    batch = batch_for(cfg, (64, 64), 2)
    assert not model.backbone.training and not any(p.requires_grad for p in model.backbone.parameters())
    inputs = model.data_preprocessor(batch, True)['inputs']
    plain = MODELS.build(dict(cfg.model.backbone, out_type='raw', out_indices=list(range(12))))
    plain.load_state_dict(model.backbone.state_dict())
    plain.final_norm = False
    plain.train(False)
    tokens = plain(inputs)
    maps = model.extract_feat(inputs)
    assert len(maps) == 4
    for found, block in zip(maps, (3, 5, 7, 11)):
        wanted = plain.ln1(tokens[block])[:, 1:].reshape(2, 4, 4, 32).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, wanted)
    scores = model.decode_head(maps)  # one linear map of the four, joined
    head = model.decode_head.conv_seg
    joined = torch.cat(maps, dim=1)
    torch.testing.assert_close(
        scores, torch.einsum('oc,bchw->bohw', head.weight[..., 0, 0], joined) + head.bias[None, :, None, None]
    )
    with pytest.raises(ValueError, match='ascending'):
        MODELS.build(dict(cfg.model, blocks=(5, 3)))


def test_layer_decay_knows_the_depth_of_every_parameter():
    cfg = narrow(load('seg/upernet_vitb_160k'))
    model = build(cfg)
    cfg.optim_wrapper.optimizer.pop('fused')
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: g for g in wrapper.optimizer.param_groups for p in g['params']}
    assert found.keys() == set(names.values())
    for name, depth in (('backbone.patch_embed.projection.weight', 0), ('backbone.pos_embed', 0),
                        ('backbone.layers.0.attn.qkv.weight', 1), ('backbone.layers.11.ffn.layers.1.weight', 12),
                        ('neck.upsample_2x.0.weight', 13), ('decode_head.conv_seg.weight', 13)):  # fmt: skip
        assert found[name]['lr'] == pytest.approx(1e-4 * 0.65 ** (13 - depth))
    flat = {n for n, g in found.items() if g['weight_decay'] == 0}
    assert flat == {
        n for n, p in model.named_parameters() if p.ndim == 1 or n.split('.')[-1] in ('pos_embed', 'cls_token')
    }
    assert found['backbone.layers.3.attn.relative_position_bias_table']['weight_decay'] == 0.05


def mmsegs_own(cfg):
    """The segmentation that mmseg's MAE recipe is made of, in the sizes of a narrowed recipe of ours."""
    theirs = Config(dict(model=cfg.model.to_dict())).model
    arch = cfg.model.backbone.arch
    theirs.type = 'EncoderDecoder'
    theirs.backbone = dict(
        type='mmseg.MAE', img_size=(64, 64), patch_size=16, embed_dims=arch.embed_dims, num_layers=arch.num_layers,
        num_heads=arch.num_heads, mlp_ratio=arch.feedforward_channels // arch.embed_dims, init_values=1.0,
        out_indices=[3, 5, 7, 11], norm_cfg=dict(type='LN', eps=1e-6),
    )  # fmt: skip
    theirs.decode_head.type, theirs.auxiliary_head.type = 'UPerHead', 'FCNHead'
    return build(Config(dict(model=theirs.to_dict(), default_scope='mmseg')))


def joined_biases(state):
    """BEiT's biases of queries and values as one; that of the keys shifts all logits of a query alike: zero."""
    found = {n: v for n, v in state.items() if n.split('.')[-1] not in ('q_bias', 'v_bias')}
    for name in [n for n in state if n.endswith('q_bias')]:
        query, stem = state[name], name.removesuffix('q_bias')
        found[f'{stem}qkv.bias'] = torch.cat([query, torch.zeros_like(query), state[f'{stem}v_bias']])
    return found


def test_model_loss_and_groups_are_those_of_mmsegs_mae_recipe():
    """Its own backbone, heads and constructor, with relative positions and layer scales off their start, in fp64."""
    cfg = narrow(load('seg/upernet_vitb_160k'))
    cfg.model.backbone.drop_path_rate = 0.0
    cfg.model.decode_head.dropout_ratio = cfg.model.auxiliary_head.dropout_ratio = 0.0
    ours, theirs = build(cfg).double(), mmsegs_own(cfg).double()
    torch.manual_seed(0)
    state = {n: torch.randn_like(v) * 0.1 if v.is_floating_point() else v for n, v in ours.state_dict().items()}
    state = {n: v.abs() + 0.1 if n.endswith('running_var') else v for n, v in state.items()}
    ours.load_state_dict(state)
    theirs.load_state_dict(joined_biases(state))
    batch = batch_for(cfg, (64, 64), 2)
    losses, gradients = [], []
    for model in (ours, theirs):
        data = model.data_preprocessor(batch, True)
        loss, _ = model.parse_losses(model(data['inputs'].double(), data['data_samples'], mode='loss'))
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    wanted = joined_biases(gradients[0])
    for name, gradient in gradients[1].items():
        # a bias in front of a BatchNorm has no gradient but for rounding
        torch.testing.assert_close(wanted[name], gradient, rtol=1e-9, atol=1e-13, msg=name)
    groups = []
    for model, constructor, options in (
        (ours, cfg.optim_wrapper.constructor, cfg.optim_wrapper.paramwise_cfg),
        (theirs, 'LayerDecayOptimizerConstructor', dict(num_layers=12, layer_decay_rate=0.65)),
    ):
        optimizer = dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
        wrapper = dict(type='OptimWrapper', optimizer=optimizer, constructor=constructor, paramwise_cfg=options)
        names = {id(p): n for n, p in model.named_parameters()}
        made = build_optim_wrapper(model, wrapper).optimizer.param_groups
        groups.append({names[id(p)]: (g['lr'], g['weight_decay']) for g in made for p in g['params']})
    free = {'backbone.pos_embed', 'backbone.cls_token'}  # exempt here; there by names that do not match
    for name, (rate, decay) in groups[1].items():
        name = name.replace('qkv.bias', 'q_bias')
        assert groups[0][name] == (pytest.approx(rate), 0.0 if name in free else decay), name


def test_heads_must_agree_about_the_classes():
    cfg = narrow(load('seg/upernet_vitb_160k'))
    cfg.model.decode_head.num_classes = 7
    with pytest.raises(ValueError, match=r'7 \(decode_head\) and 150 \(auxiliary_head\)'):
        build(cfg)


@pytest.mark.parametrize('size', [(64, 64), (100, 80), (40, 150), (30, 20)])
def test_a_prediction_has_the_size_of_its_file(size):
    """Sliding windows of an encoder for 64 px, smaller images too."""
    cfg = narrow(load('seg/upernet_vitb_160k'))
    model = build(cfg)
    model.train(False)
    batch = batch_for(cfg, size, 1)
    batch['data_samples'][0].set_metainfo(dict(ori_shape=(50, 70)))
    with torch.no_grad():
        (found,) = model.test_step(batch)
    assert found.pred_sem_seg.data.shape == (1, 50, 70)


def test_scores_are_in_fp32_under_autocast():
    model = build(narrow(load('seg/upernet_vitb_160k')))
    with torch.autocast('cpu', torch.bfloat16):
        maps = model.extract_feat(torch.randn(2, 3, 64, 64))
        assert maps[0].dtype == torch.bfloat16
        assert {head(maps).dtype for head in model.heads().values()} == {torch.float32}


def test_it_learns_what_is_labelled():
    """Dark is one class, bright the other; what is not labelled teaches nothing, and is no class afterwards."""
    cfg = narrow(load('seg/upernet_vitb_160k'))
    cfg.model.decode_head.num_classes = cfg.model.auxiliary_head.num_classes = 2
    torch.manual_seed(0)
    model = build(cfg)
    batch = batch_for(cfg, (64, 64), 2)
    for image in batch['inputs']:
        image[..., :21], image[..., 32:] = image[..., :21] // 4, 192 + image[..., 32:] // 4
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=3e-3)))
    losses = [float(model.train_step(batch, wrapper)['loss'].detach()) for _ in range(40)]
    assert losses[-1] < 0.2 * losses[0]
    model.train(False)
    with torch.no_grad():
        found = [sample.pred_sem_seg.data[0] for sample in model.test_step(batch)]
    for labels, sample in zip(found, batch['data_samples']):
        truth = sample.gt_sem_seg.data[0]
        assert (labels == truth)[truth != 255].float().mean() > 0.9


# ---- labels


def ade(folder, labels):
    for part in ('training', 'validation'):
        for top in ('images', 'annotations'):
            (folder / top / part).mkdir(parents=True)
        rng = np.random.default_rng(1)
        Image.fromarray(rng.integers(0, 256, (*labels.shape, 3), np.uint8)).save(folder / 'images' / part / 'a.jpg')
        Image.fromarray(labels).save(folder / 'annotations' / part / 'a.png')
    return folder


def test_labels_of_ade20k(tmp_path, monkeypatch):
    """0 is not learnt, n is class n - 1; scaling invents no label, and the truth of a test keeps its size."""
    from mmseg.registry import DATASETS

    labels = np.kron(np.array([[0, 1, 150], [7, 0, 150]], np.uint8), np.ones((60, 80), np.uint8))
    monkeypatch.setenv('ADE20K_ROOT', str(ade(tmp_path, labels)))
    cfg = Config.fromfile(CONFIGS / 'seg' / 'upernet_vitb_160k.py')
    init_default_scope('mmseg')
    test = DATASETS.build(cfg.val_dataloader.dataset)[0]
    wanted = np.where(labels == 0, 255, labels.astype(int) - 1)
    assert torch.equal(test['data_samples'].gt_sem_seg.data[0], torch.as_tensor(wanted))
    assert min(test['inputs'].shape[1:]) == 512
    train = DATASETS.build(cfg.train_dataloader.dataset)
    seen = set()
    for _ in range(8):
        found = train[0]['data_samples'].gt_sem_seg.data
        assert found.shape[1:] <= (512, 512)
        seen |= set(found.unique().tolist())
    assert seen == {0, 6, 149, 255}


def test_load_mask_gives_each_number_its_place(tmp_path):
    numbers = np.array([[0, 7, 300], [2, 255, 7]], np.uint16)
    Image.fromarray(numbers).save(tmp_path / 'm.png')
    results = dict(seg_map_path=str(tmp_path / 'm.png'), ori_shape=(2, 3), seg_fields=[])
    step = LoadMask(values=(7, 0, 300), ignored=(255, 2))
    assert step(dict(results))['gt_seg_map'].tolist() == [[1, 0, 2], [255, 255, 0]]
    with pytest.raises(DataError, match='has the number 300, which is no class'):
        LoadMask(values=(7, 0, 2), ignored=(255,))(dict(results))
    with pytest.raises(DataError, match='is 3 x 2 px, its image 2 x 3'):
        step(dict(results, ori_shape=(3, 2)))
    with pytest.raises(ValueError, match='different numbers'):
        LoadMask(values=(1, 255))


def test_miou_is_that_of_a_confusion_matrix():
    """Of all pixels together; a class that neither has is left out, one that is missed counts 0."""
    rng = np.random.default_rng(0)
    classes, matrix = 6, np.zeros((6, 6), np.int64)
    metric = ExactIoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=list('abcdef'))
    for size in ((30, 40), (7, 9), (1, 1)):
        truth, found = rng.integers(0, 4, size), rng.integers(0, 5, size)  # class 5 never, class 4 only predicted
        truth[rng.random(size) < 0.3] = 255
        for t, f in zip(truth.ravel(), found.ravel()):
            if t != 255:
                matrix[t, f] += 1
        sample = dict(
            pred_sem_seg=dict(data=torch.as_tensor(found)[None]), gt_sem_seg=dict(data=torch.as_tensor(truth)[None])
        )
        metric.process({}, [sample])
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    ious = [matrix[c, c] / union[c] for c in range(classes) if union[c]]
    accuracies = [matrix[c, c] / matrix[c].sum() for c in range(classes) if matrix[c].sum()]
    found = metric.compute_metrics(metric.results)
    assert len(ious) == 5
    assert found['mIoU'] == pytest.approx(100 * np.mean(ious), abs=0.0051)
    assert found['mAcc'] == pytest.approx(100 * np.mean(accuracies), abs=0.0051)
    assert found['aAcc'] == pytest.approx(100 * matrix.trace() / matrix.sum(), abs=0.0051)
    with pytest.raises(DataError, match='labels 0 to 6, but there are 6 classes'):
        ExactIoUMetric.intersect_and_union(torch.zeros(2, dtype=int), torch.tensor([0, 6]), 6, 255)


def test_counts_stay_whole_where_fp32_would_not():
    """2**24 + 1 pixels of a class, as a training set of a few hundred images has."""
    count = torch.tensor([2.0**24], dtype=torch.float64)
    one = ExactIoUMetric.intersect_and_union(torch.zeros(1, dtype=int), torch.zeros(1, dtype=int), 1, 255)
    assert float(count + one[0]) == 2**24 + 1
