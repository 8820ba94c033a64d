# mmdet's Mask R-CNN with a windowed ViT-B/16, deconvolution pyramid and FPN; SyncBN in FPN and heads.
# On one process SyncBN is BatchNorm; on several it needs GPUs.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm = dict(type='SyncBN')
predictor = dict(type='mim_mm.FullPrecisionLinear')
model = dict(
    type='mim_mm.MIMMaskRCNN',
    # As mmdet's, without a wait for the device an image, level or object: mim_mm/detection/without_waits.py
    data_preprocessor=dict(type='mim_mm.WaitlessDetDataPreprocessor', pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        type='mim_mm.WindowedViT',
        arch='base',
        img_size=1024,
        window_size=16,
        rel_pos='shared_bias',
        pos_embed_mode='fixed',
        drop_path_rate=0.1,
        out_indices=(2, 5, 8, 11),
    ),
    neck=dict(
        _delete_=True,
        type='mim_mm.DeconvPyramid',
        in_channels=768,
        fpn=dict(type='FPN', out_channels=256, num_outs=5, norm_cfg=norm),
    ),
    rpn_head=dict(
        type='mim_mm.FullPrecisionRPNHead',
        num_convs=2,
        anchor_generator=dict(type='mim_mm.WaitlessAnchorGenerator'),
    ),
    roi_head=dict(
        # bf16 features, fp32 boxes and scores: see mim_mm/detection/{roi_extractor,predictors}.py
        bbox_roi_extractor=dict(type='mim_mm.FullPrecisionRoIExtractor'),
        mask_roi_extractor=dict(type='mim_mm.FullPrecisionRoIExtractor'),
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead', norm_cfg=norm, cls_predictor_cfg=predictor, reg_predictor_cfg=predictor
        ),
        mask_head=dict(norm_cfg=norm),
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(type='mim_mm.WaitlessMaxIoUAssigner')),
        rcnn=dict(assigner=dict(type='mim_mm.WaitlessMaxIoUAssigner', match_low_quality=False)),
    ),
)
