"""Encoders of other projects: each gives the features of its own project, or does not load. timm is the oracle."""

import argparse
import math

import pytest
import torch
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from safetensors.torch import save_file
from torch import nn

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.checkpoint.read import read_checkpoint, read_weights

SIZES = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3)
ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(kind=VisionTransformer, **options):
    return scattered(kind(**{**dict(arch=ARCH, patch_size=8, img_size=32, out_type='raw'), **options}))


def scattered(model):
    """Every parameter random, so that none is without effect."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.eval()  # that of mmpretrain returns None
    return model


def theirs(kind='VisionTransformer', room='vision_transformer', **options):
    models = pytest.importorskip(f'timm.models.{room}')
    return scattered(getattr(models, kind)(**{**SIZES, **options}))


def saved(path, model, **extra):
    torch.save({**(model if isinstance(model, dict) else model.state_dict()), **extra}, path)
    return path


# ---------------------------------------------------------------- features of timm, or nothing

SHARED = dict(use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
MEAN = dict(out_type='avg_featmap', final_norm=False)


@pytest.mark.parametrize(
    'made, ours',
    [
        (dict(), dict()),
        (dict(init_values=1e-5), dict(layer_scale_init_value=0.1)),
        (dict(pre_norm=True), dict(pre_norm=True)),
        (dict(qkv_bias=False), dict(qkv_bias=False)),
        (dict(no_embed_class=True), dict()),  # the class token gets no position
        (dict(class_token=False, global_pool=''), dict(with_cls_token=False)),
        (dict(kind='Eva', room='eva', use_post_norm=False), MEAN),  # split biases
        (dict(kind='Beit', room='beit', use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1),
         dict(kind=BEiTViT, use_rel_pos_bias=True, use_shared_rel_pos_bias=False)),
        (dict(kind='Beit', room='beit', use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1),
         dict(kind=BEiTViT, use_rel_pos_bias=True)),  # one table for all -> one a block
    ],
)  # fmt: skip
def test_features_are_those_of_timm(tmp_path, made, ours):
    source = theirs(**made)
    target = vit(**{**ours, **(dict(out_type='avg_featmap', final_norm=False) if 'kind' in made else {})})
    report = load_encoder(target, saved(tmp_path / 'a.pth', source))
    assert report.fraction == 1 and not report.by_design and not report.random
    assert set(report.unused) == {'head.weight', 'head.bias'} and set(report.kinds.values()) == {'head'}
    with torch.no_grad():
        tokens = source.forward_features(IMAGES)
        wanted = source.forward_head(tokens, pre_logits=True) if 'kind' in made else tokens
        torch.testing.assert_close(target(IMAGES)[0], wanted, atol=2e-5, rtol=1e-4)


def test_swiglu_of_timm_and_of_dinov2(tmp_path):
    layers = pytest.importorskip('timm.layers')
    source = theirs(mlp_layer=layers.SwiGLUPacked, act_layer=nn.SiLU, mlp_ratio=88 * 2 / 32)
    # mmpretrain takes 2 / 3 of it, up to a multiple of 8: 88
    ours = dict(arch=dict(ARCH, feedforward_channels=132), layer_cfgs=dict(ffn_type='swiglu_fused'))
    state = source.state_dict()
    dinov2 = {n.replace('mlp.fc1', 'mlp.w12').replace('mlp.fc2', 'mlp.w3'): v for n, v in state.items()}
    for content in (state, dinov2):
        target = vit(**ours)
        assert load_encoder(target, saved(tmp_path / 'a.pth', content)).fraction == 1
        with torch.no_grad():
            torch.testing.assert_close(target(IMAGES)[0], source.forward_features(IMAGES), atol=2e-5, rtol=1e-4)
    for content, match in ((dinov2, 'SwiGLU'), (state, '(?s)another shape.*SwiGLU')):
        with pytest.raises(LoadError, match=match):
            load_encoder(vit(), saved(tmp_path / 'a.pth', content))


@pytest.mark.parametrize(
    'made, ours, match',
    [
        (dict(init_values=1e-5), {}, r'gamma.*(?s:.*)layer_scale_init_value=1e-5'),
        (dict(qk_norm=True), {}, r'q_norm(?s:.*)qk_norm.*not supported'),
        (dict(reg_tokens=4), {}, r'reg_token(?s:.*)register tokens.*not supported'),
        (dict(reg_tokens=4, no_embed_class=True), {}, r'reg_token(?s:.*)register tokens.*not supported'),
        # 16 patches and 9 more rows: a square, as of a larger grid
        (dict(reg_tokens=8), {}, r'rows of register or distillation tokens in the file: 8,'),
        (dict(pre_norm=True), {}, r'pre_norm(?s:.*)pre_norm=True'),
        (dict(), dict(pre_norm=True), r'patch_embed.projection.bias(?s:.*)pre_norm=False'),
        (dict(global_pool='avg'), {}, r"ln2.bias(?s:.*)out_type='avg_featmap' and final_norm=False"),
        (dict(global_pool='avg'), dict(out_type='avg_featmap', final_norm=True), r'ln1(?s:.*)final_norm=False'),
        (dict(qkv_bias=False), {}, r'qkv.bias(?s:.*)qkv_bias=False'),
        (dict(), dict(qkv_bias=False), r'qkv.bias(?s:.*)qkv_bias=True'),
        (dict(depth=3), {}, r'layers.2.(?s:.*)the file has 3 blocks, the model 2'),
        (dict(depth=1), {}, r'at least 95 %(?s:.*)the file has 1 blocks, the model 2'),
        (dict(), dict(layer_scale_init_value=0.1), r'gamma(?s:.*)layer_scale_init_value=0'),
        (dict(class_token=False, global_pool=''), {}, r'cls_token(?s:.*)with_cls_token=False'),
        (dict(pos_embed='none'), {}, r'pos_embed(?s:.*)no table of absolute positions'),
        (dict(kind='VisionTransformerDistilled', room='deit'), {},
         r'tokens in the file: 1,(?s:.*)a distillation token .DeiT.'),
        (dict(kind='Beit', room='beit', use_rel_pos_bias=True), {}, r'relative_position_bias_table(?s:.*)BEiTViT'),
        (dict(kind='Beit', room='beit', use_shared_rel_pos_bias=True), {},
         r'relative_position_bias_table(?s:.*)BEiTViT'),
        (dict(kind='Eva', room='eva', qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True), {},
         r'q_proj(?s:.*)SwiGLU'),
    ],
)  # fmt: skip
def test_what_finds_no_place_stops(tmp_path, made, ours, match):
    target = vit(**ours)
    before = {n: v.clone() for n, v in target.state_dict().items()}
    with pytest.raises(LoadError, match=match):
        load_encoder(target, saved(tmp_path / 'a.pth', theirs(**made)))
    assert all(torch.equal(v, before[n]) for n, v in target.state_dict().items())


def test_any_other_tensor_of_the_encoder_stops_and_skip_leaves_it_out(tmp_path):
    path = saved(tmp_path / 'a.pth', theirs(), **{'blocks.1.attn.gate': torch.ones(3)})
    with pytest.raises(LoadError, match=r'1 tensors of the file find no place.*layers.1.attn.gate.*skip'):
        load_encoder(vit(), path)
    report = load_encoder(vit(), path, skip=['attn.gate$'])
    assert report.kinds['layers.1.attn.gate'] == 'named in skip' and report.fraction == 1


def test_rows_of_registers_are_never_cut_whatever_is_skipped(tmp_path):
    for count in (4, 8):
        path = saved(tmp_path / 'a.pth', theirs(reg_tokens=count))
        with pytest.raises(LoadError, match='are not cut'):
            load_encoder(vit(), path, skip=['reg_token'])


def test_the_bias_of_keys_has_no_effect(tmp_path):
    """One bias for queries, keys and values into a backbone with biases of queries and values only."""
    source = theirs(init_values=0.1)
    target = vit(BEiTViT, use_abs_pos_emb=True, use_rel_pos_bias=False, final_norm=True)
    report = load_encoder(target, saved(tmp_path / 'a.pth', source))
    assert report.fraction == 1 and not report.random
    with torch.no_grad():
        torch.testing.assert_close(target(IMAGES)[0], source.forward_features(IMAGES), atol=2e-5, rtol=1e-4)


# ---------------------------------------------------------------- what releases hold beside the encoder


def released(kind, folder):
    """Names and structure of the files of each project, on an encoder of timm; what must be left over."""
    state = {n: v for n, v in theirs().state_dict().items() if not n.startswith('head')}
    one = torch.zeros(1)
    if kind == 'mae':
        more = {n: one for n in ('mask_token', 'decoder_pos_embed', 'decoder_embed.weight', 'decoder_norm.bias',
                                 'decoder_blocks.0.attn.qkv.weight', 'decoder_pred.bias')}  # fmt: skip
        return dict(model={**state, **more}, optimizer=dict(state={0: dict(a=one)}), args=argparse.Namespace(a=1)), more
    if kind == 'dinov2':
        return dict(state, mask_token=torch.zeros(1, 32)), {'mask_token': 1}
    if kind == 'ibot':
        student = {f'module.backbone.{n}': v + 1 for n, v in state.items()}
        more = {n: one for n in ('head.mlp.0.weight', 'head.last_layer.weight_g', 'backbone.masked_embed')}
        teacher = {**{f'backbone.{n}': v for n, v in state.items()}, **more}
        return dict(student=student, teacher=teacher, optimizer={}, ibot_loss=dict(center=one)), more
    if kind == 'mocov3':
        more = {f'module.{n}': one for n in ('momentum_encoder.cls_token', 'predictor.0.weight')}
        more['head.0.weight'] = one
        state = {f'module.base_encoder.{n}': v for n, v in {**state, 'head.0.weight': one}.items()}
        return dict(state_dict={**state, **{n: v for n, v in more.items() if n.startswith('module')}}, arch='vit'), more
    if kind == 'ijepa':
        wrapped = {f'module.{n}': v for n, v in state.items()}
        predictor = {'module.mask_token': one, 'module.predictor_blocks.0.norm1.weight': one}
        return dict(encoder={n: v + 1 for n, v in wrapped.items()}, target_encoder=wrapped, predictor=predictor), {}
    if kind == 'mmpretrain':
        more = {n: one for n in ('neck.decoder_blocks.0.ln1.weight', 'head.weight', 'target_generator.a', 'queue')}
        ours = vit()
        load_encoder(ours, saved(folder / 'plain.pth', state))
        momentum = {f'momentum_encoder.module.0.{n}': v + 1 for n, v in ours.state_dict().items()}
        named = {f'backbone.{n}': v for n, v in ours.state_dict().items()}
        return dict(state_dict={**named, **more, **momentum, 'backbone.mask_token': one}, meta={}), {
            **more, **momentum, 'mask_token': one}  # fmt: skip
    raise AssertionError(kind)


@pytest.mark.parametrize('kind', ['mae', 'dinov2', 'ibot', 'mocov3', 'ijepa', 'mmpretrain'])
def test_releases_load_and_what_is_left_over_is_named(tmp_path, kind):
    torch.manual_seed(3)
    content, more = released(kind, tmp_path)
    torch.manual_seed(3)
    source = theirs()
    path = tmp_path / 'a.pth'
    torch.save(content, path)
    target = vit()
    report = load_encoder(target, path)
    with torch.no_grad():
        torch.testing.assert_close(target(IMAGES)[0], source.forward_features(IMAGES), atol=2e-5, rtol=1e-4)
    assert {n.removeprefix('backbone.') for n in report.unused} == {n.removeprefix('backbone.') for n in more}
    assert set(report.kinds) == set(report.unused) and report.fraction == 1
    assert all(f'({kind})' in report.table() for kind in report.kinds.values())


# ---------------------------------------------------------------- files with several models


def filled(value):
    return {n: torch.full_like(v, value) for n, v in theirs().state_dict().items()}


@pytest.mark.parametrize(
    'names, taken, why',
    [
        (('model', 'model_ema'), 'model', 'trained'),
        (('model_ema', 'model'), 'model', 'trained'),
        (('state_dict', 'state_dict_ema'), 'state_dict', 'trained'),
        (('student', 'teacher'), 'teacher', 'DINO'),
        (('encoder', 'target_encoder'), 'target_encoder', 'I-JEPA'),
        (('state_dict', 'ema_state_dict'), 'state_dict', 'EMAHook'),
    ],
)
def test_the_one_that_is_taken_is_named_and_another_can_be_chosen(tmp_path, names, taken, why):
    values = {name: 0.1 * (i + 1) for i, name in enumerate(names)}
    path = tmp_path / 'a.pth'
    models = {n: filled(v) for n, v in values.items()}
    torch.save({**models, 'optimizer': dict(state={0: filled(9.0)}), 'epoch': 3}, path)
    (other,) = set(names) - {taken}
    for entry, expected in ((None, taken), (taken, taken), (other, other)):
        target = vit()
        report = load_encoder(target, path, entry=entry)
        assert target.cls_token[0, 0, 0].item() == pytest.approx(values[expected]) and report.entry == expected
        first = report.table().splitlines()[1]
        assert f"'{expected}'" in first and (why if entry is None else 'as asked') in first
        assert ({*names} - {expected}).pop() in first and '--entry' in first
    with pytest.raises(LoadError, match=f"no single entry 'ema'.*'{names[0]}'"):
        load_encoder(vit(), path, entry='ema')


@pytest.mark.parametrize('name', ['model_ema', 'state_dict_ema', 'ema', 'net_params', 'ema_state_dict'])
def test_a_single_model_under_any_name(tmp_path, name):
    path = tmp_path / 'a.pth'
    torch.save({name: filled(0.5), 'optimizer': dict(state={0: filled(9.0)}), 'epoch': 3}, path)
    target = vit()
    report = load_encoder(target, path)
    assert report.entry == name and target.cls_token[0, 0, 0] == 0.5
    assert ('EMA' in name.upper()) == any('only model' in note for note in report.notes)


def test_nested_and_unknown_entries(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(model=dict(teacher=filled(0.5), student=filled(0.1))), path)
    assert read_weights(path).entry == 'model.teacher'
    assert read_weights(path, entry='student').tensors['cls_token'][0, 0, 0] == pytest.approx(0.1)
    torch.save(dict(state=dict(model_ema=filled(0.5), model=filled(0.1))), path)
    assert read_weights(path).entry == 'state.model'
    torch.save(dict(first=filled(0.5), second=filled(0.1)), path)
    with pytest.raises(LoadError, match="2 models, 'first', 'second'.*--entry"):
        read_checkpoint(path)
    assert load_encoder(vit(), path, entry='second').entry == 'second'


# ---------------------------------------------------------------- prefixes


def prefixed(path, *prefixes, **extra):
    states = [{f'{prefix}{n}': v + i for n, v in theirs().state_dict().items()} for i, prefix in enumerate(prefixes)]
    return saved(path, {n: v for state in states for n, v in state.items()}, **extra)


@pytest.mark.parametrize('prefix', ['net.', 'learner.online.vit.', 'trunk.'])
def test_an_unknown_prefix_is_named_with_the_option(tmp_path, prefix):
    path = prefixed(tmp_path / 'a.pth', prefix, **{'loss.scale': torch.ones(1)})
    name = prefix.replace('.', r'\.')
    with pytest.raises(LoadError, match=rf"'{name}'.*custom_hooks\.0\.prefix={name}.*--prefix {name}"):
        load_encoder(vit(), path, skip=['loss'])
    assert load_encoder(vit(), path, prefix=prefix, skip=['loss']).prefix == prefix


def test_what_lies_beside_the_encoder_is_judged_by_its_name_there(tmp_path):
    extra = {n: torch.ones(2) for n in ('visual.head.proj.weight', 'text.ln_final.bias', 'logit_scale')}
    report = load_encoder(vit(), prefixed(tmp_path / 'a.pth', 'visual.trunk.', **extra), prefix='visual.trunk.')
    assert [report.kinds[n] for n in extra] == ['head', 'text model', 'text model']
    with pytest.raises(LoadError, match='1 tensors of the file.*visual.stem.weight'):
        path = prefixed(tmp_path / 'a.pth', 'visual.trunk.', **{'visual.stem.weight': torch.ones(2)})
        load_encoder(vit(), path, prefix='visual.trunk.')


def test_several_unknown_prefixes_are_all_named(tmp_path):
    path = prefixed(tmp_path / 'a.pth', 'one.', 'two.')
    with pytest.raises(LoadError, match="'one.' or 'two.'"):
        load_encoder(vit(), path)
    report = load_encoder(vit(), path, prefix='two.')
    assert set(report.kinds.values()) == {'head', 'another copy of the encoder'} and "'one.'" in report.table()


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module._orig_mod.', 'backbone._orig_mod.', '_orig_mod.backbone.'])
def test_wrappers_of_torch_are_read_through_and_said(tmp_path, prefix):
    report = load_encoder(vit(), prefixed(tmp_path / 'a.pth', prefix))
    assert report.fraction == 1 and '_orig_mod' not in report.prefix
    assert any('_orig_mod' in note for note in report.notes)


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize('name', ['a.pth', 'a.bin', 'old.pt', 'a.safetensors'])
def test_formats(tmp_path, name):
    state = theirs().state_dict()
    if name.endswith('safetensors'):
        save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization='old' not in name)
    target = vit()
    assert load_encoder(target, tmp_path / name).fraction == 1
    assert torch.equal(target.cls_token, state['cls_token'])


def test_a_damaged_safetensors_file(tmp_path):
    (tmp_path / 'a.safetensors').write_bytes(b'not one')
    with pytest.raises(LoadError, match='a.safetensors cannot be read'):
        read_checkpoint(tmp_path / 'a.safetensors')


# ---------------------------------------------------------------- blocks on purpose


def test_the_first_blocks_of_a_deeper_encoder(tmp_path):
    source = theirs(depth=3)
    target = vit(final_norm=False)
    report = load_encoder(target, saved(tmp_path / 'a.pth', source), cut_depth=True)
    assert sum('beyond the depth' in kind for kind in report.kinds.values()) == 12
    tokens = []
    source.blocks[1].register_forward_hook(lambda module, args, out: tokens.append(out))
    with torch.no_grad():
        source.forward_features(IMAGES)
        torch.testing.assert_close(target(IMAGES)[0], tokens[0], atol=2e-5, rtol=1e-4)
    assert math.isclose(report.fraction, 1)


def test_detectors_load_by_the_same_rules(tmp_path):
    from mim_mm.detection.windowed_vit import WindowedViT

    arch = dict(ARCH, global_attn_indexes=(1,))
    options = dict(arch=arch, patch_size=8, img_size=64, pretrain_img_size=32, window_size=4)
    for made, match in ((dict(init_values=0.1), 'layer_scale_init_value'), (dict(pre_norm=True), 'pre_norm=True'),
                        (dict(reg_tokens=4), 'not cut'), (dict(qk_norm=True), 'not supported')):  # fmt: skip
        with pytest.raises(LoadError, match=match):
            load_encoder(WindowedViT(**options), saved(tmp_path / 'a.pth', theirs(**made)))
    path = saved(tmp_path / 'b.pth', theirs(pre_norm=True, init_values=0.1))
    report = load_encoder(WindowedViT(**options, pre_norm=True, layer_scale_init_value=1.0), path)
    ends = {'cls_token', 'head.bias', 'head.weight', 'ln1.bias', 'ln1.weight'}
    assert report.fraction == 1 and set(report.unused) == ends
