"""What ``tools/transfer.py`` does: resolve the call, plan what it asks for, carry the plan out."""

from __future__ import annotations

from mim_mm.transfer.call import Call
from mim_mm.transfer.carry_out import carry_out
from mim_mm.transfer.display import Display
from mim_mm.transfer.launch import Scripts
from mim_mm.transfer.plan import plan
from mim_mm.transfer.resolve import chain_of, resolve
from mim_mm.transfer.slurm.slurm_job import outlive_warnings


def run_chain(call: Call, display: Display | None = None, scripts: Scripts | None = None) -> int:
    """Run a chain, a comparison, or the chain of a user's own data; with ``dry_run`` say what a run would do.

    With ``launcher='slurm'`` outside an allocation the stages are submitted instead, and nothing is waited for.

    Returns:
        0: all went well. 1: a stage failed or was blocked. 75: a stage was asked to stop and can go on. 130, 143:
        stopped by Ctrl-C, SIGTERM.

    Raises:
        ChainError: the call cannot work; nothing was started.
    """
    if call.requeues is not None:
        outlive_warnings()
    with chain_of(call, display or Display()) as (call, display):
        return carry_out(plan(resolve(call, display, scripts or Scripts.default())))
