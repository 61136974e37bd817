"""Random numbers of a step depend on the run's seed, the step and the rank: nothing to save, nothing to restore.

A run that stops anywhere draws afterwards what it would have drawn; a rank that joins has its own stream from the
first step on; CPU and CUDA generators alike.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(purpose: str, seed: int, number: int, rank: int) -> None:
    """Seed torch's default generators for step `number` of a rank: dropout and gate noise draw from them.

    Args:
        purpose: keeps training and ranking apart.
        seed: the run's.
        number: optimiser steps taken before.
        rank: this rank's; other ranks draw otherwise.
    """
    digest = hashlib.blake2b(f"{purpose}/{seed}/{number}/{rank}".encode(), digest_size=8).digest()
    # torch's CPU generator takes 32 bits of a seed, so the hash must spread over those.
    start = int.from_bytes(digest, "little") >> 32
    # torch.manual_seed does the same, and for each kind of device that has not begun to work it formats the stack.
    torch.default_generator.manual_seed(start)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(start)
