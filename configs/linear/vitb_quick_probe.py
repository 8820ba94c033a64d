"""Quick linear probe of ViT-B/16 on ImageNet-1k: 156 heads in one run, as DINOv2's eval/linear.py (Oquab et al. 2024).

    tools/dist_train.sh configs/linear/vitb_quick_probe.py 8 --cfg-options init=CKPT

Published: DINOv2 (own data, distilled) ViT-B/14 84.5; no figure of this protocol for MAE or EMAE. Heads: last 1 and 4
blocks, each after the final norm; class token, mean patch, both; without and with BatchNorm (no affine). SGD, 13 rates
x batch / 256, momentum 0.9, no decay, cosine to 0, 12500 iterations of 1024 images (8 x 128). Other batches:
--auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N. All heads: WORK_DIR/probe_heads.json.
Differences from DINOv2's script: the head is chosen on images held out of train (a tenth, at most 50 a class; not
trained on), not on the test set; mean patch alone and BatchNorm are added, without which MAE's features do badly;
DINOv2's own 52 heads: model.head.pooling=['cls','cls_mean'] model.head.norm=[False]. Encoder in bf16, heads in fp32.
Cost: 12.8 M frozen forward passes and ten evaluations of 100,000 images; not measured here. 340 M head parameters are
4 GB with gradient and momentum; without a fast network between nodes use fewer heads.
"""

_base_ = [
    '../_base_/models/vitb_multi_probe.py',
    '../_base_/datasets/imagenet_linear.py',
    '../_base_/downstream_runtime.py',
]
default_scope = 'mmpretrain'

# fit: the training folder without what is held out; choose: what is held out; report: the test set
held_out = dict(fraction=0.1, at_most=50, seed=0)
images = dict(type='mim_mm.ProbeImages', data_root={{_base_.data_root}})
train_pipeline = {{_base_.train_pipeline}}
test_pipeline = {{_base_.test_pipeline}}
train_dataloader = dict(
    batch_size=128,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(_delete_=True, **images, data_prefix='train', part='fit', **held_out, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(**images, data_prefix='train', part='choose', **held_out, pipeline=test_pipeline),
            dict(**images, data_prefix='val', classes_from='train', part='report', pipeline=test_pipeline),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mim_mm.ProbeAccuracy')
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=1024 / 256, momentum=0.9, weight_decay=0.0, fused=True),  # x model.head.lrs
    constructor='mim_mm.ProbeHeadsConstructor',
)
param_scheduler = dict(type='mim_mm.HalfCosineLR', by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=12500, val_interval=1250)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1250, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='mim_mm.ProbeReportHook'),
    dict(type='SyncBuffersHook'),
]
