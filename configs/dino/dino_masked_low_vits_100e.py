"""DINO with the least attended patches masked, ViT-S/16, 100 epochs of ImageNet-1k: NOT THE PUBLISHED METHOD.

    tools/dist_train.sh configs/dino/dino_masked_low_vits_100e.py 8 --cfg-options model.masker.ratio=R \
        model.masker.hide_prob=P model.restore_weight=W

Published: nothing of this recipe. The idea is that of MST (Li et al., NeurIPS 2021), whose code, share of candidates R,
probability P, weight W and decoder are not known to us: the recipe does not build without R, P and W, one linear layer
stands for the decoder, and no figure of it may stand beside those of MST.
The rest is dino_vits_100e.py. Batch 512 = 8 x 64, never accumulated: the centre is a mean over one batch.
Cost: 1 h on 8 H100 at half of their bf16 peak, by FLOPs (113 GFLOP an image, all its views); not measured.
"""

_base_ = './dino_vits_100e.py'
model = dict(
    type='MaskedDINO',
    masker=dict(type='AttMask', variant='low', ratio=None, hide_prob=None),
    decoder=dict(type='mmpretrain.SimMIMLinearDecoder', in_channels=384, encoder_stride=16),
    restore_weight=None,
)
