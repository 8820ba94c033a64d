"""What is hidden: the MaskPlan and one file per masking strategy."""

from mim_mm.masking.adaptive import AdaptiveRatio
from mim_mm.masking.attended import AttentionMasking, AttMask
from mim_mm.masking.block import BlockMasking
from mim_mm.masking.cells import CellMasking
from mim_mm.masking.drawn import DrawnRatio
from mim_mm.masking.grid import GridMasking
from mim_mm.masking.inverse_block import InverseBlockMasking
from mim_mm.masking.multi_block import MultiBlockMasking
from mim_mm.masking.parallel import ComplementaryMasking, ParallelMasking
from mim_mm.masking.plan import MaskPlan, num_hidden
from mim_mm.masking.random import IndependentMasking, RandomMasking
from mim_mm.masking.salience import SalienceMasking, salience
from mim_mm.masking.salience_parallel import SalienceParallelMasking

# `mim_mm.masking.salience` is the function; the file of that name is reached by `from mim_mm.masking.salience import`.

__all__ = [
    'AdaptiveRatio',
    'AttMask',
    'AttentionMasking',
    'BlockMasking',
    'CellMasking',
    'ComplementaryMasking',
    'DrawnRatio',
    'GridMasking',
    'IndependentMasking',
    'InverseBlockMasking',
    'MaskPlan',
    'MultiBlockMasking',
    'ParallelMasking',
    'RandomMasking',
    'SalienceMasking',
    'SalienceParallelMasking',
    'num_hidden',
    'salience',
]
