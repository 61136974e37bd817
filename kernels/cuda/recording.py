"""Recording of work into CUDA graphs, and whether this machine can do it."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from kernels.cuda.gemm import multiply_fp16
from kernels.cuda.launchers import HALF_VECTOR

# The workspace that cuBLAS requests on sm_90.
WORKSPACE_BYTES = 32 << 20
_SIZE = 128

log = logging.getLogger(__name__)


class RecordedGraph(Protocol):
    """A recorded CUDA graph (`cupy.cuda.Graph`). It and the memory that it uses must exist until its launches ran."""

    def launch(self) -> None:
        """Queue the recorded work on the current stream."""
        ...


def recorded_graph(xp: Any, work: Callable[[], None]) -> RecordedGraph:
    """Record the work that `work` queues on the current stream into a CUDA graph, without running it.

    Every kernel must have run once before, because loading a kernel cannot be recorded.
    """
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            work()
        except BaseException:
            with contextlib.suppress(Exception):  # the recording is broken as well; the first error says why
                stream.end_capture()
            raise
        graph: RecordedGraph = stream.end_capture()
    return graph


@functools.cache
def can_record(xp: Any) -> bool:
    """Return whether a product can be recorded into a CUDA graph here; else log why not, once.

    It is tried, because a recorded product calls cuBLAS without CuPy (`gemm.py`).
    """
    ones = xp.ones((_SIZE, HALF_VECTOR), dtype=np.float16)
    found = xp.zeros((_SIZE, _SIZE), dtype=np.float32)
    workspace = xp.empty(WORKSPACE_BYTES, dtype=np.uint8)

    def work() -> None:
        multiply_fp16(ones, ones, found, HALF_VECTOR, workspace)

    try:
        work()
        graph = recorded_graph(xp, work)
        found[:] = 0
        graph.launch()
        reason = "" if bool((found == 1).all()) else "the recorded product is wrong"
    except (AttributeError, OSError, RuntimeError) as error:  # no such library or function, or an error of CUDA
        reason = f"{type(error).__name__}: {error}"
    if reason:
        log.warning("the neighbour search queues every tile by itself, since no CUDA graph can be recorded: %s", reason)
    return not reason
