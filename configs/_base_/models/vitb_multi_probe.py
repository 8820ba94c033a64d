# Many linear heads on one frozen ViT-B/16: the last 1 and 4 blocks, class token, mean patch and both, without and with
# BatchNorm, at DINOv2's 13 learning rates (for 256 images): 156 heads.
model = dict(
    type='mim_mm.MultiProbe',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224, patch_size=16),
    head=dict(
        num_classes=1000,
        blocks=(1, 4),
        pooling=('cls', 'mean', 'cls_mean'),
        norm=(False, True),
        lrs=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
    ),
)
