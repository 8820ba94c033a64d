"""iTPN on pixels, HiViT-B, 800 epochs of ImageNet-1k (Tian et al., CVPR 2023), from mmpretrain.

    tools/dist_train.sh configs/upstream/itpn_hivitb_800e.py 8

Published: none by mmpretrain.
mmpretrain's recipe and class as they are, masks and schedule included (its warm-up ends an iteration early);
ours are reading, the guard against NaN, checkpoints and exact resuming. Maskers and salience do not reach it.
Downstream: mmpretrain.HiViT with ape=True, rpe=False.
Cost: not measured here.
"""

_base_ = 'mmpretrain::itpn/itpn-pixel_hivit-base-p16_8xb512-amp-coslr-800e_in1k.py'

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
