"""What is counted on tensors without data against the same step on real ones, figures by hand, and former formulas."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from input_tokens import CAE_VIT, DALLE, NECK
from input_tokens import VIT as BEIT_VIT
from mmengine.config import Config
from mmengine.model import BaseModel
from processes import run
from tiny import DECODER, HIVIT, POST_NORM_VIT, VIT, images
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mim_mm.compat.paths import configs_root
from mim_mm.cost import work_of
from mim_mm.registry import MODELS

RANDOM = dict(type='RandomMasking', ratio=0.75)
SWIN = dict(
    type='mmpretrain.SimMIMSwinTransformer',
    arch=dict(embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4]),
    img_size=96,
    stage_cfgs=dict(block_cfgs=dict(window_size=3)),
    drop_path_rate=0.0,
)


def recipe(name):
    return Config.fromfile(str(configs_root() / name))._cfg_dict.to_dict()


def real_flops(run) -> float:
    """FLOPs by torch's counter; fused attention is not counted on a CPU, so the plain kernel runs."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def step(model, batch):
    losses = model(batch, mode='loss')
    return sum(value for key, value in losses.items() if 'loss' in key)


def autoencoder(kind, masker, backbone=VIT):
    decoder = dict(DECODER, input_norm='HiViT' in backbone['type'])
    return dict(type=kind, backbone=backbone, masker=masker, decoder=decoder)


PRETRAINING = {
    'mae': (autoencoder('MAE', RANDOM), 32),
    'emae': (autoencoder('EMAE', dict(type='ParallelMasking', num_parts=4)), 32),
    'parts of two lengths, packed': (autoencoder('EMAE', dict(type='ComplementaryMasking', num_parts=4)), 32),
    'overlapping parts': (autoencoder('EMAE', dict(type='IndependentMasking', num_parts=3), HIVIT), 32),
    'blocks': (autoencoder('MAE', dict(type='BlockMasking', ratio=0.5), HIVIT), 32),
    'attention, thrown patches': (
        autoencoder('MAE', dict(type='AttentionMasking', mask_ratio=0.45, throw_ratio=0.4)), 32),
    'features of a teacher': (
        dict(type='IJEPA', backbone=VIT, masker=RANDOM, predictor=dict(embed_dims=24, depth=1)), 32),
    'features of several blocks': (dict(type='data2vec', backbone=BEIT_VIT, masker=RANDOM, target_blocks=[0, 1]), 32),
    # one group: torch's counter takes the gradient of grouped weights for that of all of them (ours does not)
    'copies under one teacher': (
        dict(type='data2vec2', backbone=POST_NORM_VIT, decoder=dict(depth=2, groups=1), target_blocks=[0, 1],
             masker=dict(type='InverseBlockMasking', ratio=0.7, num_parts=3, block=2, adjust=0.1)), 32),
    'simmim vit': (dict(type='SimMIM', backbone=BEIT_VIT, masker=RANDOM, mask_unit=8), 32),
    'simmim swin': (dict(type='SimMIM', backbone=SWIN, masker=RANDOM, mask_unit=32), 96),
}  # fmt: skip


@pytest.mark.parametrize('name', PRETRAINING)
def test_pretraining_counts_as_on_real_images(name):
    settings, size = PRETRAINING[name]
    model = MODELS.build(copy.deepcopy(settings)).train()
    batch = images(2, size)
    work = work_of(dict(model=settings))
    assert 2 * work.train == real_flops(lambda: step(model, batch).backward())
    look = sum(part.forward for part in work.parts if part.name.endswith('without gradient'))
    assert 2 * (work.forward - look) <= real_flops(lambda: step(model, batch)) < 2 * work.forward * 1.02
    assert work.params == sum(p.numel() for p in model.parameters())
    assert work.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert work.kind == 'pretrain' and work.size == (size, size)


