"""What is frozen stays as it is, to the bit and without chance; what is tuned trains as in ordinary fine-tuning."""

import copy
import re

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mim_mm.registry import MODELS

DEPTH, MAIN = 4, 8  # of HiViT's main stage; with no more blocks than before it mmpretrain's indices mean two
IMAGES = 24  # so that no pass drops a path in all of them
ARCH = dict(embed_dims=32, num_layers=DEPTH, num_heads=2, feedforward_channels=64)
SIZES = dict(arch=ARCH, img_size=32, patch_size=8, drop_path_rate=0.6)
POOLED = dict(out_type='avg_featmap', final_norm=False)
FAMILIES = {
    'vit': dict(SIZES, type='mmpretrain.VisionTransformer', drop_rate=0.1, **POOLED),
    'cls': dict(SIZES, type='mmpretrain.VisionTransformer', layer_scale_init_value=0.5, out_type='cls_token'),
    'deit3': dict(SIZES, type='mmpretrain.DeiT3', out_type='cls_token'),
    'registers': dict(SIZES, type='mim_mm.RegisterViT', num_registers=2, **POOLED),
    'beit': dict(
        SIZES, type='mmpretrain.BEiTViT', layer_scale_init_value=0.5, use_abs_pos_emb=True,
        use_rel_pos_bias=False, use_shared_rel_pos_bias=True, **POOLED,
    ),
    'beit_tables': dict(SIZES, type='mmpretrain.BEiTViT', layer_scale_init_value=0.5, **POOLED),
    'hivit': dict(
        type='mmpretrain.HiViT', arch=dict(embed_dims=32, depths=[1, 1, MAIN], num_heads=2), img_size=32, patch_size=8,
        inner_patches=4, out_indices=[MAIN - 1], ape=True, rpe=False, drop_path_rate=0.6, layer_scale_init_value=0.5,
    ),
}  # fmt: skip
NUMBERS = [0, 0.5, 1, 2, 'all']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


def make(family='vit', kind='mim_mm.PartialFineTuning', **options):
    torch.manual_seed(0)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=32, loss=dict(type='CrossEntropyLoss'))
    neck = dict(type='GlobalAveragePooling') if family == 'hivit' else None
    model = MODELS.build(dict(type=kind, backbone=copy.deepcopy(FAMILIES[family]), neck=neck, head=head, **options))
    model.init_weights()
    for name, tensor in model.named_parameters():  # norms, scales and positions that are not the identity
        if tensor.ndim == 1 or any(part in name for part in ('pos', 'token', 'bias')):
            torch.nn.init.normal_(tensor, std=0.3)
    return model


def optimizer_of(model, rate=0.65):
    cfg = dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05),
        constructor='mim_mm.LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=rate, flat_decay_mult=0.0),
    )  # fmt: skip
    return build_optim_wrapper(model, cfg)


def batch(count=IMAGES):
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(i % 3) for i in range(count)])


def trained(model, steps=2, wrapper=None):
    """The state before and after training steps, by name; buffers too."""
    rate = 1.0 if 'HiViT' in type(model.backbone).__name__ else 0.65  # whose depths mmpretrain does not know
    wrapper = wrapper or optimizer_of(model, rate)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(2)
    model.train()
    for _ in range(steps):
        model.train_step(batch(), wrapper)
    return before, model.state_dict()


def wanted(name, family, number):
    """Whether a tensor is to be tuned, told from its name."""
    if not name.startswith('backbone.') or number == 'all':
        return True
    if number and re.match(r'backbone\.ln\d\.', name):
        return True
    found = re.match(r'backbone\.(layers|blocks)\.(\d+)\.(.*)', name)
    if not found:
        return False
    last = MAIN + 5 if family == 'hivit' else DEPTH - 1  # two MLP blocks and a merge in each of its two first stages
    place, inner = int(found[2]), found[3]
    if number == 0.5:
        return place == last and re.match(r'(ln2|norm2|ffn|mlp)\.|gamma_2', inner) is not None
    return place > last - number


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('number', NUMBERS)
def test_what_is_frozen_stays_to_the_bit_and_all_else_changes(family, number):
    model = make(family, tuned_blocks=number)
    before, after = trained(model)
    parameters = dict(model.named_parameters())
    for name, value in before.items():
        same = torch.equal(value, after[name])
        if name not in parameters:  # tables of places
            assert same
        elif wanted(name, family, number):
            # A key's bias adds the same to all logits of a query: no gradient but rounding.
            assert not same or name.endswith('qkv.bias'), f'{name} was not tuned'
            assert parameters[name].requires_grad
        else:
            assert same and parameters[name].grad is None and not parameters[name].requires_grad, f'{name} changed'


@pytest.mark.parametrize('number', NUMBERS)
def test_a_frozen_tensor_is_not_in_the_optimizer_and_rates_are_those_of_the_whole(number):
    def rates(model):
        names = {id(p): name for name, p in model.named_parameters()}
        groups = optimizer_of(model).optimizer.param_groups
        return {names[id(p)]: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}

    whole = rates(make(kind='mmpretrain.ImageClassifier'))
    part = rates(make(tuned_blocks=number))
    assert set(part) == {name for name in whole if wanted(name, 'vit', number)}
    assert part == {name: whole[name] for name in part}
    block = [part[name][0] for name in part if '.layers.3.ffn' in name]
    assert block == pytest.approx([1e-2 * 0.65] * (0 if number == 0 else 4)), 'one layer below the head'


