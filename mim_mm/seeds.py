"""Random numbers as a function of where training stands, so that whoever draws them, and when, makes no difference."""

from __future__ import annotations

import random

import numpy as np
import torch

_WORD = 2**64 - 1
# Odd, without pattern: fractional parts of square roots of primes.
_FACTORS = (0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1, 0x510E527FADE682D1)
# What is drawn: the numbers of one do not return in another.
SAMPLE, STEP, EPOCH = 1, 2, 3


def mix(*numbers: int) -> int:
    """At most five integers as one of 64 bits that shows no trace of them (the last steps of splitmix64)."""
    value = sum(number * factor for number, factor in zip(numbers, _FACTORS, strict=False)) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


def seed_generators(number: int) -> None:
    """Set Python's, numpy's and torch's generators of the host to ``number`` (64 bits); some 20 microseconds.

    ``torch.manual_seed`` takes thirty times as long: it notes a stack trace for a device that is not in use.
    """
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    torch.default_generator.manual_seed(number)


def seed_everything(number: int) -> None:
    """:func:`seed_generators`, and the generators of the CUDA devices where they are in use; nothing waits for them."""
    seed_generators(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
