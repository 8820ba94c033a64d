"""MaskFeat, ViT-B/16, 300 epochs of ImageNet-1k: HOG of hidden patches (Wei et al., CVPR 2022), from mmpretrain.

    tools/dist_train.sh configs/upstream/maskfeat_vitb_300e.py 8

Published: fine-tune 83.4 (mmpretrain).
mmpretrain's recipe and class as they are, masks and schedule included (its warm-up ends an iteration early);
ours are reading, the guard against NaN, checkpoints and exact resuming. Maskers and salience do not reach it.
Downstream: any recipe of VisionTransformer.
Cost: not measured here.
"""

_base_ = 'mmpretrain::maskfeat/maskfeat_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

custom_imports = dict(imports=['mim_mm'], allow_failed_imports=False)
data_root = r"""{{$IMAGENET_ROOT:data/imagenet}}"""
train_dataloader = dict(
    collate_fn=dict(_delete_=True, type='default_collate'),
    dataset=dict(
        _delete_=True,
        type='mim_mm.UnlabelledImages',
        data_root=data_root,
        data_prefix='train',
        pipeline=_base_.train_pipeline,  # noqa: F821
    ),
)
default_hooks = dict(
    finite=dict(type='mim_mm.FiniteHook'),
    runtime_info=dict(type='mim_mm.DeferredRuntimeInfoHook'),
    data_wait=dict(type='mim_mm.DataWaitHook'),
    checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    exact_resume=dict(type='mim_mm.ExactResumeHook'),
)
