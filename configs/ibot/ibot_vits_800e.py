"""iBOT, ViT-S/16, 800 epochs of ImageNet-1k (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/ibot/ibot_vits_800e.py 8

Published: k-NN 75.2, linear 77.9, fine-tune 82.3, all of the teacher (custom_hooks.0.prefix=teacher.backbone.).
All values are those of the release's command. iBOT's "rand": model.masker.masker.type=RandomMasking and a ratio.
Batch 1024 = 8 x 128, never accumulated: the centres are means over one batch. Other batches: --auto-scale-lr.
Difference: bf16 without a loss scaler where the release has fp16.
Cost: 9.6 h on 8 H100 at half of their bf16 peak, by FLOPs (134 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/ibot_vit.py',
    '../_base_/datasets/imagenet_multi_crop_025.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=800)
default_hooks = dict(checkpoint=dict(interval=10))
