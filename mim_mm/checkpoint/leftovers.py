"""What of a file may be left over when its encoder is loaded, and what to set where something may not.

A tensor of the encoder that finds no place changes what the encoder computes (layer scale, norms of queries and keys,
register tokens ...), however few values it has. So nothing is left over but what is known to be no part of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor

# Parts of pretrainings, classifiers and detectors that lie behind or beside the encoder, by the start of the name.
KNOWN = {
    'mask token': r'(mask_token(s|_\d+|s\.\d+)?|masked_embed|mask_embed|mask_embedding)$',
    # BootMAE's release: decode_blocks, decode_norm_1, de_pos_embed, down_1
    'decoder': r'(\w*decoder\w*|decode_\w+|de_pos_embed|down(_1)?(?=\.(weight|bias)$)|enc_dec_\w+|regressor\w*)(\.|$)',
    'head': r'(\w*head\w*|fc|classifier|pre_logits|last_layer|cls_pt_layers|attn_?pool|aux_\w+)(\.|$)',
    'neck, projector or predictor': r'(neck\w*|\w*projectors?|\w*projection_head|pred|predictor\w*|'
    r'prototypes?|bottleneck\w*|fpn\w*)(\.|$)',
    'momentum copy': r'(momentum_\w+|teacher\w*|student\w*|target_(encoder|net|network|model|branch)|alignment_encoder|'
    r'encoder_k|ema_\w+|\w+_ema)(\.|$)',
    'queue or centre': r'(queue\w*|memory_bank|(\w+_)?cent(er|re)|initted|steps)(\.|$)',
    'targets or tokenizer': r'(target_generator|tokenizer|dall_?e|d_vae|vqkd|hog_layer)(\.|$)',
    'masks or preprocessing': r'(masker|mask_generator|data_preprocessor|preprocessor|normalize)(\.|$)',
    'text model': r'(text\w*|logit_scale|logit_bias)(\.|$)',
}
_KNOWN = {kind: re.compile(pattern) for kind, pattern in KNOWN.items()}
# Buffers computed from the architecture; a stored one may belong to another size and is never loaded.
DERIVED_BUFFERS = re.compile(
    r'(^|\.)(relative_position_index|relative_coords_table|attn_mask|attention_bias_idxs|num_batches_tracked)$'
)
LAST_NORM = re.compile(r'^(ln1|norm)\.')
POOLED_NORM = re.compile(r'^(ln2|fc_norm)\.')
MAP_NORM = re.compile(r'^norm\d+\.')

# Left over in the file -> what to set. Tried in this order, each tensor by the first that fits.
_UNPLACED = (
    (
        r'\.(attn\.gamma1|ffn\.gamma2)\.weight$|\.(gamma_[12]|gamma)$',
        'layer scale: set model.backbone.layer_scale_init_value=1e-5 (any value above 0, the file has the real ones)',
    ),
    (r'^(pre_norm|norm_pre)\.', 'a norm before the blocks, as in CLIP: set model.backbone.pre_norm=True'),
    (r'\.(q_norm|k_norm)\.', 'norms of queries and keys (qk_norm): no backbone here has them, not supported'),
    (
        r'^(reg_tokens?|register_tokens?|storage_tokens?)$',
        "register tokens: not supported by this kind of backbone, set model.backbone.type='mim_mm.RegisterViT' and "
        'num_registers to their number',
    ),
    (r'^dist_token$', 'a distillation token (DeiT): not supported, take the file that was trained without it'),
    (r'^cls_token$', 'a class token: set model.backbone.with_cls_token=True'),
    (
        r'^(ln2|fc_norm)\.',
        "a norm after average pooling: set model.backbone.out_type='avg_featmap' and final_norm=False",
    ),
    (
        r'relative_position_bias_table$',
        'relative positions: take a BEiTViT with the form of the file, '
        'use_rel_pos_bias=True (a table a block) or use_shared_rel_pos_bias=True (one for all)',
    ),
    (r'(^|\.)rel_pos_[hw]$|rope', 'relative or rotary positions: no backbone of this kind has them, not supported'),
    (
        r'\.(mlp|ffn)\.(w12|w3|w[12]|fc1_g|fc1_x)\.',
        'a SwiGLU instead of the MLP: set '
        "model.backbone.layer_cfgs=dict(ffn_type='swiglu_fused') for DINOv2's (w12 and w3, or packed by timm); other "
        'forms are not supported',
    ),
    (r'\.(attn|mlp|ffn)\.(inner_attn_ln|ffn_ln|norm)\.', 'norms inside attention or MLP (EVA-02): not supported'),
    (r'\.attn\.(q_proj|k_proj|v_proj)\.', 'separate projections of queries, keys and values (EVA-02): not supported'),
    (r'\.attn\.qkv\.bias$', 'a bias of queries, keys and values: set model.backbone.qkv_bias=True'),
    (r'\.attn\.(q_bias|v_bias|k_bias)$', 'biases of queries and values: set model.backbone.qkv_bias=True'),
    (
        r'^patch_embed\..*bias$',
        'a bias of the patch embedding: set model.backbone.pre_norm=False, or patch_cfg=dict(bias=True)',
    ),
    (r'^pos_embed$', 'absolute positions: set model.backbone.use_abs_pos_emb=True (BEiTViT)'),
)
# A parameter of the model that the file lacks -> what to set.
_UNFILLED = (
    (
        r'\.(attn\.gamma1|ffn\.gamma2)\.weight$|\.gamma_[12]$',
        'the file has no layer scale: set model.backbone.layer_scale_init_value=0',
    ),
    (r'^pre_norm\.', 'the file has no norm before the blocks: set model.backbone.pre_norm=False'),
    (
        r'\.attn\.(qkv\.bias|q_bias|v_bias)$',
        'the file has no bias of queries, keys and values: set model.backbone.qkv_bias=False (BEiTViT: bias=False)',
    ),
    (r'^cls_token$', 'the file has no class token: set model.backbone.with_cls_token=False'),
    (r'^patch_embed\..*bias$', 'the file has no bias of the patch embedding, as with pre_norm=True'),
    (r'^pos_embed$', 'the file has no table of absolute positions: another kind of encoder (rotary positions?)'),
    (r'^ln1\.', 'the file has no norm before pooling: set model.backbone.final_norm=False'),
    (r'\.ffn\.w(12|3)\.', "the file has an ordinary MLP: take layer_cfgs without ffn_type='swiglu_fused'"),
    (r'(running_mean|running_var)$', 'statistics of BatchNorm are missing in the file'),
)


def sort_left_over(
    outside: Iterable[str],
    inside: Iterable[str],
    own: Collection[str],
    filled: Collection[str],
    prefix: str = '',
    copies: Sequence[str] = (),
    skip: Sequence[str] = (),
    cut_depth: bool = False,
) -> tuple[dict[str, str], list[str]]:
    """Which of the tensors that found no place may be left over, and as what; the others.

    Args:
        outside: Names in the file that do not lie under the encoder's prefix.
        inside: Names under it that the backbone does not have, as the backbone would spell them.
        own: Names of the backbone.
        filled: Those of them that the file has.
        prefix: That of the encoder; what lies beside it is judged by its name there: ``visual.head`` of
            ``visual.trunk.``.
        copies: Prefixes of further copies of the encoder.
        skip: Regular expressions of names that the user leaves out on purpose.
        cut_depth: Blocks beyond the depth of the backbone may be left over.

    Returns:
        {name: what it is}, and the names of no known kind.
    """
    allowed, unplaced = {}, []
    parts = prefix.split('.')[:-2]
    beside = tuple('.'.join(parts[: n + 1]) + '.' for n in reversed(range(len(parts))))
    for name, is_inside in [*((n, False) for n in outside), *((n, True) for n in inside)]:
        parent = next((p for p in beside if not is_inside and name.startswith(p)), '')
        kind = _kind(name.removeprefix(parent), is_inside, own, filled)
        if kind is None and not is_inside and name.startswith(tuple(copies)):
            kind = 'another copy of the encoder'
        if kind is None and is_inside and cut_depth and _in_block(name, _depth(own)):
            kind = 'block beyond the depth of this backbone, as asked'
        if kind is None and any(re.search(pattern, name) for pattern in skip):
            kind = 'named in skip'
        if kind is None:
            unplaced.append(name)
        else:
            allowed[name] = kind
    return allowed, unplaced


def _kind(name: str, inside: bool, own: Collection[str], filled: Collection[str]) -> str | None:
    bare = re.sub(r'^(module\.|model\.)+', '', name)
    kind = next((kind for kind, pattern in _KNOWN.items() if pattern.match(bare)), None)
    if kind is not None or not inside:
        return kind
    if DERIVED_BUFFERS.search(name):
        return 'computed from the architecture'
    ends = [n for n in own if LAST_NORM.match(n) or POOLED_NORM.match(n)]
    if LAST_NORM.match(name) or MAP_NORM.match(name):
        return 'final norm, which this backbone does without'
    if POOLED_NORM.match(name) and (not ends or any(LAST_NORM.match(n) and n in filled for n in ends)):
        return 'norm after average pooling, which this backbone does without'
    if name == 'cls_token' and 'cls_token' not in own:
        return 'class token, which this backbone does without'
    return None


def advice(unplaced: Iterable[str], unfilled: Iterable[str], state: Collection[str], own: Collection[str]) -> list[str]:
    """What to set so that file and model agree, one sentence a cause; ``state``, ``own``: all names of either."""
    depths = _depth(state), _depth(own)
    hints = []
    if depths[0] != depths[1] and all(depths):
        hints.append(
            f'the file has {depths[0]} blocks, the model {depths[1]}: set model.backbone.arch to that of the file'
            + (' (cut_depth=True of LoadPretrainedHook takes the first ones)' if depths[0] > depths[1] else '')
        )
        unplaced = [n for n in unplaced if not _in_block(n, depths[1])]
        unfilled = [n for n in unfilled if not _in_block(n, depths[0])]
    for names, rules in ((unplaced, _UNPLACED), (unfilled, _UNFILLED)):
        if not any('not supported' in hint for hint in hints):  # then nothing that is set would make it fit
            hints += [text for name in names for text in [t for pattern, t in rules if re.search(pattern, name)][:1]]
    return list(dict.fromkeys(hints))


def _in_block(name: str, first: int) -> bool:
    """Whether the name is of a block with number ``first`` or above."""
    block = re.match(r'(?:layers|blocks)\.(\d+)\.', name)
    return bool(block) and int(block[1]) >= first


def _depth(names: Iterable[str]) -> int:
    """Number of blocks; 0 where they are not numbered in one row (Swin)."""
    blocks = [re.match(r'(?:layers|blocks)\.(\d+)\.', name) for name in names]
    return max((int(block[1]) + 1 for block in blocks if block), default=0)


def extra_tokens(state: Mapping[str, Tensor]) -> int:
    """How many tokens beside class and patches the file has: registers, a distillation token."""
    names = [n for n in state if re.fullmatch(r'dist_token|reg_tokens?|register_tokens?|storage_tokens?', n)]
    return sum(state[n].shape[-2] if state[n].ndim > 1 else 1 for n in names)


def gathered(names: Iterable[str]) -> list[str]:
    """Names without the numbers of blocks, and how many each stands for: ``layers.*.attn.gamma1.weight (12)``."""
    counts = Counter(re.sub(r'(?<=\.)\d+(?=\.)', '*', name) for name in names)
    found = {re.sub(r'(?<=\.)\d+(?=\.)', '*', name): name for name in names}
    return [f'{stem} ({n})' if n > 1 else found[stem] for stem, n in counts.items()]


def some(names: Sequence[str], most: int = 8) -> str:
    """The first kinds of names, for a message."""
    stems = gathered(names)
    return ', '.join(stems[:most]) + (f' and {len(stems) - most} more kinds' if len(stems) > most else '')
