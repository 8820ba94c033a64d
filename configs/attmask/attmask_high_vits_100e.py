"""iBOT with AttMask (high), ViT-S/16, 100 epochs of ImageNet-1k (Kakogeorgiou et al., ECCV 2022).

    tools/dist_train.sh configs/attmask/attmask_high_vits_100e.py 8

Published: k-NN 72.5, linear 75.7, of the teacher (custom_hooks.0.prefix=teacher.backbone.).
The student does not see what the class token of the teacher attends to.
One ratio a step and process, U(0.1, 0.5); each large view is masked with probability 1/2.
Batch 240 = 8 x 30 (release: 4 x 60), never accumulated: the centres are means over one batch. Others: --auto-scale-lr.
Cost: 1.2 h on 8 H100 at half of their bf16 peak, by FLOPs (134 GFLOP an image, all its views); not measured.
"""

_base_ = '../ibot/ibot_vits_800e.py'
train_dataloader = dict(batch_size=30)
train_cfg = dict(max_epochs=100)
model = dict(
    masker=dict(masker=dict(_delete_=True, type='AttMask', variant='high', ratio=(0.1, 0.5), round_down=True)),
)
auto_scale_lr = dict(base_batch_size=240)
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 240 / 256))
