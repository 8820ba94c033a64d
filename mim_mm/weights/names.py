"""From the names and layouts of Hugging Face, Swin and torchvision to timm's or mmpretrain's, and back.

Hugging Face keeps queries, keys and values apart, Swin's authors lay the four patches that are merged in another
order. timm's names for plain ViTs are mapped in :mod:`mim_mm.checkpoint.keymap`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_HF_MODEL = re.compile(
    r'^(?:vit|vit_mae|vit_msn|beit|data2vec_vision|dinov2|dinov2_with_registers|ijepa|deit|model)\.(?=embeddings|'
    r'encoder\.|layers?\.|layernorm|pooler|shared_position|layer\.)'
)
# In order; of transformers 4 (the files of its hub) and of 5.
_HF = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r'^embeddings\.patch_embeddings\.(?:projection\.)?', 'patch_embed.proj.'),
        (r'^embeddings\.position_embeddings$', 'pos_embed'),
        (r'^embeddings\.distillation_token$', 'dist_token'),
        (r'^embeddings\.', ''),
        (r'^(?:encoder\.relative_position_bias|shared_position_bias)\.', 'rel_pos_bias.'),
        (r'^(?:encoder\.layer|layers?)\.', 'blocks.'),
        (r'^(blocks\.\d+)\.(?:attention\.attention\.)?relative_position_bias\.', r'\1.attn.'),
        (r'^(blocks\.\d+)\.attention\.(?:attention\.)?(?:query|q_proj)\.', r'\1.attn.q.'),
        (r'^(blocks\.\d+)\.attention\.(?:attention\.)?(?:key|k_proj)\.', r'\1.attn.k.'),
        (r'^(blocks\.\d+)\.attention\.(?:attention\.)?(?:value|v_proj)\.', r'\1.attn.v.'),
        (r'^(blocks\.\d+)\.attention\.(?:output\.dense|o_proj)\.', r'\1.attn.proj.'),
        (r'^(blocks\.\d+)\.intermediate\.dense\.', r'\1.mlp.fc1.'),
        (r'^(blocks\.\d+)\.output\.dense\.', r'\1.mlp.fc2.'),
        (r'^(blocks\.\d+)\.mlp\.weights_in\.', r'\1.mlp.w12.'),
        (r'^(blocks\.\d+)\.mlp\.(?:weights_out|down_proj)\.', r'\1.mlp.w3.'),
        (r'^(blocks\.\d+)\.layernorm_before\.', r'\1.norm1.'),
        (r'^(blocks\.\d+)\.layernorm_after\.', r'\1.norm2.'),
        (r'^(blocks\.\d+)\.(?:lambda_|layer_scale)([12])(?:\.lambda1)?$', r'\1.gamma_\2'),
        (r'^layernorm\.', 'norm.'),
        (r'^pooler\.layernorm\.', 'fc_norm.'),
        (r'^(?:pooler\.dense|classifier|cls_classifier|distillation_classifier|lm_head)\.', 'head.'),
    )
)


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a Hugging Face ViT under timm's names, q, k and v in one; a MAE decoder under those of its release."""
    renamed = {}
    for key, value in state.items():
        name = _HF_MODEL.sub('', key)
        if name.startswith('decoder.'):  # transformers 5 saves its blocks as decoder_encoder.layer
            inner = re.sub(r'^decoder\.decoder_(encoder\.layer|layers)\.', 'layers.', name).removeprefix('decoder.')
            name = re.sub(r'^blocks\.', 'decoder_blocks.', _renamed(inner))
        else:
            name = _renamed(name)
        renamed[name] = value
    return _fused(renamed)


def _renamed(name: str) -> str:
    for pattern, to in _HF:
        name = pattern.sub(to, name)
    return name


def _fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v as one projection; where keys have no bias, as BEiT's ``q_bias`` and ``v_bias``. SwiGLU likewise."""
    out = dict(state)
    for name in state:
        if name.endswith('.attn.q.weight'):
            stem = name.removesuffix('q.weight')
            out[f'{stem}qkv.weight'] = torch.cat([out.pop(f'{stem}{part}.weight') for part in 'qkv'])
            biases = {part: out.pop(f'{stem}{part}.bias', None) for part in 'qkv'}
            if all(bias is not None for bias in biases.values()):
                out[f'{stem}qkv.bias'] = torch.cat(list(biases.values()))
            elif biases['q'] is not None and biases['v'] is not None:
                out[f'{stem}q_bias'], out[f'{stem}v_bias'] = biases['q'], biases['v']
        elif re.search(r'\.mlp\.gate_proj\.(weight|bias)$', name):
            up = name.replace('gate_proj', 'up_proj')
            out[name.replace('gate_proj', 'w12')] = torch.cat((out.pop(name), out.pop(up)))
    return out


