"""What is hidden: the MaskPlan and one file per masking strategy."""

from mim_mm.masking.parallel import ComplementaryMasking, ParallelMasking
from mim_mm.masking.plan import MaskPlan, num_hidden
from mim_mm.masking.random import IndependentMasking, RandomMasking

__all__ = ['ComplementaryMasking', 'IndependentMasking', 'MaskPlan', 'ParallelMasking', 'RandomMasking', 'num_hidden']
