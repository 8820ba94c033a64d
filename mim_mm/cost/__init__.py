"""What a training will cost: FLOPs by formula, time, memory, disk, energy, and how it scales.

Reading order: ``work.py`` (a part and its cost), ``backbones.py``, ``pretrain.py``, ``detector.py``, ``flops.py``
(any recipe), ``hardware.py``, ``memory.py``, ``measured.py``, ``scaling.py``, ``plan.py`` (a stage), ``published.py``,
``display.py``.
"""

from mim_mm.cost.flops import work_of
from mim_mm.cost.hardware import GPUS, gpu
from mim_mm.cost.measured import known_measurements, read_measurements
from mim_mm.cost.plan import Setting, StagePlan, plan_stage
from mim_mm.cost.scaling import Assumptions
from mim_mm.cost.work import Part, Work

__all__ = [
    'GPUS', 'Assumptions', 'Part', 'Setting', 'StagePlan', 'Work', 'gpu', 'known_measurements', 'plan_stage',
    'read_measurements', 'work_of',
]  # fmt: skip
