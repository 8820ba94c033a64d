"""The formulas against torch's own counter on the real models, and against figures worked out by hand."""

import copy

import pytest
import torch
from input_tokens import CAE_VIT, DALLE, NECK
from input_tokens import VIT as BEIT_VIT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny import DECODER, HIVIT, VIT, build, images, total_loss
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mim_mm.compat.paths import configs_root
from mim_mm.cost import work_of
from mim_mm.cost.backbones import HIVIT as HIVIT_ZOO
from mim_mm.cost.backbones import SWIN, plain_vit
from mim_mm.cost.backbones import VIT as VIT_ZOO
from mim_mm.cost.counted import counted_backbone
from mim_mm.cost.detector import backbone_maps, mask_rcnn
from mim_mm.cost.pretrain import parts_seen
from mim_mm.registry import MODELS

TINY_VIT = dict(VIT, arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=96))
RANDOM = dict(type='RandomMasking', ratio=0.75)
PARALLEL = dict(type='ParallelMasking', num_parts=4)
# Matrix products against everything torch counts: what is left are the projections' bias-free corners of tiny models.
CLOSE = dict(rel=0.01)


def counted(run) -> float:
    """FLOPs by torch's counter; fused attention is not counted on every device, so the plain kernel runs."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def forward_and_training(module, loss):
    """(forward, forward + backward) FLOPs of ``loss()`` by torch's counter."""
    module.train()
    return counted(lambda: loss()), counted(lambda: loss().backward())


@pytest.mark.parametrize('backbone', [TINY_VIT, HIVIT], ids=['ViT', 'HiViT'])
@pytest.mark.parametrize('kind, masker', [
    ('MAE', RANDOM),
    ('MAE', dict(type='RandomMasking', ratio=0.5)),
    ('EMAE', PARALLEL),
    ('EMAE', dict(type='ParallelMasking', num_parts=8)),
    ('EMAE', dict(type='IndependentMasking', num_parts=3)),
    ('MAE', dict(type='BlockMasking', ratio=0.5)),
    ('MAE', dict(type='GridMasking', stride=2)),
])  # fmt: skip
def test_masked_autoencoders(kind, masker, backbone):
    model = build(kind, masker, backbone)
    forward, training = forward_and_training(model, lambda: total_loss(model.loss(images(1))))
    cfg = dict(type=kind, backbone=backbone, masker=masker, decoder=DECODER)
    work = work_of(dict(model=cfg), 32)
    assert work.forward == pytest.approx(forward, **CLOSE)
    assert work.train == pytest.approx(training, **CLOSE)
    assert work.params == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.03)


@pytest.mark.parametrize('backbone, units', [
    (BEIT_VIT, 8),
    (dict(type='mmpretrain.SimMIMSwinTransformer', img_size=96,
          arch=dict(embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4]),
          stage_cfgs=dict(block_cfgs=dict(window_size=3)), drop_path_rate=0.0), 32),
], ids=['ViT', 'Swin'])  # fmt: skip
def test_simmim(backbone, units):
    size = backbone['img_size']
    cfg = dict(type='SimMIM', backbone=backbone, masker=dict(type='RandomMasking', ratio=0.5), mask_unit=units)
    model = MODELS.build(copy.deepcopy(cfg))
    batch = images(1, size)
    forward, training = forward_and_training(model, lambda: total_loss(model.loss(batch)))
    work = work_of(dict(model=cfg), size)
    assert work.forward == pytest.approx(forward, **CLOSE)
    assert work.train == pytest.approx(training, **CLOSE)