@pytest.mark.parametrize('family', ['vit', 'beit', 'deit3'])
def test_with_all_blocks_it_is_ordinary_fine_tuning_to_the_bit(family):
    ours, theirs = make(family, tuned_blocks='all'), make(family, kind='mmpretrain.ImageClassifier')
    (_, found), (_, expected) = trained(ours), trained(theirs)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def passes(model, module, times=2):
    """What enters ``module`` in several passes over the same images, and what the model makes of them."""
    seen = []
    handle = module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    found = [model(images) for _ in range(times)]
    handle.remove()
    return seen, found


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('number', [0.5, 1, 2])
def test_the_frozen_part_knows_no_chance_and_keeps_no_graph_while_the_rest_drops_paths(family, number):
    model = make(family, tuned_blocks=number)
    blocks = getattr(model.backbone, 'layers', None) or model.backbone.blocks
    model.eval()
    (fixed,), _ = passes(model, blocks[-1], times=1)
    for _ in range(2):  # a validation in between must not thaw anything
        model.train()
        start = blocks[-1] if number == 0.5 else blocks[-number]
        first = (start.ln2 if hasattr(start, 'ln2') else start.norm2) if number == 0.5 else start
        (one, two), (a, b) = passes(model, first)
        assert torch.equal(one, two) and not one.requires_grad
        assert not torch.equal(a, b) and a.requires_grad, 'the tuned part drops paths'
        model.eval()
        (before,), (c,) = passes(model, blocks[-1], times=1)
        assert torch.equal(before, fixed) and torch.equal(c, passes(model, first, times=1)[1][0])


def test_without_a_tuned_block_features_are_fixed():
    model = make(tuned_blocks=0).train()
    images = torch.randn(IMAGES, 3, 32, 32)
    (one,), (two,) = (model.extract_feat(images) for _ in range(2))
    assert torch.equal(one, two) and not one.requires_grad
    assert torch.equal(one, model.eval().extract_feat(images)[0])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {'head.fc.weight', 'head.fc.bias'}


def test_a_copy_drops_by_its_own_mode():
    """As ``EMAHook`` makes one: the two blocks must not switch each other's drop path."""
    model = make('beit', tuned_blocks=0.5).train()
    other = copy.deepcopy(model).eval()
    other(torch.randn(2, 3, 32, 32))
    assert not other.backbone.layers[-1].drop_path.training
    model(torch.randn(2, 3, 32, 32))
    assert model.backbone.layers[-1].drop_path.training and not other.backbone.layers[-1].drop_path.training


@pytest.mark.parametrize('number', NUMBERS)
def test_ddp_finds_no_parameter_unused(number, tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        plain, wrapped = make(tuned_blocks=number), MMDistributedDataParallel(make(tuned_blocks=number))
        _, expected = trained(plain, steps=3)
        optimizer = optimizer_of(wrapped.module)
        torch.manual_seed(2)
        wrapped.train()
        for _ in range(3):
            wrapped.train_step(batch(), optimizer)
        assert all(torch.equal(value, expected[name]) for name, value in wrapped.module.state_dict().items())
    finally:
        dist.destroy_process_group()


def test_what_the_backbone_itself_keeps_fixed_stays_so():
    class Fixed(MODELS.get('mmpretrain.VisionTransformer')):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.layers[-1].attn.qkv.bias.requires_grad = False

    head = dict(type='LinearClsHead', num_classes=3, in_channels=32)
    kept = {key: value for key, value in FAMILIES['vit'].items() if key != 'type'}
    model = MODELS.build(dict(type='mim_mm.PartialFineTuning', backbone=Fixed(**kept), head=head, tuned_blocks=1))
    layer = model.backbone.layers[-1]
    assert not layer.attn.qkv.bias.requires_grad and layer.attn.qkv.weight.requires_grad


@pytest.mark.parametrize(
    'number, message',
    [
        (5, "tuned_blocks=5 must be 'all', 0.5 .* 0 to 4 for this VisionTransformer"),
        (-1, 'tuned_blocks=-1 must be'),
        (1.5, 'tuned_blocks=1.5 must be'),
        (float('nan'), 'tuned_blocks=nan must be'),
        (True, 'tuned_blocks=True must be'),
        ('most', "tuned_blocks='most' must be"),
    ],
)
def test_other_numbers_are_refused(number, message):
    with pytest.raises(ValueError, match=message):
        make(tuned_blocks=number)


def test_backbones_without_a_stack_of_blocks_or_with_another_rule_are_refused():
    head = dict(type='LinearClsHead', num_classes=3, in_channels=512)

    def build(backbone, number):
        return MODELS.build(dict(type='mim_mm.PartialFineTuning', backbone=backbone, head=head, tuned_blocks=number))

    resnet = dict(type='mmpretrain.ResNet', depth=18)
    with pytest.raises(ValueError, match='counts blocks of one stack, which ResNet does not have: use .*=all'):
        build(resnet, 1)
    build(resnet, 'all')
    with pytest.raises(ValueError, match='frozen_stages=2 both say what is frozen'):
        build(dict(FAMILIES['vit'], frozen_stages=2), 1)
    eva = dict(type='mmpretrain.ViTEVA02', arch=dict(ARCH), img_size=32, patch_size=8)
    with pytest.raises(ValueError, match='tunes the MLP of a block: .* has the parts .* are needed'):
        build(eva, 0.5)
    assert {n.split('.')[1] for n, p in build(eva, 1).backbone.named_parameters() if p.requires_grad} >= {'3'}
