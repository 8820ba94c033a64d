"""Each file gives the features of its own project, or none: random weights, compared in float64."""

import json

import pytest
import torch
from foreign_models import MODELS, SAID, beit, content, features, images_of, scattered, vit
from safetensors.torch import save_file

from mim_mm.checkpoint.load import LoadError, load_encoder
from mim_mm.registry import MODELS as REGISTRY
from mim_mm.weights.architecture import backbone_of
from mim_mm.weights.importing import open_foreign
from mim_mm.weights.origins import ORIGINS

HEADS = dict(heads=2)


def imported(tmp_path, kind, model=None, **options):
    model = model or MODELS[kind]()
    torch.save(content(kind, model), tmp_path / 'theirs.pth')
    options = {**HEADS, **SAID.get(kind, {}), **options}
    return model, open_foreign(tmp_path / 'theirs.pth', **options)


def ours(path, found):
    """The written file in a backbone built from what it says, as a user's config builds it."""
    about = torch.load(path, weights_only=True)['meta']['encoder']
    backbone = REGISTRY.build(dict(about['config']))
    report = load_encoder(backbone, path)
    assert report.fraction == 1 and not report.random
    backbone.double().eval()
    return backbone


def difference(kind, model, backbone):
    images = images_of(kind)
    with torch.no_grad():
        found, wanted = backbone(images)[-1], features(kind, model, images)
    if wanted.ndim == 4:  # timm's Swin puts out (B, H, W, C)
        wanted = wanted.permute(0, 3, 1, 2)
    assert found.shape == wanted.shape and wanted.abs().max() > 0.1
    return (found - wanted).abs().max().item()


ORIGIN_OF = {
    'mae': 'bare', 'mae with decoder': 'mae', 'dino backbone': 'bare', 'attmask backbone': 'bare',
    'mocov3 momentum': 'mocov3', 'timm': 'bare', 'timm layer scale': 'bare', 'timm without class position': 'bare',
    'timm without qkv bias': 'bare', 'timm pooled norm': 'bare', 'clip': 'bare', 'bootmae backbone': 'beit-like',
    'beit fine-tuned': 'beit-like', 'simmim swin': 'simmim', 'dinov2 training': 'dinov2',
    'dinov2 registers': 'dinov2', 'timm registers': 'bare', 'timm registers with positions': 'bare',
}  # fmt: skip


@pytest.mark.parametrize('kind', MODELS)
def test_features_are_those_of_the_source(tmp_path, kind):
    options = dict(prefix='module.momentum_encoder.') if kind == 'mocov3 momentum' else {}
    model, found = imported(tmp_path, kind, **options)
    assert found.origin == ORIGIN_OF.get(kind, kind)
    found.write(tmp_path / 'ours.pth')
    assert difference(kind, model, ours(tmp_path / 'ours.pth', found)) < 1e-5
    with pytest.raises(FileExistsError, match='ours.pth'):
        found.write(tmp_path / 'ours.pth')


def test_student_or_teacher_as_asked(tmp_path):
    model, found = imported(tmp_path, 'dino', entry='student')
    assert 'as asked' in found.report.notes[0]
    with torch.no_grad():
        gap = found.backbone.state_dict()['cls_token'] - model.state_dict()['cls_token']
    torch.testing.assert_close(gap.double(), torch.ones(1, 1, 32, dtype=torch.float64), atol=1e-6, rtol=0)
    with pytest.raises(LoadError, match='no encoder under .nothing.'):
        imported(tmp_path, 'dino', prefix='nothing')


def test_the_decoder_of_mae_goes_on(tmp_path):
    from tiny import build

    _, found = imported(tmp_path, 'mae with decoder')
    found.write(tmp_path / 'ours.pth')
    state = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    assert build('MAE').load_state_dict(state).missing_keys == []


# ---------------------------------------------------------------- what would be another function


