"""What a training will cost: FLOPs and memory counted, time, disk, energy, and how it scales.

Reading order: ``work.py`` (a module and its cost), ``count.py`` (any recipe), ``ledger.py`` (the counting),
``inputs.py``, ``recipe.py``, ``progressive.py``, ``hardware.py``, ``memory.py``, ``measured.py``, ``scaling.py``,
``estimate.py`` (a stage), ``published.py``, ``display.py``. torch and the models are imported when a recipe is counted.
"""

from mim_mm.cost.count import work_of
from mim_mm.cost.estimate import Conditions, StageEstimate, estimate_stage
from mim_mm.cost.hardware import GPUS, gpu
from mim_mm.cost.measured import known_measurements, read_measurements
from mim_mm.cost.scaling import Assumptions
from mim_mm.cost.work import ModuleCost, Work

__all__ = [
    'GPUS', 'Assumptions', 'Conditions', 'ModuleCost', 'StageEstimate', 'Work', 'estimate_stage', 'gpu',
    'known_measurements', 'read_measurements', 'work_of',
]  # fmt: skip
