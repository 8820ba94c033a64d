"""Dtype handling shared by the stand-ins."""

import torch


def compute_dtype(tensor):
    """fp64 for fp64 input, else fp32: torchvision's CPU kernels know no half types and its NMS no bf16 on GPUs."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def no_autocast(tensor):
    """Context in which autocast does not cast the fp32 copies back to half."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)