def sizes(width, depth, **more):
    """The shapes of a ViT, without memory."""
    state = {
        'cls_token': (1, 1, width), 'pos_embed': (1, 197, width), 'patch_embed.proj.weight': (width, 3, 16, 16),
        'patch_embed.proj.bias': (width,), 'norm.weight': (width,),
        **{f'blocks.{i}.mlp.fc1.weight': (4 * width, width) for i in range(depth)},
        **{f'blocks.{i}.mlp.fc2.weight': (width, 4 * width) for i in range(depth)}, 'blocks.0.attn.qkv.bias': (1,),
    }  # fmt: skip
    return {name: torch.empty(shape, device='meta') for name, shape in {**state, **more}.items()}


@pytest.mark.parametrize(
    'origin, width, depth, heads',
    [('mocov3', 384, 12, 12), ('cae', 384, 12, 12), ('dino', 384, 12, 6), ('bare', 768, 12, 12), ('mae', 1280, 32, 16)],
)
def test_heads_of_published_sizes(origin, width, depth, heads):
    known = ORIGINS[origin]
    facts = dict(heads=known.heads, norm_eps=known.norm_eps, activation=known.activation)
    config = backbone_of(sizes(width, depth), facts)
    assert config['arch']['num_heads'] == heads and config['img_size'] == 224 and config['norm_cfg']['eps'] == 1e-6
    for origin in ('bare', 'hf'):
        with pytest.raises(LoadError, match=r'heads of a ViT 384 wide and 12 deep.*--heads N.*--origin'):
            backbone_of(sizes(384, 12), dict(facts, heads=ORIGINS[origin].heads))


@pytest.mark.parametrize(
    'change, match',
    [
        ({'blocks.0.attn.q_norm.weight': torch.ones(16)}, r'(?s)find no place.*q_norm.*not supported'),
        ({'blocks.1.attn.gate': torch.ones(3)}, 'attn.gate'),
        ({'dist_token': torch.ones(1, 1, 32)}, 'distillation token'),
        ({'rope_embed.periods': torch.ones(3)}, 'rope_embed.periods is of rotary positions'),
        ({'attn_pool.latent': torch.ones(3)}, 'SigLIP'),
        ({'modality_encoders.AUDIO.x': torch.ones(3)}, 'data2vec 2.0 of speech or text'),
        ({'blocks.0.norm1.bias': None}, 'layers.0.ln1.bias'),
        ({'pos_embed': torch.ones(1, 15, 32)}, 'pos_embed has 15 rows.*--image-size'),
        ({'patch_embed.proj.weight': None}, 'no patch_embed.proj.weight'),
        ({'norm.weight': torch.full((32,), torch.nan)}, 'not finite'),
    ],
)
def test_what_changes_the_function_stops(tmp_path, change, match):
    state = {**vit().state_dict(), **change}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / 'a.pth')
    with pytest.raises(LoadError, match=match):
        open_foreign(tmp_path / 'a.pth', **HEADS)
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def released_data2vec2(backbone, first):
    """Names of fairseq's file: ``first`` blocks of the image encoder, the others shared; the average beside them."""
    state, images = {}, 'modality_encoders.IMAGE.'
    words = {
        'ln1': 'norm1', 'ln2': 'norm2', 'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2', 'attn.qkv': 'attn.qkv',
        'attn.proj': 'attn.proj',
    }  # fmt: skip
    for name, value in backbone.state_dict().items():
        if name.startswith('layers.'):
            _, number, rest = name.split('.', 2)
            where, kind = rest.rsplit('.', 1)
            place = (
                f'{images}context_encoder.blocks.{number}' if int(number) < first else f'blocks.{int(number) - first}'
            )
            state[f'{place}.{words[where]}.{kind}'] = value
        elif name == 'pos_embed':
            state[f'{images}fixed_positional_encoder.positions'] = value[:, 1:]
        elif name == 'cls_token':
            state[f'{images}extra_tokens'] = value
        else:
            name = name.replace('pre_norm', 'context_encoder.norm').replace(
                'patch_embed.projection', 'local_encoder.proj'
            )
            state[images + name] = value
    state[f'{images}decoder.blocks.0.0.weight'], state[f'{images}decoder.proj.bias'] = torch.ones(3), torch.ones(2)
    return state


