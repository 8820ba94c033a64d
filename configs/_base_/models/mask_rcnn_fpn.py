# mmdet's Mask R-CNN with FPN for any backbone whose maps have strides 4, 8, 16 and, if it goes so far, 32: give
# model.backbone and the channels of its maps as model.neck.in_channels. The detector checks the strides.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

predictor = dict(type='mim_mm.FullPrecisionLinear')
model = dict(
    type='mim_mm.MIMMaskRCNN',
    # As mmdet's, without a wait for the device an image, level or object: mim_mm/detection/without_waits.py
    data_preprocessor=dict(type='mim_mm.WaitlessDetDataPreprocessor'),
    rpn_head=dict(type='mim_mm.FullPrecisionRPNHead', anchor_generator=dict(type='mim_mm.WaitlessAnchorGenerator')),
    roi_head=dict(
        # bf16 features, fp32 boxes and scores: see mim_mm/detection/{roi_extractor,predictors}.py
        bbox_roi_extractor=dict(type='mim_mm.FullPrecisionRoIExtractor'),
        mask_roi_extractor=dict(type='mim_mm.FullPrecisionRoIExtractor'),
        bbox_head=dict(cls_predictor_cfg=predictor, reg_predictor_cfg=predictor),
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(type='mim_mm.WaitlessMaxIoUAssigner')),
        rcnn=dict(assigner=dict(type='mim_mm.WaitlessMaxIoUAssigner')),
    ),
)
