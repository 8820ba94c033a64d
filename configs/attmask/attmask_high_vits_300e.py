"""iBOT with AttMask (high), ViT-S/16, 300 epochs of ImageNet-1k (Kakogeorgiou et al., ECCV 2022).

    tools/dist_train.sh configs/attmask/attmask_high_vits_300e.py 8

Published: k-NN 75.0, linear 77.5, of the teacher (custom_hooks.0.prefix=teacher.backbone.).
The student does not see what the class token of the teacher attends to.
One ratio a step and process, U(0.1, 0.5); each large view is masked with probability 1/2.
Batch 800 = 8 x 100 (release: 8 x 100), never accumulated: centres are means over a batch. Others: --auto-scale-lr.
Cost: 3.6 h on 8 H100 at half of their bf16 peak, by FLOPs (134 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/ibot_vit.py',
    '../_base_/datasets/imagenet_multi_crop_032.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=100)
train_cfg = dict(max_epochs=300)
model = dict(
    masker=dict(masker=dict(_delete_=True, type='AttMask', variant='high', ratio=(0.1, 0.5), round_down=True)),
)
auto_scale_lr = dict(base_batch_size=800)
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 800 / 256))
