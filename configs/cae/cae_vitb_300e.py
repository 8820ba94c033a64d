"""CAE, ViT-B/16, 300 epochs of ImageNet-1k (Chen et al., IJCV 2023).

    tools/dist_train.sh configs/cae/cae_vitb_300e.py 8 --cfg-options model.tokenizer_checkpoint=dalle_encoder.pth

Published: linear 64.5, fine-tune 83.6; Mask R-CNN (1x) 48.3 box AP, 42.7 mask AP (CAE release).
Needs the weights of DALL-E's encoder in mmpretrain's format; they are trained on other data than ImageNet.
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr. Checkpoints hold teacher and tokenizer too.
Cost: 4.4 h on 8 H100 at half of their bf16 peak, by FLOPs (163 GFLOP an image, 52 in the tokenizer); not measured.
"""

_base_ = [
    '../_base_/models/cae_vit.py',
    '../_base_/datasets/imagenet_two_views.py',
    '../_base_/schedules/beit_pretrain.py',
    '../_base_/default_runtime.py',
]
# The release decays the class token, against its intention; positions are fixed.
optim_wrapper = dict(paramwise_cfg=dict(no_decay=[]))
default_hooks = dict(checkpoint=dict(interval=20))
