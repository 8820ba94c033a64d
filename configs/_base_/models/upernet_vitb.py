# UperNet on four maps of a ViT-B/16 at 512 px, as BEiT's release has it and MAE, CAE and BootMAE took it over:
# deconvolutions and pooling to strides 4, 8, 16, 32, and a second head on the third map. In fine-tuning each block gets
# relative positions, zero at the start, and a layer scale of one, so that at first it computes what the pretrained one
# did. Tables of relative positions are for one size: what is smaller than 512 px is padded, in tests too.
# SyncBN on one process is BatchNorm; on several it needs GPUs.
norm = dict(type='SyncBN', requires_grad=True)
crop = (512, 512)
model = dict(
    type='mim_mm.MIMSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,  # behind the normalisation
        seg_pad_val=255,
        size=crop,
        test_cfg=dict(size=crop),
    ),
    backbone=dict(
        type='mmpretrain.BEiTViT',
        arch='base',
        img_size=512,
        patch_size=16,
        drop_path_rate=0.1,
        layer_cfgs=dict(ffn_cfg=dict(add_identity=False, dropout_layer=None)),  # drop path once, as released
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        use_abs_pos_emb=True,
        use_rel_pos_bias=True,
        layer_scale_init_value=1.0,
    ),
    neck=dict(type='Feature2Pyramid', embed_dim=768, norm_cfg=norm),
    decode_head=dict(
        type='mim_mm.FullPrecisionUPerHead',
        in_channels=[768] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=768,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='mim_mm.FullPrecisionFCNHead',
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=crop, stride=(341, 341)),
)
