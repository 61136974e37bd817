"""Choose NumPy or CuPy: the one place in `kernels` that asks whether there is a GPU.

Kernels take the chosen module as the parameter `xp` and use only functions that both modules have. Their arguments
and results are NumPy arrays; `to_host` converts a CuPy result.
"""

from __future__ import annotations

import functools
import logging
from typing import Any, Literal

import numpy as np

from contracts.errors import InputError

Backend = Literal["auto", "cpu", "cuda"]

log = logging.getLogger(__name__)


@functools.cache
def array_module(backend: Backend) -> Any:
    """Return `numpy` or `cupy`. "auto" takes the GPU if there is one, and logs the choice once per process.

    Raises:
        InputError: `backend` is "cuda", and CuPy or a GPU is missing.
    """
    if backend == "cpu":
        return np
    cupy, reason = _find_cupy()
    if cupy is None and backend == "cuda":
        raise InputError(f"backend=cuda: {reason}; install the `cuda` extra on a GPU machine, or use backend=auto")
    log.info("kernels run on %s", "cuda" if cupy is not None else f"the CPU ({reason})")
    return np if cupy is None else cupy


def to_host(array: Any) -> np.ndarray:
    """Return a NumPy or CuPy array as a NumPy array (without a copy if it is one already)."""
    return array if isinstance(array, np.ndarray) else array.get()


def _find_cupy() -> tuple[Any, str]:
    try:
        import cupy
    except ImportError:
        return None, "CuPy is not installed"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:  # CUDARuntimeError: no driver, or an incompatible driver
        return None, f"no usable GPU ({error})"
    return (cupy, "") if count else (None, "no GPU is visible")