def to_hugging_face(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Tensors under timm's names as those of a Hugging Face model; names of its hub, which all versions read.

    Args:
        state: qkv in one, biases of BEiT apart, layer scale as ``gamma_1``.
        kind: ``model_type`` of the config: 'vit', 'vit_mae', 'beit', 'dinov2', 'dinov2_with_registers'.
    """
    out = {}
    apart = kind.startswith('dinov2')
    for name, value in state.items():
        block = re.match(r'blocks\.(\d+)\.(.+)', name)
        if block is None:
            out[_HF_TOP.get(name) or _HF_TOP[name.rpartition('.')[0]] + name.rpartition('.')[2]] = value
            continue
        stem, inner = f'encoder.layer.{block[1]}.', block[2]
        attention = f'{stem}attention.attention.'
        if inner.startswith('attn.qkv.'):
            for part, piece in zip(('query', 'key', 'value'), value.chunk(3)):
                out[f'{attention}{part}.{inner.rpartition(".")[2]}'] = piece.clone()
        elif inner in ('attn.q_bias', 'attn.v_bias'):
            out[f'{attention}{dict(q="query", v="value")[inner[5]]}.bias'] = value
        elif inner == 'attn.relative_position_bias_table':
            out[f'{attention}relative_position_bias.relative_position_bias_table'] = value
        elif inner in ('gamma_1', 'gamma_2'):
            out[stem + (f'layer_scale{inner[-1]}.lambda1' if apart else f'lambda_{inner[-1]}')] = value
        else:
            part, _, last = inner.rpartition('.')
            names = _HF_DINO if apart and part in _HF_DINO else _HF_BLOCK
            out[f'{stem}{names[part]}.{last}'] = value
    return out


_HF_TOP = {
    'cls_token': 'embeddings.cls_token', 'pos_embed': 'embeddings.position_embeddings',
    'register_tokens': 'embeddings.register_tokens', 'mask_token': 'embeddings.mask_token',
    'patch_embed.proj': 'embeddings.patch_embeddings.projection.',
    'norm': 'layernorm.', 'fc_norm': 'pooler.layernorm.',
}  # fmt: skip
_HF_BLOCK = {
    'norm1': 'layernorm_before', 'norm2': 'layernorm_after', 'attn.proj': 'attention.output.dense',
    'mlp.fc1': 'intermediate.dense', 'mlp.fc2': 'output.dense',
}  # fmt: skip
_HF_DINO = {
    'norm1': 'norm1', 'norm2': 'norm2', 'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2', 'mlp.w12': 'mlp.weights_in',
    'mlp.w3': 'mlp.weights_out',
}  # fmt: skip

# ---------------------------------------------------------------- Swin

_SWIN = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
        (r'^layers\.', 'stages.'),
        (r'\.attn\.(qkv|proj|relative_position_bias_table)', r'.attn.w_msa.\1'),
        (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
        (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    )
)
_SWIN_BACK = (
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'), (r'^stages\.', 'layers.'), (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'), (r'\.ffn\.layers\.1\.', '.mlp.fc2.'), (r'^norm\d+\.', 'norm.'),
)  # fmt: skip


def from_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of Swin's release or of timm under mmpretrain's names; timm merges patches at the start of a stage."""
    late = any(re.match(r'layers\.0\.downsample\.', name) for name in state)
    last = max(int(found[1]) for name in state if (found := re.match(r'layers\.(\d+)\.', name)))
    out = {}
    for name, value in state.items():
        if re.search(r'(relative_position_index|relative_coords_table|attn_mask)$', name):
            continue
        found = re.match(r'layers\.(\d+)\.downsample\.(.+)', name)
        if found:
            name = f'stages.{int(found[1]) - (not late)}.downsample.{found[2]}'
            value = _merged(value, towards=True)
        for pattern, to in _SWIN:
            name = pattern.sub(to, name)
        out[re.sub(r'^norm\.', f'norm{last}.', name)] = value
    return out


def to_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmpretrain's Swin under timm's names."""
    out = {}
    for name, value in state.items():
        if re.search(r'(relative_position_index|attn_mask)$', name):
            continue
        found = re.match(r'stages\.(\d+)\.downsample\.(.+)', name)
        if found:
            name, value = f'layers.{int(found[1]) + 1}.downsample.{found[2]}', _merged(value, towards=False)
        for pattern, to in _SWIN_BACK:
            name = re.sub(pattern, to, name)
        out[name] = value
    return out


def _merged(value: Tensor, towards: bool) -> Tensor:
    """The last axis, four neighbouring patches: the authors' [corner, channel], columns first -> [channel, corner],
    rows first, as mmpretrain's unfold gives them; or back."""
    order = [0, 2, 1, 3]
    if towards:
        return value.unflatten(-1, (4, -1))[..., order, :].transpose(-1, -2).flatten(-2)
    return value.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., order, :].flatten(-2)


# ---------------------------------------------------------------- torchvision

_TORCHVISION = (
    (r'^cls_token$', 'class_token'),
    (r'^pos_embed$', 'encoder.pos_embedding'),
    (r'^patch_embed\.proj\.', 'conv_proj.'),
    (r'^norm\.', 'encoder.ln.'),
    (r'^blocks\.', 'encoder.layers.encoder_layer_'),
    (r'\.norm([12])\.', r'.ln_\1.'),
    (r'\.attn\.qkv\.', '.self_attention.in_proj_'),
    (r'\.attn\.proj\.', '.self_attention.out_proj.'),
    (r'\.mlp\.fc1\.', '.mlp.0.'),
    (r'\.mlp\.fc2\.', '.mlp.3.'),
)


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain ViT under timm's names as torchvision's."""
    return renamed(state, _TORCHVISION)


def renamed(state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Every name after all (pattern, replacement) in their order."""
    out = {}
    for name, value in state.items():
        for pattern, to in rules:
            name = re.sub(pattern, to, name)
        out[name] = value
    return out