@pytest.mark.parametrize('tuned', [False, True])
def test_a_file_of_data2vec2_is_whole(tmp_path, tuned):
    torch.manual_seed(0)
    backbone = REGISTRY.build(dict(
        type='mim_mm.PostNormViT', arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=128),
        img_size=32, patch_size=8, out_type='avg_featmap' if tuned else 'raw',
    ))  # fmt: skip
    for name, parameter in backbone.named_parameters():
        if 'pos_embed' not in name:
            torch.nn.init.normal_(parameter)
    norms = {name: value for name, value in backbone.state_dict().items() if name.startswith('ln2.')}
    state = {n: v for n, v in released_data2vec2(backbone, 2).items() if 'IMAGE.ln2' not in n}
    if tuned:  # the classifier keeps the encoder under ``model.``, without decoder and average
        state = {f'model.{name}': value for name, value in state.items() if 'decoder' not in name}
        state |= {f'fc_norm.{n[4:]}': v for n, v in norms.items()} | {'head.weight': torch.ones(5, 32)}
    else:
        state['_ema'] = {name: value + 1 for name, value in state.items()}
    torch.save({'args': None, 'model': state}, tmp_path / 'a.pt')
    found = open_foreign(tmp_path / 'a.pt', **HEADS)
    assert found.origin == 'data2vec2' and found.config['type'] == 'mim_mm.PostNormViT'
    for name, value in backbone.state_dict().items():
        assert torch.equal(found.backbone.state_dict()[name], value), name
    assert set(found.others) == (set() if tuned else {'decoder.decoder_blocks.0.weight', 'decoder.proj.bias'})
    found.write(tmp_path / 'ours.pth')
    features = ours(tmp_path / 'ours.pth', found)(torch.ones(1, 3, 32, 32).double())[-1]
    assert features.shape == ((1, 32) if tuned else (1, 17, 32))


def test_a_data2vec2_of_another_kind_is_refused(tmp_path):
    torch.save({'model': {'modality_encoders.IMAGE.alibi_bias': torch.ones(2)}}, tmp_path / 'a.pt')
    with pytest.raises(LoadError, match='norms in front or ALiBi'):
        open_foreign(tmp_path / 'a.pt', **HEADS)


