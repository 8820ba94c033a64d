# CMAE, ViT-B/16: MAE on squares of 2 x 2 patches (32 of 49 hidden), a feature decoder of 2 blocks, projector and
# predictor of width 1536 -> 256, a target encoder with momentum 0.996.
_base_ = './mae_vit.py'
model = dict(
    type='CMAE',
    masker=dict(type='RandomMasking', ratio=0.65),
    mask_unit=32,
    feature_decoder=dict(type='MAEDecoder', embed_dims=512, depth=2, num_heads=16),
    hidden_dims=1536,
    out_dims=256,
    temperature=0.07,
    momentum=0.996,
    data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
)
