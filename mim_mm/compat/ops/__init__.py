"""The functions of ``mmcv._ext`` on torchvision and torch.

Each has the name, argument order and in-place outputs with which ``mmcv/ops/*.py`` calls the compiled one. Half
precision inputs (fp16, bf16) are computed in fp32 and written back in the dtype of the output; fp64 stays fp64.

``FUNCTIONS``: name -> function. ``SOURCES``: name -> 'torchvision' or 'torch'. ``REASONS``: why an op that one might
expect is absent.
"""

from mim_mm.compat.ops import boxes, deform, layers, losses, roi

SOURCES = {
    'nms': 'torchvision',
    'softnms': 'torch',
    'nms_match': 'torch',
    'bbox_overlaps': 'torch',
    'roi_align_forward': 'torchvision',
    'roi_align_backward': 'torchvision',
    'roi_pool_forward': 'torch',
    'roi_pool_backward': 'torch',
    'sigmoid_focal_loss_forward': 'torch',
    'sigmoid_focal_loss_backward': 'torch',
    'softmax_focal_loss_forward': 'torch',
    'softmax_focal_loss_backward': 'torch',
    'deform_conv_forward': 'torchvision',
    'deform_conv_backward_input': 'torchvision',
    'deform_conv_backward_parameters': 'torchvision',
    'modulated_deform_conv_forward': 'torchvision',
    'modulated_deform_conv_backward': 'torchvision',
    'ms_deform_attn_forward': 'torch',
    'ms_deform_attn_backward': 'torch',
    'masked_im2col_forward': 'torch',
    'masked_col2im_forward': 'torch',
    'carafe_forward': 'torch',
    'carafe_backward': 'torch',
    'carafe_naive_forward': 'torch',
    'carafe_naive_backward': 'torch',
    'sync_bn_forward_mean': 'torch',
    'sync_bn_forward_var': 'torch',
    'sync_bn_forward_output': 'torch',
    'sync_bn_backward_param': 'torch',
    'sync_bn_backward_data': 'torch',
    'get_compiler_version': 'torch',
    'get_compiling_cuda_version': 'torch',
}

REASONS = {
    'deform_roi_pool_forward': 'torchvision has no deformable RoI pooling',
    'deform_roi_pool_backward': 'torchvision has no deformable RoI pooling',
    'nms_rotated': 'torchvision has no rotated boxes',
    'box_iou_rotated': 'torchvision has no rotated boxes',
    'roi_align_rotated_forward': 'torchvision has no rotated boxes',
}


def get_compiler_version():
    """What mmcv's ``collect_env`` prints as 'MMCV Compiler'."""
    return 'none: torchvision stand-in of mim_mm'


def get_compiling_cuda_version():
    """What mmcv's ``collect_env`` prints as 'MMCV CUDA Compiler'."""
    return 'none: torchvision stand-in of mim_mm'


def _collect():
    here = dict(get_compiler_version=get_compiler_version, get_compiling_cuda_version=get_compiling_cuda_version)
    rooms = (boxes, roi, losses, deform, layers)
    found = {}
    for name in SOURCES:
        found[name] = here.get(name) or next(getattr(room, name) for room in rooms if hasattr(room, name))
    return found


FUNCTIONS = _collect()