@pytest.mark.parametrize('kind', ['BEiT', 'CAE'])
def test_tokenizers_are_counted_without_their_file(kind, tmp_path):
    tokenizer = dict(DALLE, n_blk_per_group=1)
    torch.save({'state_dict': MODELS.build(copy.deepcopy(tokenizer)).state_dict()}, tmp_path / 'dalle.pth')
    settings = dict(type=kind, masker=dict(type='BlockMasking', ratio=0.5, fill='blocks'), tokenizer=tokenizer)
    more = dict(num_classes=11, regressor_depth=2, decoder_depth=1)
    settings |= dict(backbone=BEIT_VIT, vocabulary=11) if kind == 'BEiT' else dict(backbone=CAE_VIT, neck=NECK | more)
    two = dict(type='mmpretrain.RandomResizedCropAndInterpolationWithTwoPic', size=32, second_size=32,
               interpolation='bicubic', second_interpolation='bicubic', scale=(0.5, 1.0))  # fmt: skip
    pipeline = [dict(type='LoadImageFromFile'), two, dict(type='mmpretrain.PackInputs')]
    cfg = dict(model=dict(settings, data_preprocessor=dict(
        type='mmpretrain.TwoNormDataPreprocessor', mean=[0] * 3, std=[1] * 3, second_mean=[0] * 3,
        second_std=[1] * 3)), train_dataloader=dict(
            collate_fn=dict(type='default_collate'), dataset=dict(pipeline=pipeline)))  # fmt: skip
    work = work_of(cfg)
    model = MODELS.build(copy.deepcopy(dict(settings, tokenizer_checkpoint=str(tmp_path / 'dalle.pth')))).train()
    model.init_weights()
    views = [images(2), images(2, seed=9)]
    assert 2 * work.train == pytest.approx(real_flops(lambda: step(model, views).backward()), rel=0.02)
    frozen = [part for part in work.parts if part.name.startswith('tokenizer')]
    assert frozen and all(part.forward > 0 and part.backward == 0 == part.trainable for part in frozen)


@pytest.mark.parametrize('kind, masker', [
    ('DINO', None),
    ('iBOT', dict(type='BlockMasking', ratio=0.5)),
    ('iBOT', dict(type='DrawnRatio', ratio=None, share=1.0, masker=dict(type='AttMask', ratio=0.5))),
])  # fmt: skip
def test_all_views_of_an_image_are_counted(kind, masker):
    """Large ones by teacher and student, small ones by the student, as the pipeline makes them."""
    head = dict(out_dims=24, hidden_dims=16, bottleneck_dims=8)
    settings = dict(type=kind, backbone=VIT, head=head) | (dict(masker=masker) if masker else {})
    views = [dict(num=2, scale=32, crop_ratio_range=(0.4, 1.0)), dict(num=3, scale=16, crop_ratio_range=(0.1, 0.4))]
    steps = dict(LazyLoadImageFromFile={}, MultiCrop=dict(views=views), PackViews={})
    pipeline = [dict(type=f'mim_mm.{name}', **own) for name, own in steps.items()]
    loader = dict(collate_fn=dict(type='default_collate'), dataset=dict(pipeline=pipeline))
    normalise = dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3)
    model = MODELS.build(copy.deepcopy(settings)).train()
    work = work_of(dict(model=dict(settings, data_preprocessor=normalise), train_dataloader=loader))
    assert not [note for note in work.notes if 'pipeline' in note] and work.size == (32, 32)
    batch = [images(2, size) for size in (32, 32, 16, 16, 16)]
    assert 2 * work.train == pytest.approx(real_flops(lambda: step(model, batch).backward()), rel=0.01)
    taught = [part for part in work.parts if part.name.startswith('teacher.backbone')]
    assert sum(part.forward for part in taught) > 0 and all(part.backward == 0 for part in taught)


@pytest.mark.parametrize('kind', ['MoCoV3', 'MSN'])
def test_views_that_are_compared_are_counted(kind):
    """MoCo v3's two, by both encoders; MSN's target by the teacher, its anchors by the student."""
    settings = dict(type=kind, backbone=VIT, hidden_dims=16, out_dims=8)
    views = [dict(num=2, scale=32, crop_ratio_range=(0.3, 1.0))]
    if kind == 'MSN':
        settings |= dict(masker=dict(type='RandomMasking', ratio=0.25, shared=True), prototypes=12)
        views.append(dict(num=3, scale=16, crop_ratio_range=(0.1, 0.3)))
    steps = dict(LazyLoadImageFromFile={}, MultiCrop=dict(views=views), PackViews={})
    pipeline = [dict(type=f'mim_mm.{name}', **own) for name, own in steps.items()]
    loader = dict(collate_fn=dict(type='default_collate'), dataset=dict(pipeline=pipeline))
    normalise = dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3)
    model = MODELS.build(copy.deepcopy(settings)).train()
    work = work_of(dict(model=dict(settings, data_preprocessor=normalise), train_dataloader=loader))
    assert not [note for note in work.notes if 'pipeline' in note] and work.size == (32, 32)
    batch = [images(2, size) for size in [32, 32] + [16] * 3 * (kind == 'MSN')]
    assert 2 * work.train == pytest.approx(real_flops(lambda: step(model, batch).backward()), rel=0.01)
    taught = [part for part in work.parts if part.name.startswith('teacher.backbone')]
    assert sum(part.forward for part in taught) > 0 and all(part.backward == 0 for part in taught)


