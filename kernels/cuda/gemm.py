"""float16 matrix products by cuBLAS, which can also be recorded into a CUDA graph.

CuPy refuses to call cuBLAS while a CUDA graph is recorded, so this module then calls cuBLAS directly. CuPy is needed
to call the functions, but not to import the module.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np


def multiply_fp16(row_units: Any, column_units: Any, out: Any, width: int, workspace: Any = None) -> None:
    """Compute out[r, c] = row_units[r] . column_units[c] / width by cuBLAS, with float32 sums and result.

    Args:
        row_units: float16 [q, k], C order; columns from `width` on are zeros.
        column_units: float16 [b, k], C order; columns from `width` on are zeros.
        out: float32 [q, b], rows contiguous, any row stride.
        width: the width before padding, at most k.
        workspace: uint8 on the device; required while the current stream is recorded into a CUDA graph, and must
            exist as long as the graph. cuBLAS is then called directly, without CuPy.
    """
    from cupy.cuda import cublas, device, get_current_stream, runtime

    q, k = row_units.shape
    alpha, beta = _gemm_factors(width)
    handle = device.get_cublas_handle()
    # cuBLAS is column-major, so this computes out^T [b, q] = column_units row_units^T without moving an operand.
    arguments = (
        *(cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, len(column_units), q, k, alpha.ctypes.data),
        *(column_units.data.ptr, runtime.CUDA_R_16F, k, row_units.data.ptr, runtime.CUDA_R_16F, k),
        *(beta.ctypes.data, out.data.ptr, runtime.CUDA_R_32F, out.strides[0] // 4),
        *(cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_GEMM_DEFAULT),
    )
    if workspace is None:
        cublas.gemmEx(handle, *arguments)
    else:
        set_stream, set_workspace, gemm = _cublas_functions()
        set_stream(handle, get_current_stream().ptr)
        set_workspace(handle, workspace.data.ptr, workspace.nbytes)
        gemm(handle, *arguments)


@functools.cache
def _cublas_functions() -> tuple[Any, ...]:
    """Return SetStream, SetWorkspace and GemmEx of the cuBLAS library that CuPy has loaded."""
    from cupy.cuda import runtime

    library = ctypes.CDLL(f"libcublas.so.{runtime.runtimeGetVersion() // 1000}")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    operand = [pointer, number, number]
    gemm = [pointer, *[number] * 5, pointer, *operand, *operand, pointer, *operand, number, number]
    functions = []
    for name, types in (
        ("cublasSetStream_v2", [pointer, pointer]),
        ("cublasSetWorkspace_v2", [pointer, pointer, ctypes.c_size_t]),
        ("cublasGemmEx", gemm),
    ):
        function = getattr(library, name)
        function.argtypes, function.errcheck = types, _check_cublas
        functions.append(function)
    return tuple(functions)


def _check_cublas(status: int, function: Any, _: Any) -> None:
    if status:
        raise RuntimeError(f"{function.__name__} returned status {status}")


@functools.cache
def _gemm_factors(width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([1.0 / width], dtype=np.float32), np.zeros(1, dtype=np.float32)