@pytest.mark.parametrize('kind', ['BEiT', 'CAE'])
def test_methods_with_a_tokenizer(kind, tmp_path):
    tokenizer = dict(DALLE, n_blk_per_group=1)
    torch.save({'state_dict': MODELS.build(copy.deepcopy(tokenizer)).state_dict()}, tmp_path / 'dalle.pth')
    cfg = dict(type=kind, masker=dict(type='BlockMasking', ratio=0.5, fill='blocks'), tokenizer=tokenizer,
               tokenizer_checkpoint=str(tmp_path / 'dalle.pth'))  # fmt: skip
    more = dict(num_classes=11, regressor_depth=2, decoder_depth=1)
    cfg |= dict(backbone=BEIT_VIT, vocabulary=11) if kind == 'BEiT' else dict(backbone=CAE_VIT, neck=dict(NECK, **more))
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    views = [images(1, 32), images(1, 32, seed=9)]
    forward, training = forward_and_training(model, lambda: total_loss(model.loss(views)))
    cfg = dict(cfg, tokenizer=tokenizer)
    work = work_of(dict(model=cfg), 32)
    # our recipes show the tokenizer half the side; here it sees 32 px: four times the pixels
    rest = work.forward - work['tokenizer'].forward
    seen = counted_backbone(tokenizer, (32, 32), 0.0)[0][0].forward
    assert seen == pytest.approx(4 * work['tokenizer'].forward, rel=1e-6)
    assert rest == pytest.approx(forward - seen, rel=0.015)
    assert work.train - work['tokenizer'].forward == pytest.approx(training - seen, rel=0.015)


@pytest.mark.parametrize('backbone', [
    dict(TINY_VIT, out_type='cls_token'),
    dict(type='mmpretrain.SwinTransformer', arch=dict(embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4]),
         img_size=64, window_size=7, pad_small_map=True, drop_path_rate=0.0),
], ids=['ViT', 'Swin, padded windows'])  # fmt: skip
@pytest.mark.parametrize('frozen', [False, True])
def test_backbones_of_classifiers(backbone, frozen):
    size = backbone['img_size']
    module = MODELS.build(copy.deepcopy(backbone))
    module.train()
    module.requires_grad_(not frozen)
    batch = images(1, size)
    total = counted(lambda: module(batch)[-1].sum() if frozen else module(batch)[-1].sum().backward())
    cfg = dict(
        type='ImageClassifier', backbone=dict(backbone, frozen_stages=9 if frozen else -1), head=dict(num_classes=7)
    )
    work = work_of(dict(model=cfg), size)
    assert work.train - work['head'].forward * (2 if frozen else 3) == pytest.approx(total, **CLOSE)
    assert work['head'].params == 7 * (work['head'].forward / 14) + 7  # weights D x 7 and 7 biases


def test_quick_probe_counts_heads():
    head = dict(
        num_classes=5, blocks=(1, 2), pooling=('cls', 'mean', 'cls_mean'), norm=(False, True), lrs=(0.1, 0.2, 0.3)
    )
    cfg = dict(type='mim_mm.MultiProbe', backbone=TINY_VIT, head=head)
    model = MODELS.build(copy.deepcopy(cfg))
    work = work_of(dict(model=cfg), 32)
    linears = [m for m in model.head.modules() if isinstance(m, torch.nn.Linear)]
    assert work['36 heads'].params == sum(p.numel() for m in linears for p in m.parameters())
    assert work['36 heads'].forward == 2 * sum(m.weight.numel() for m in linears)
    assert work.trainable == work['36 heads'].params


WINDOWED = dict(
    type='mim_mm.WindowedViT',
    arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=96),
    patch_size=8,
    img_size=96,
    pretrain_img_size=64,
    window_size=5,
    global_attn_indexes=(1,),
)


@pytest.mark.parametrize('backbone', [
    dict(WINDOWED, rel_pos='decomposed'),
    dict(WINDOWED, rel_pos='shared_bias', pos_embed_mode='fixed'),
    dict(WINDOWED, rel_pos='none', window_size=0, global_attn_indexes=None),
    dict(type='mim_mm.HiViTMaps', arch=HIVIT['arch'], img_size=96, patch_size=8),
    dict(type='mmpretrain.SwinTransformer', arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]),
         pad_small_map=True, out_indices=(0, 1, 2, 3)),
    dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), out_indices=[0, 1, 2, 3],
         gap_before_final_norm=False),
], ids=['decomposed', 'shared bias', 'no windows', 'HiViT', 'Swin', 'ConvNeXt'])  # fmt: skip
def test_backbones_of_detectors(backbone):
    module = MODELS.build(copy.deepcopy(backbone))
    module.train()
    batch = images(1, 96)
    forward = counted(lambda: module(batch))
    parts, maps, _ = backbone_maps(backbone, (96, 96), 2)
    assert sum(p.forward for p in parts) == pytest.approx(forward, **CLOSE)
    assert [(m.shape[2] * m.shape[3], m.shape[1]) for m in module(batch)] == [(int(n), c) for n, c in maps]
    assert sum(p.params for p in parts) == pytest.approx(sum(p.numel() for p in module.parameters()), rel=0.06)