def test_a_context_of_several_targets_is_counted_once():
    settings = dict(
        type='IJEPA', backbone=VIT, predictor=dict(embed_dims=24, depth=1),
        masker=dict(type='MultiBlockMasking', num_targets=3, target_scale=(0.2, 0.3), min_keep=1),
    )  # fmt: skip
    work = work_of(dict(model=settings))
    seen, hidden, _ = MODELS.build(dict(settings['masker'])).counts(16)[0]
    one = work_of(dict(model=dict(settings, masker=dict(type='RandomMasking', ratio=1 - seen / 16))))
    assert work['backbone.layers'].forward == one['backbone.layers'].forward
    blocks = 3 * (1 + seen + hidden)  # tokens of the predictor, class token included
    linears = 24 * 24 * 12 * blocks + 2 * 24 * (1 + seen + hidden) * blocks
    assert work['predictor.predictor_blocks'].forward == pytest.approx(2 * linears, rel=0.02)


def test_the_pass_for_attention_is_apart():
    """Of two blocks it runs one and the query, key and value of the other, on all patches, without gradient."""
    work = work_of(dict(model=autoencoder('MAE', dict(type='AttentionMasking', mask_ratio=0.75))))
    look = work['backbone.layers without gradient']
    assert look.backward == 0 == look.params and 0 < look.forward
    plain = work_of(dict(model=autoencoder('MAE', RANDOM)))
    assert work.train - look.forward == plain.train


@pytest.mark.parametrize('masker, hidden', [
    (dict(type='SalienceMasking', ratio=dict(type='AdaptiveRatio', base=0.5, delta_r=0.1, threshold=0.5)), 8),
    (dict(type='SalienceMasking', ratio=0.75, random_epochs=3), 12),
    (dict(type='AttMask', ratio=(0.25, 0.75)), 8),
    (dict(type='BlockMasking', ratio=(0.25, 0.75)), 8),
])  # fmt: skip
def test_numbers_that_vary_count_by_the_middle(masker, hidden):
    work, plain = (work_of(dict(model=autoencoder('MAE', m))) for m in (masker, dict(RANDOM, ratio=hidden / 16)))
    assert f'hidden={hidden}/16' in work.model
    assert work['decoder.decoder_pred'].forward == plain['decoder.decoder_pred'].forward
    assert work['backbone.layers'].forward == plain['backbone.layers'].forward


def classifier(backbone, frozen_stages=-1):
    width = backbone['arch']['embed_dims'] * (8 if 'Swin' in backbone['type'] else 1)
    head = dict(type='mmpretrain.LinearClsHead', num_classes=7, in_channels=width)
    neck = dict(type='mmpretrain.GlobalAveragePooling') if 'Swin' in backbone['type'] else None
    backbone = dict(backbone, frozen_stages=frozen_stages)
    normalise = dict(type='mmpretrain.ClsDataPreprocessor')
    return dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head, data_preprocessor=normalise)


CLS_VIT = dict({k: v for k, v in VIT.items() if k != 'out_type'}, out_type='cls_token')
PADDED_SWIN = dict(SWIN, type='mmpretrain.SwinTransformer', img_size=64, pad_small_map=True)


