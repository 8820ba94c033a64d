"""What a training will cost: FLOPs by formula, time, memory, disk, energy, and how it scales.

Reading order: ``work.py`` (a part and its cost), ``backbones.py``, ``pretrain.py``, ``detector.py``, ``flops.py``
(any recipe), ``hardware.py``, ``memory.py``, ``measured.py``, ``scaling.py``, ``plan.py`` (a stage), ``published.py``,
``display.py``.
"""

from .flops import work_of
from .hardware import GPUS, gpu
from .measured import known_measurements, read_measurements
from .plan import Setting, StagePlan, plan_stage
from .scaling import Assumptions
from .work import Part, Work

__all__ = [
    'GPUS', 'Assumptions', 'Part', 'Setting', 'StagePlan', 'Work', 'gpu', 'known_measurements', 'plan_stage',
    'read_measurements', 'work_of',
]  # fmt: skip
