"""Freed memory stays with a rank that computes on CPU.

glibc returns large freed blocks to the system, which hands out zeroed pages again at the next step: the centre path
of a training step then takes a third longer (docs/log.md). The price is a resident size that stays at its peak.
"""

from __future__ import annotations

import ctypes

# From glibc's malloc.h. Blocks of 32 MiB and more are always mapped: that is glibc's own limit.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_THRESHOLD: 2**25}


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees; whether it does (glibc alone knows the question)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) == 1 for option, value in _SETTINGS.items())
