"""Makes a rank that computes on CPU keep freed memory instead of returning it to the system after each step.

By default glibc returns large freed blocks to the system. At the next step the system hands out zeroed pages again,
and centre attention takes a third longer (docs/log.md). The cost of keeping memory is that the process's resident
size stays at its peak.
"""

from __future__ import annotations

import ctypes

# Options of glibc's malloc.h. Blocks of 32 MiB and more are always mapped, which is a limit of glibc itself.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_THRESHOLD: 2**25}


def keep_freed_memory() -> bool:
    """Tell the C library to keep the memory that this process frees; return whether it will (only glibc does)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) == 1 for option, value in _SETTINGS.items())
