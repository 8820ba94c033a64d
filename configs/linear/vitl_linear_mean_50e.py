"""Linear probe of ViT-L/16 on the mean of the patch tokens: the global_pool switch of MAE's probe, ImageNet-1k.

    tools/dist_train.sh configs/linear/vitl_linear_mean_50e.py 8 --cfg-options init=CKPT

Published: none (MAE's figures are the class token's). For encoders without a trained class token.
As vitl_linear_50e.py but for the feature: mean of the last block's patch tokens without the final norm, then a norm
that stays at weight 1 and bias 0, as in MAE's code, then BatchNorm and the linear layer.
Cost: as the probe of the class token.
"""

_base_ = ['./vitl_linear_50e.py']

model = dict(backbone=dict(out_type='avg_featmap', final_norm=False))
