"""Whose file it is: recognised by what it holds, with the facts of the project that no tensor tells.

Sources: the code that saves each release (docs/weights.md), and their licences as docs/openmmlab.md has them. Two
projects whose files cannot be told apart (MAE and SBAM, iBOT and AttMask) compute the same function.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mim_mm.checkpoint.read import LoadError

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
# (width, depth) -> heads, as DeiT, MAE, DINO, BEiT and I-JEPA have them; MoCo v3's and CAE's ViT-S has 12.
HEADS = {
    (192, 12): 3, (384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16, (1408, 40): 16, (1536, 40): 24,
}  # fmt: skip
_CERTAIN = {size: count for size, count in HEADS.items() if size[0] != 384}
NON_COMMERCIAL = 'CC BY-NC 4.0'


@dataclass(frozen=True)
class Origin:
    """A project's files.

    label: for the report. licence: of its code; weights may have terms of their own. pixels: (mean, std) of its
    images in 0..255, None where it is not known. heads: by (width, depth). norm_eps, activation: of every size.
    """

    label: str
    licence: str
    pixels: tuple | None = IMAGENET
    heads: Mapping[tuple[int, int], int] = field(default_factory=lambda: HEADS)
    norm_eps: float | None = 1e-6
    activation: str | None = 'gelu'


ORIGINS = {
    'mae': Origin('MAE or SBAM', NON_COMMERCIAL),
    'bootmae': Origin('BootMAE', 'none stated', HALF),
    'cae': Origin('CAE', 'none stated', heads={**HEADS, (384, 12): 12}),
    'simmim': Origin('SimMIM', 'MIT'),
    'beit': Origin('BEiT', 'MIT', HALF),
    'data2vec': Origin('data2vec vision', 'none stated'),
    'data2vec2': Origin('data2vec 2.0', 'MIT; its vision weights CC BY-NC'),
    'beit-like': Origin('BEiT, data2vec, BootMAE or CAE (alike)', 'MIT, or none stated', None, heads=_CERTAIN),
    'dino': Origin('DINO', 'Apache-2.0'),
    'dinov2': Origin('DINOv2', 'Apache-2.0'),
    'ibot': Origin('iBOT or AttMask', 'Apache-2.0'),
    'mocov3': Origin('MoCo v3', NON_COMMERCIAL, heads={**HEADS, (384, 12): 12}),
    'msn': Origin('MSN', NON_COMMERCIAL),
    'ijepa': Origin('I-JEPA', NON_COMMERCIAL),
    'cmae': Origin('CMAE', 'Apache-2.0'),
    'timm': Origin('timm', 'see its model card', None),
    # MAE's and DINO's bare encoders, DeiT and timm share their names: 384 wide it may be of MoCo v3, with 12 heads.
    'bare': Origin(
        "a ViT under timm's names (MAE, DINO, iBOT, DeiT, timm ...)", 'that of its project', None,
        heads=_CERTAIN,
    ),
    'hf': Origin('Hugging Face', 'see its model card', None, heads={}, norm_eps=None, activation=None),
    'openmmlab': Origin('mmpretrain or mim_mm', 'that of its project', None),
}  # fmt: skip

# Whose encoders are not built here, by the start of a name, and why.
_UNKNOWN_FUNCTIONS = {
    r'(^|\.)modality_encoders\.(?!IMAGE\.)': 'data2vec 2.0 of speech or text',
    r'(^|\.)(rope_embed|rope)\.|(^|\.)storage_tokens$': 'rotary positions (DINOv3, EVA-02)',
    r'(^|\.)cpb_mlp\.': 'Swin v2: its positions come from a small network and its attention is scaled',
    r'(^|\.)attn_pool\.': 'a pooling by attention (SigLIP), which is part of its features',
    r'^(visual|text)\.transformer\.|(^|\.)resblocks\.': "CLIP's own names and activation: take timm's file of it",
}


def recognise(
    names: Collection[str], tensors: Mapping[str, Tensor], tops: Iterable[str], taken: str, beside: Mapping
) -> str:
    """The name in :data:`ORIGINS` of the project that wrote a file.

    Args:
        names: of the tensors of the model that is taken.
        tensors: those.
        tops: what the file holds at its top: ``ibot_loss``, ``target_encoder``.
        taken: the entry of it that the model is.
        beside: ``config.json`` beside the file, {} where there is none.

    Raises:
        LoadError: it is of a project whose encoders compute what no backbone here does, or no file of a ViT or Swin.
    """
    tops = set(tops)

    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in names)

    for pattern, what in _UNKNOWN_FUNCTIONS.items():
        found = next((name for name in names if re.search(pattern, name)), None)
        if found:
            raise LoadError(f'{found} is of {what}: no backbone here computes that. Take another file.')
    if has(r'(^|\.)modality_encoders\.IMAGE\.'):
        return 'data2vec2'
    if 'model_type' in beside:
        return 'hf'
    if has(r'(^|\.)(embeddings\.patch_embeddings|layernorm_before)\.'):
        raise LoadError(
            "the names are Hugging Face's, and the head count, the epsilon and the activation stand in its "
            'config.json only: put that file beside this one.'
        )
    if 'architecture' in beside:
        return 'timm'
    if has(r'^target_backbone\.') and has(r'^(pixel_decoder|feature_decoder)\.'):
        return 'cmae'
    if has(r'(^|\.)layers\.0\.ln1\.|(^|\.)stages\.0\.blocks\.0\.attn\.w_msa'):
        return 'openmmlab'
    rules = (
        ('ibot', 'ibot_loss' in tops or has(r'(^|\.)masked_embed$')),
        ('dino', 'dino_loss' in tops),
        ('mocov3', has(r'(^|\.)base_encoder\.')),
        ('msn', 'target_encoder' in tops and 'prototypes' in tops),
        ('ijepa', 'target_encoder' in tops and 'predictor' in tops),
        ('bootmae', has(r'^decode_blocks(_1)?\.')),
        ('cae', has(r'(^|\.)regressor_blocks\.')),
        ('simmim', has(r'^encoder\.') and has(r'^decoder\.0\.')),
        ('mae', has(r'^decoder_blocks\.')),
        ('dinov2', has(r'\.ls1\.gamma$') and has(r'(^|\.)(mask_token|register_tokens)$')),
    )
    for name, fits in rules:
        if fits:
            return name
    if has(r'\.attn\.q_bias$') or has(r'relative_position_bias_table$') and not has(r'^(.*\.)?layers\.\d+\.blocks\.'):
        return _beit_or_data2vec(tensors)
    if not has(r'(^|\.)patch_embed\.proj(ection)?\.weight$'):
        sample = ', '.join(list(names)[:4])
        raise LoadError(f'no patch_embed.proj.weight among its {len(names)} tensors ({sample}, ...): no ViT or Swin.')
    return 'bare'


def _beit_or_data2vec(tensors: Mapping[str, Tensor]) -> str:
    head = next((value for name, value in tensors.items() if re.search(r'(^|\.)lm_head\.weight$', name)), None)
    if head is None:
        return 'beit-like'
    return 'data2vec' if head.shape[0] == head.shape[1] else 'beit'  # features are predicted, or 8192 visual words
