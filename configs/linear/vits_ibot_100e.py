"""Linear probe of ViT-S/16 on ImageNet-1k: iBOT's sweep of 45 rates, class tokens of the last four blocks (Zhou 2022).

    tools/dist_train.sh configs/linear/vits_ibot_100e.py 8 --cfg-options init=CKPT

Published: iBOT ViT-S/16 3200 epochs 77.9; 100 epochs 74.4 (as quoted by EMAE).
n = 4, avgpool_patchtokens = 0 in iBOT's terms: each block's class token after the final norm, joined: 1536 values. SGD,
lr {1..9} x {0.0001 .. 1} x batch / 256, momentum 0.9, no decay, 100 epochs, cosine set once an epoch; bilinear crops,
bicubic test images. Batch 8 x 128. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and
model.head.num_classes=N. All 45 heads: WORK_DIR/probe_heads.json. Heads whose rate is too high may diverge.
Differences: the head is chosen on images held out of train (a tenth, at most 50 a class, which are not trained on);
iBOT takes the best of all heads and epochs on the test set. Encoder in bf16 on a GPU (model.autocast=False: fp32).
Cost: not measured here.
"""

_base_ = ['./vitb_ibot_100e.py']

model = dict(backbone=dict(arch='deit-small'), head=dict(blocks=[4], pooling=['cls']))