@pytest.mark.parametrize('backbone', [CLS_VIT, PADDED_SWIN], ids=['ViT', 'Swin, padded windows'])
@pytest.mark.parametrize('frozen', [False, True])
def test_classifiers(backbone, frozen):
    from mmpretrain.structures import DataSample

    settings = classifier(backbone, (2 if backbone is CLS_VIT else 3) if frozen else -1)
    model = MODELS.build(copy.deepcopy(settings)).train()
    batch, labels = images(2, backbone['img_size']), [DataSample().set_gt_label(0) for _ in range(2)]
    work = work_of(dict(model=settings))
    assert 2 * work.train == real_flops(lambda: model.loss(batch, labels)['loss'].backward())
    if not frozen:
        assert work.kind == 'finetune' and work['head.fc'].backward == 2
    elif backbone is CLS_VIT:
        assert work.kind == 'linear' and work['head.fc'].backward == 1
        assert work['backbone.layers'].backward == 0 and work.trainable == 7 * 32 + 7


def test_quick_probe_counts_heads():
    head = dict(num_classes=5, blocks=(1, 2), norm=(False, True), lrs=(0.1, 0.2, 0.3))
    cfg = dict(model=dict(type='mim_mm.MultiProbe', backbone=CLS_VIT, head=head))
    work, model = work_of(cfg), MODELS.build(copy.deepcopy(cfg['model']))
    linears = [m for m in model.head.modules() if isinstance(m, nn.Linear)]
    assert work['head.linears'].params == sum(p.numel() for m in linears for p in m.parameters()) == work.trainable
    assert work['head.linears'].forward == 2 * sum(m.weight.numel() for m in linears)
    assert (work['head.linears'].backward, work.kind) == (1, 'probe')


WINDOWED = dict(
    type='mim_mm.WindowedViT',
    arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=96),
    patch_size=8,
    img_size=96,
    pretrain_img_size=64,
    window_size=5,
    global_attn_indexes=(1,),
)


def detector(**backbone):
    cfg = recipe('demo/mask_rcnn.py')
    cfg['model']['backbone'] = dict(WINDOWED, out_indices=(3,), **backbone)
    cfg['model']['neck']['in_channels'] = 32
    return cfg


def test_a_detector_by_its_modules():
    """Each module on real maps, on as many regions as the sampler may draw; recomputation runs forward twice."""
    cfg = detector(rel_pos='decomposed')
    work = work_of(cfg, 96)
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(ConfigDict(copy.deepcopy(cfg['model']))).train()
    batch, drawn = images(1, 96), cfg['model']['train_cfg']['rcnn']['sampler']['num']
    positive = int(drawn * cfg['model']['train_cfg']['rcnn']['sampler']['pos_fraction'])

    def run():
        maps = model.extract_feat(batch)
        sides = cfg['model']['roi_head']
        box, mask = (
            torch.randn(count, maps[0].shape[1], *[sides[f'{kind}_roi_extractor']['roi_layer']['output_size']] * 2)
            for count, kind in ((drawn, 'bbox'), (positive, 'mask'))
        )
        return model.rpn_head(maps), model.roi_head.bbox_head(box), model.roi_head.mask_head(mask)

    assert work.forward == pytest.approx(real_flops(run), rel=0.01)
    assert work.params == sum(p.numel() for p in model.parameters()) and work.kind == 'coco'
    again = work_of(detector(rel_pos='decomposed', with_cp=True), 96)
    assert again.forward == work.forward and again.saved < work.saved
    # torch stops a block's second pass at the last tensor that the backward pass needs, before its last linear layer
    assert 0.8 < (again.train - work.train) / again['backbone.layers'].forward < 1


@MODELS.register_module()
class Halves(BaseModel):
    """A method, a masker and a backbone that this package has never heard of."""

    def __init__(self, backbone, masker):
        super().__init__()
        self.backbone, self.masker = MODELS.build(backbone), MODELS.build(masker)
        self.guess = nn.Linear(5, 48)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        tokens = self.backbone(inputs)
        mask = self.masker(tokens).mask[:, 0]
        return dict(loss=self.guess(tokens[mask]).square().mean())


@MODELS.register_module()
class OneLinear(nn.Module):
    def __init__(self, img_size):
        super().__init__()
        self.project = nn.Conv2d(3, 5, 4, 4)

    def forward(self, x):
        return self.project(x).flatten(2).mT