@pytest.mark.parametrize(
    'recipe', ['mask_rcnn_vitb_fpn_lsj_100e', 'mask_rcnn_vitb_simple_lsj_100e', 'mask_rcnn_swint_fpn_ms_36e']
)
def test_pyramid_and_heads_of_real_recipes(recipe):
    """Each module of the real detector, at a small size, on as many RoIs as the formula takes."""
    cfg = Config.fromfile(str(configs_root() / 'coco' / f'{recipe}.py'))
    if 'swin' in recipe:
        cfg.model.backbone.arch = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
        cfg.model.neck.in_channels = [16, 32, 64, 128]
    else:
        cfg.model.backbone.update(img_size=128, out_indices=(3,))
        cfg.model.backbone.arch = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
        cfg.model.neck.in_channels = 32
    cfg.model.train_cfg.rcnn.sampler.num = 8
    init_default_scope('mmdet')
    model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    work = mask_rcnn(cfg.model, (128, 128), 2)
    with torch.no_grad():
        maps = model.backbone(images(1, 128))
        assert work['pyramid'].forward == pytest.approx(counted(lambda: model.neck(maps)), **CLOSE)
        levels = model.neck(maps)
        assert work['RPN'].forward == pytest.approx(counted(lambda: model.rpn_head(levels)), **CLOSE)
        box, mask = torch.randn(8, 256, 7, 7), torch.randn(2, 256, 14, 14)
        assert work['box head'].forward == pytest.approx(counted(lambda: model.roi_head.bbox_head(box)), **CLOSE)
        assert work['mask head'].forward == pytest.approx(counted(lambda: model.roi_head.mask_head(mask)), **CLOSE)
    for name, module in [('pyramid', model.neck), ('RPN', model.rpn_head), ('box head', model.roi_head.bbox_head)]:
        assert work[name].params == pytest.approx(sum(p.numel() for p in module.parameters()), rel=0.01)


# Forward and training GFLOP an image by 24 T D^2 + 4 T^2 D a block, head on all tokens, training three times the
# forward pass: MAE and EMAE (K = 4) with decoder 512 x 8. Ours runs the head on hidden patches only: under 1 % less.
TABLE = [
    ('MAE', 'deit-small', 16, 13.0, 39.0),
    ('MAE', 'base', 16, 19.562, 58.7),
    ('MAE', 'large', 16, 41.512, 124.5),
    ('MAE', 'huge', 14, 97.1, 291.4),
    ('EMAE', 'deit-small', 16, 51.7, 155.1),
    ('EMAE', 'base', 16, 77.6, 232.7),
    ('EMAE', 'large', 16, 165.0, 495.4),
    ('EMAE', 'huge', 14, 387.0, 1162.0),
]


@pytest.mark.parametrize('kind, arch, patch, forward, training', TABLE)
def test_known_sizes(kind, arch, patch, forward, training):
    backbone = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=224, patch_size=patch)
    work = work_of(
        dict(model=dict(type=kind, backbone=backbone, masker=RANDOM if kind == 'MAE' else PARALLEL, decoder={}))
    )
    assert work.forward / 1e9 == pytest.approx(forward, rel=0.01)
    assert work.train / 1e9 == pytest.approx(training, rel=0.01)


def test_a_vit_by_hand():
    """2 patches of 2 x 2 px and a class token, D = 4, F = 8, one block."""
    vit = plain_vit(dict(type='VisionTransformer', patch_size=2, arch=dict(
        embed_dims=4, num_layers=1, num_heads=1, feedforward_channels=8)), (2, 4))  # fmt: skip
    assert vit.embedding().forward == 2 * 2 * 12 * 4
    # 3 tokens: qkv 2*4*12, projection 2*4*4, MLP 2 * 2*4*8; scores and values 2 * 2*3*4 for each token
    assert vit.encoder().forward == 3 * (96 + 32 + 128) + 3 * 48
    assert vit.encoder().params == (48 + 12) + (16 + 4) + (32 + 8 + 32 + 4) + 16
    # bf16: norm inputs 2*4*4 bytes; qkv's input 8, qkv 24, attention 8, fc1's input 8, GELU's 16, fc2's 16
    assert vit.encoder().saved == 3 * (32 + 8 + 24 + 8 + 8 + 16 + 16)


