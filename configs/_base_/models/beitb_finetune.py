# BEiT's fine-tuning model: one table of relative positions a block, no absolute ones, layer scale; the mean of the
# patch tokens, a fresh norm, a linear head; mixup and cutmix. SimMIM's ViT and CAE fine-tune in variants of it.
_base_ = './vitb_finetune.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTViT',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        layer_cfgs=dict(ffn_cfg=dict(add_identity=False, dropout_layer=None)),  # drop path once, as released
        out_type='avg_featmap',
        layer_scale_init_value=0.1,
    ),
)
