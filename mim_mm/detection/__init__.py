"""Detection with a plain ViT: the windowed backbone, pyramids from one map, detectors that know their layers."""

from mim_mm.detection.attention import RelPosAttention, SharedRelPosBias
from mim_mm.detection.detectors import MIMCascadeRCNN, MIMMaskRCNN
from mim_mm.detection.hivit_maps import HiViTMaps
from mim_mm.detection.metric import FastCocoMetric, InMemoryCocoMetric
from mim_mm.detection.necks import DeconvPyramid, SimplePyramid
from mim_mm.detection.predictors import FullPrecisionLinear, FullPrecisionRPNHead
from mim_mm.detection.roi_extractor import FullPrecisionRoIExtractor
from mim_mm.detection.windowed_vit import WindowedViT

__all__ = [
    'DeconvPyramid',
    'FastCocoMetric',
    'FullPrecisionLinear',
    'FullPrecisionRPNHead',
    'FullPrecisionRoIExtractor',
    'HiViTMaps',
    'InMemoryCocoMetric',
    'MIMCascadeRCNN',
    'MIMMaskRCNN',
    'RelPosAttention',
    'SharedRelPosBias',
    'SimplePyramid',
    'WindowedViT',
]
