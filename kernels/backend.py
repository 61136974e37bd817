"""The one place that asks "is there a GPU": NumPy or CuPy behind the same names.

Kernels take the module as `xp` and use only what both have. Arrays come in and go out as NumPy;
`to_host` is the way back.
"""

from __future__ import annotations

import functools
import logging
from typing import Any, Literal

import numpy as np
import scipy.sparse

from contracts.errors import InputError

Backend = Literal["auto", "cpu", "cuda"]

log = logging.getLogger(__name__)


@functools.cache
def array_module(backend: Backend) -> Any:
    """`numpy` or `cupy`. "auto" takes the GPU if there is one and says once (per process) what it took.

    Raises:
        InputError: "cuda" was named and CuPy or a GPU is missing.
    """
    if backend == "cpu":
        return np
    cupy, reason = _find_cupy()
    if cupy is None and backend == "cuda":
        raise InputError(f"backend=cuda: {reason}; install the `cuda` extra on a GPU machine, or use backend=auto")
    log.info("kernels run on %s", "cuda" if cupy is not None else f"the CPU ({reason})")
    return np if cupy is None else cupy


def sparse_module(xp: Any) -> Any:
    """`scipy.sparse` or `cupyx.scipy.sparse`, to go with `xp`."""
    if xp is np:
        return scipy.sparse
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse


def to_host(array: Any) -> np.ndarray:
    """A NumPy array of a NumPy or CuPy one (no copy if it is NumPy already)."""
    return array if isinstance(array, np.ndarray) else array.get()


def _find_cupy() -> tuple[Any, str]:
    try:
        import cupy
    except ImportError:
        return None, "CuPy is not installed"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:  # CUDARuntimeError: no driver, or none that fits
        return None, f"no usable GPU ({error})"
    return (cupy, "") if count else (None, "no GPU is visible")