@MODELS.register_module()
class FirstHalf:
    def __call__(self, tokens, generator=None):
        from mim_mm.masking import MaskPlan

        order = torch.arange(tokens.shape[1]).expand(len(tokens), 1, -1)
        return MaskPlan(order, (tokens.shape[1] // 4,))


def test_what_others_register_by_hand():
    """16 patches of 3 x 4 x 4 values to 5 channels; 12 of them are hidden and become 48 values."""
    work = work_of(dict(model=dict(type='Halves', backbone=dict(type='OneLinear', img_size=16),
                                   masker=dict(type='FirstHalf'))))  # fmt: skip
    project, guess = 2 * 16 * 48 * 5, 2 * 12 * 5 * 48
    assert (work['backbone.project'].forward, work['guess'].forward) == (project, guess)
    assert work.train == 2 * project + 3 * guess and work.params == 48 * 5 + 5 + 5 * 48 + 48
    assert work.model == 'Halves OneLinear 16px'


def test_what_cannot_be_counted_says_why():
    with pytest.raises(ValueError, match='YOLO.*not in'):
        work_of(dict(model=dict(type='YOLO')))
    with pytest.raises(ValueError, match='MAE.*VGG'):
        work_of(dict(model=autoencoder('MAE', RANDOM, dict(type='mmpretrain.VGG', depth=11))))
    odd = dict(type='Odd', backbone=dict(type='OneLinear', img_size=64))

    @MODELS.register_module(force=True)
    class Odd(BaseModel):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = MODELS.build(backbone)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            tokens = self.backbone(inputs)
            return dict(loss=tokens[tokens > 0].sum())

    with pytest.raises(ValueError, match='values that depend on the images'):
        work_of(dict(model=odd))


# model, kind, forward and training GFLOP an image, million parameters: by the formulas that stood here before the
# counting, one for each method and backbone, themselves compared with torch's counter on small models.
FORMER = json.loads((Path(__file__).parent / 'former_formulas.json').read_text())
QUICK = ('demo/', 'evidence/', '/mae_vitb_800e.', '/sbam_emae_vitb_300e', '/simmim_vitb', '/beit_vitb_300e', '/cae_',
         'vitb_finetune_100e', 'vitb_linear_90e', 'linear/vitb_dino', 'vitb_fpn_ms_12e')  # fmt: skip
LEFT_OUT = 'chains/', 'upstream/maskfeat'  # HOG does not run in bf16 on a CPU
RECIPES = sorted(
    name for path in configs_root().glob('[a-z]*/*.py')
    if not (name := str(path.relative_to(configs_root()))).startswith(LEFT_OUT)
)  # fmt: skip


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if any(word in f'/{name}' for word in QUICK) else pytest.mark.full) for name in RECIPES
])  # fmt: skip
def test_every_recipe_is_counted_as_by_the_former_formulas(name):
    work = work_of(recipe(name))
    assert work.saved > 0 and work.trainable > 0
    if name not in FORMER:  # later recipes, and probes that had no formula
        kinds = dict(linear='linear', finetune='finetune', chains=None)
        stage = 'probe' if 'probe' in name else 'pretrain'
        assert work.kind == kinds.get(name.split('/')[0], stage) and work.train > work.forward
        assert work.forward > (1e5 if name.startswith('evidence/') else 1e9)
        return
    model, kind, forward, training, params = FORMER[name]
    assert (work.model, work.kind) == (model, kind)
    assert work.forward / 1e9 == pytest.approx(forward, rel=0.005)
    # HiViT's early stages are recomputed too, which its formula forgot.
    assert work.train / 1e9 == pytest.approx(training, rel=0.017 if 'HiViT' in model and kind == 'coco' else 0.005)
    # The formulas gave every token of a detector a position of its own and knew no layer scale.
    assert work.params / 1e6 == pytest.approx(params, rel=0.035 if kind == 'coco' else 0.012)


@pytest.mark.process
def test_counting_first_leaves_attention_as_it_is():
    """mmpretrain binds torch's attention at its import, which a count must not happen to be the first to do."""
    code = (
        'import sys, torch\n'
        'from mim_mm.cost.ledger import _as_on_a_gpu\n'
        "assert 'mmpretrain.models.utils.attention' not in sys.modules\n"
        'with _as_on_a_gpu():\n'
        '    import mmpretrain.models\n'
        'from mmpretrain.models.utils import attention\n'
        'assert attention.scaled_dot_product_attention is torch.nn.functional.scaled_dot_product_attention\n'
    )
    answer = run([sys.executable, '-c', code])
    assert answer.returncode == 0, answer.stderr