@pytest.mark.parametrize('masker, expected', [
    (dict(type='ParallelMasking', num_parts=3), [(6, 10), (5, 11), (5, 11)]),
    (dict(type='ComplementaryMasking', num_parts=4), [(4, 12), (12, 4)]),
    (dict(type='RandomMasking', ratio=0.7), [(4, 12)]),
    (dict(type='AttentionMasking', mask_ratio=0.45, throw_ratio=0.4), [(3, 8)]),  # 8 hidden, 13 - 8 thrown
    (dict(type='SalienceMasking', ratio=dict(type='AdaptiveRatio', base=0.5, delta_r=0.1)), [(8, 8)]),
    (dict(type='AttMask', ratio=(0.25, 0.75)), [(8, 8)]),
])  # fmt: skip
def test_visible_and_hidden(masker, expected):
    assert parts_seen(masker, 16) == expected
    if 'ratio' not in masker or isinstance(masker['ratio'], float):
        tokens, attention = torch.randn(1, 16, 8), torch.rand(1, 16).softmax(1)
        built = MODELS.build(copy.deepcopy(masker))
        plan = built(tokens, attention=attention) if 'Att' in masker['type'] else built(tokens)
        assert [int(n) for n in plan.lengths.flatten()] == [visible for visible, _ in expected]


def test_zoos_are_mmpretrains():
    from mmpretrain.models import HiViT, SwinTransformer, VisionTransformer

    keys = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
    for ours, theirs, names_of in [
        (VIT_ZOO, VisionTransformer, keys),
        (SWIN, SwinTransformer, ('embed_dims', 'depths', 'num_heads')),
        (HIVIT_ZOO, HiViT, ('embed_dims', 'depths', 'num_heads')),
    ]:
        for names, settings in ours.items():
            for name in names:
                zoo = theirs.arch_zoo[name]
                found = [tuple(zoo[k]) if isinstance(zoo[k], list) else zoo[k] for k in names_of]
                assert tuple(found) == settings, name


def test_unknown_things_are_named():
    with pytest.raises(ValueError, match='EMAE.*MaskRCNN'):
        work_of(dict(model=dict(type='YOLO')), 32)
    with pytest.raises(ValueError, match="'giant'.*deit-small"):
        plain_vit(dict(type='VisionTransformer', arch='giant'), (32, 32))
    with pytest.raises(ValueError, match='ResNet'):
        work_of(dict(model=dict(type='MAE', backbone=dict(type='ResNet'), masker=RANDOM)), 32)
    with pytest.raises(ValueError, match='NASFPN'):
        rcnn = dict(rcnn=dict(sampler=dict(num=1)))
        neck = dict(type='NASFPN')
        work_of(dict(model=dict(type='MaskRCNN', backbone=WINDOWED, neck=neck, roi_head={}, train_cfg=rcnn)), 96)


RECIPES = sorted(str(path.relative_to(configs_root())) for path in configs_root().glob('[a-z]*/*.py'))


@pytest.mark.parametrize('recipe', [name for name in RECIPES if not name.startswith('chains/')])
def test_every_recipe_has_a_cost_or_is_said_to_have_none(recipe):
    cfg = Config.fromfile(str(configs_root() / recipe))._cfg_dict.to_dict()
    kind = cfg['model']['type'].rsplit('.', 1)[-1]
    if kind in ('MAE', 'EMAE', 'SimMIM', 'BEiT', 'CAE', 'ImageClassifier', 'MultiProbe') or kind.endswith('MaskRCNN'):
        work = work_of(cfg)
        assert work.train >= work.forward > 1e6 and work.params > 1e5 and work.saved > 0
    else:
        with pytest.raises(ValueError, match='no cost model: known are'):
            work_of(cfg)
