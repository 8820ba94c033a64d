"""MSN, ViT-S/16, 800 epochs of ImageNet-1k (Assran et al., ECCV 2022): the configuration of the release.

    tools/dist_train.sh configs/msn/msn_vits_800e.py 8

Published: linear 76.9, 1 % of the labels 67.2 (from memory: the release shows figures only), of the teacher
(custom_hooks.0.prefix=teacher.backbone. downstream).
Batch 1024 = 8 x 128, never accumulated: Sinkhorn, mean prediction and BatchNorms are those of the whole batch, over all
GPUs. The release states no rule for other batches. In fp32, as released; optim_wrapper.dtype=bfloat16 computes losses
in fp32 still.
Cost: 86 h on 8 H100 at half of their fp32 peak, by FLOPs (81 GFLOP an image, all its views), about 24 GB each; in bf16
5.8 h at half of that peak; not measured.
"""

_base_ = [
    '../_base_/models/msn_vit.py',
    '../_base_/datasets/imagenet_msn_views.py',
    '../_base_/schedules/msn_pretrain.py',
    '../_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=10))
