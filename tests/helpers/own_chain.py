"""The chain that ``tools/transfer.py --images`` writes, without running it."""

from mim_mm.transfer import Call
from mim_mm.transfer.own.own_data import write_own_chain


def chain_of(own, args, say=lambda line: None, folder=None) -> str:
    """Path of the chain config; ``args`` are the other options of the call."""
    return write_own_chain(Call(**args, own=own), say, folder).chain
