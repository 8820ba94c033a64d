# mmdet's Mask R-CNN with FPN for any backbone whose maps have strides 4, 8, 16 and, if it goes so far, 32: give
# model.backbone and the channels of its maps as model.neck.in_channels. The detector checks the strides.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    type='mim_mm.MIMMaskRCNN',
    roi_head=dict(
        # bf16 features, fp32 boxes: see mim_mm/detection/roi_extractor.py
        bbox_roi_extractor=dict(type='mim_mm.FullPrecisionRoIExtractor'),
        mask_roi_extractor=dict(type='mim_mm.FullPrecisionRoIExtractor'),
    ),
)
