"""Seeds the random numbers of each step from the run's seed, the step's number and the rank.

Checkpoints therefore save no generator states. A run that resumes at a step draws the same numbers as a run that was
not interrupted, and a rank that joins a run has its own stream at once. This holds on CPU and on CUDA.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(purpose: str, seed: int, number: int, rank: int) -> None:
    """Seed torch's default generators for one step of a rank. Dropout and gate noise draw from them.

    Args:
        purpose: a name that gives training and ranking different numbers.
        seed: the run's seed.
        number: how many optimiser steps were taken before.
        rank: this rank; each rank draws different numbers.
    """
    digest = hashlib.blake2b(f"{purpose}/{seed}/{number}/{rank}".encode(), digest_size=8).digest()
    # torch's CPU generator uses 32 bits of a seed, so all 32 must come from the hash.
    start = int.from_bytes(digest, "little") >> 32
    # torch.manual_seed would do the same, but it also formats the stack for each device type that is not initialised.
    torch.default_generator.manual_seed(start)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(start)