def test_biases_of_beit_beside_what_no_backbone_has(tmp_path):
    torch.save(beit(swiglu_mlp=True, use_rel_pos_bias=True).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(LoadError, match='SwiGLU'):
        open_foreign(tmp_path / 'a.pth', **HEADS)


def test_a_file_says_its_function_and_another_backbone_refuses_it(tmp_path):
    """384 wide with 6 or 12 heads, 1e-6 or 1e-12: the same tensors, other features."""
    model = vit()
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    open_foreign(tmp_path / 'a.pth', heads=2, norm_eps=1e-3, activation='gelu_tanh').write(tmp_path / 'b.pth')
    config = torch.load(tmp_path / 'b.pth', weights_only=True)['meta']['encoder']['config']
    load_encoder(REGISTRY.build(dict(config)), tmp_path / 'b.pth')
    arch = dict(config['arch'], num_heads=4)
    for other, match in (
        (dict(arch=arch), 'num_heads is 2 in the file and 4 in the model.*model.backbone.arch .* num_heads=2'),
        (
            dict(norm_cfg=dict(type='LN', eps=1e-6)),
            r"norm_eps is 0.001 in the file.*model.backbone.norm_cfg=dict\(type='LN', eps=0.001\)",
        ),
        (dict(layer_cfgs={}), 'activation is gelu_tanh in the file and gelu in the model.*act_cfg'),
    ):
        with pytest.raises(LoadError, match=match):
            load_encoder(REGISTRY.build({**config, **other}), tmp_path / 'b.pth')


def test_config_json_of_timm(tmp_path):
    model = vit()
    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, tmp_path / 'model.safetensors')
    beside = dict(architecture='vit_small_patch8_224', model_args=dict(num_heads=2), pretrained_cfg=dict(
        mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]))  # fmt: skip
    (tmp_path / 'config.json').write_text(json.dumps(beside))
    found = open_foreign(tmp_path)
    assert found.origin == 'timm' and found.pixels == ((127.5,) * 3, (63.75,) * 3)
    found.backbone.double()
    assert difference('timm', model, found.backbone) < 1e-5
    (tmp_path / 'config.json').write_text(json.dumps(dict(beside, architecture='vit_base_patch16_clip_224')))
    with pytest.raises(LoadError, match='norm_eps.*--eps E'):
        open_foreign(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(LoadError, match='config.json beside it is no JSON'):
        open_foreign(tmp_path)


# ---------------------------------------------------------------- Hugging Face

HF = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
SHARED = dict(use_shared_relative_position_bias=True, use_relative_position_bias=False)
KINDS = {
    'ViTModel': ('ViT', {}),
    'ViTModel tanh': ('ViT', dict(hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-3, qkv_bias=False)),
    'ViTForImageClassification': ('ViT', {}),
    'DeiTModel': ('DeiT', {}),
    'ViTMAEForPreTraining': ('ViTMAE', dict(
        decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=96)),
    'ViTMSNModel': ('ViTMSN', {}),
    'IJepaModel': ('IJepa', {}),
    'BeitModel': ('Beit', dict(use_relative_position_bias=True)),
    'BeitModel shared': ('Beit', dict(SHARED, use_mask_token=True)),
    'BeitModel tokens': ('Beit', dict(use_mean_pooling=False, use_absolute_position_embeddings=True)),
    'Data2VecVisionModel': ('Data2VecVision', SHARED),
    'Dinov2Model': ('Dinov2', {}),
    'Dinov2Model swiglu': ('Dinov2', dict(use_swiglu_ffn=True)),
    'Dinov2WithRegistersModel': ('Dinov2WithRegisters', {}),
}  # fmt: skip


def hugging_face(kind):
    transformers = pytest.importorskip('transformers', reason='transformers (extra test) is not installed')
    family, options = KINDS[kind]
    config = getattr(transformers, f'{family}Config')(**{**HF, **options})
    return scattered(getattr(transformers, kind.split()[0])(config))


def hf_features(kind, model, images):
    base = getattr(model, model.base_model_prefix, model) if 'For' in kind else model
    with torch.no_grad():
        if kind.startswith('ViTMAE'):  # it shuffles even where nothing is hidden
            model.config.mask_ratio = 0.0
            out = base(images, noise=torch.arange(16.0).expand(len(images), -1))
        else:
            out = base(images)
    pooled = kind in ('BeitModel', 'BeitModel shared')
    return out.pooler_output if pooled else out.last_hidden_state


@pytest.mark.parametrize('kind', [kind for kind in KINDS if 'DeiT' not in kind])
def test_features_are_those_of_hugging_face(tmp_path, kind):
    model = hugging_face(kind)
    model.save_pretrained(tmp_path / 'theirs')
    found = open_foreign(tmp_path / 'theirs')
    found.write(tmp_path / 'ours.pth')
    images = images_of('hf')
    with torch.no_grad():
        tokens = ours(tmp_path / 'ours.pth', found)(images)[-1]
    wanted = hf_features(kind, model, images)
    assert tokens.shape == wanted.shape and wanted.abs().max() > 0.1
    assert (tokens - wanted).abs().max() < 1e-5
    if kind.startswith('ViTMAE'):
        from tiny import build

        state = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
        names = {n for n in build('MAE').state_dict() if n.startswith('decoder.')}
        assert {n for n in state if n.startswith('decoder.')} == names


def test_what_of_hugging_face_stops(tmp_path):
    hugging_face('DeiTModel').save_pretrained(tmp_path / 'deit')
    with pytest.raises(LoadError, match='distillation token'):
        open_foreign(tmp_path / 'deit')
    hugging_face('ViTModel').save_pretrained(tmp_path / 'vit')
    config = tmp_path / 'vit' / 'config.json'
    told = json.loads(config.read_text())
    for change, match in (
        (dict(hidden_act='relu'), "activation 'relu'"),
        (dict(model_type='dinov3_vit'), "model_type 'dinov3_vit'.*known are vit,"),
        (dict(num_attention_heads=None), '--heads N'),
        (dict(layer_norm_eps=None), 'norm_eps.*--eps E'),
    ):
        config.write_text(json.dumps({**told, **change}))
        with pytest.raises(LoadError, match=match):
            open_foreign(tmp_path / 'vit')
    config.unlink()
    with pytest.raises(LoadError, match='config.json'):
        open_foreign(tmp_path / 'vit')
