"""Weights of MAE's official release, encoder and decoder, under our names.

Names of the release: ``patch_embed.proj``, ``blocks.i.{norm1,attn,norm2,mlp.fc1,mlp.fc2}``, ``norm``; for the decoder
``decoder_embed, mask_token, decoder_pos_embed, decoder_blocks.i.*, decoder_norm, decoder_pred``. Position tables are
taken from the file: the release orders their channels differently from the tables that are generated here.
"""

from __future__ import annotations

from torch import Tensor

from mim_mm.checkpoint.keymap import rename_key

_DECODER = ('decoder_', 'mask_token')


def from_mae_release(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`mim_mm.algorithms.MAE` from the ``model`` entry of a release checkpoint.

    A file that holds the encoder only (the published ``mae_pretrain_vit_*.pth``) gives ``backbone.*`` keys only.

    Raises:
        ValueError: if the keys are not those of the release.
    """
    if 'blocks.0.attn.qkv.weight' not in state:
        raise ValueError(
            f'no blocks.0.attn.qkv.weight among {len(state)} keys (first: {next(iter(state), None)}): pass the "model" '
            'entry of a checkpoint of the MAE release'
        )
    renamed = {}
    for key, value in state.items():
        if key.startswith(_DECODER):
            if key.startswith('decoder_blocks.'):
                index, inner = key.removeprefix('decoder_blocks.').split('.', 1)
                block = rename_key(f'blocks.{index}.{inner}').removeprefix('layers.')
                renamed[f'decoder.decoder_blocks.{block}'] = value
            else:
                renamed['decoder.' + key.replace('decoder_norm.', 'ln1.')] = value
        else:
            renamed['backbone.' + rename_key(key)] = value
    return renamed
