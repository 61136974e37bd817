"""Runs the blocks of a stage as Ray tasks. Tasks get the paths of matrices and open them as memory maps.

Every node must have the dataset and graph folders under the same paths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayTaskError

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder.executor import Block, Result, with_progress

# Submitted tasks per core: enough that a slow task leaves no core idle, and few enough for the scheduler.
_TASKS_PER_CPU = 4
# Ray runs the blocks of a lost worker or node again. A block that ends every worker, because memory is too small, must
# not be run without end.
_MAX_RETRIES = 5


class RayExecutor:
    """Runs one task per block on the connected cluster. Ray runs lost tasks again.

    Blocks are deterministic and write to temporary names, so a block that ran twice does no harm.
    """

    def __init__(self, options: GraphConfig) -> None:
        """Use the cluster that `distributed.ray.cluster.connect` has joined.

        Raises:
            InputError: a task needs more CPUs than the cluster has, or more than one GPU.
        """
        assert ray.is_initialized()
        self.seconds: dict[str, float] = {}
        if options.gpus_per_task > 1:
            raise InputError(
                f"graph_options.gpus_per_task={options.gpus_per_task}: a task uses one GPU at most; set 1, or a "
                "fraction such as 0.5 for two tasks on a GPU"
            )
        resources = ray.cluster_resources()
        self.num_cpus = options.cpus_per_task
        if self.num_cpus > resources.get("CPU", 1):
            raise InputError(
                f"graph_options.cpus_per_task={self.num_cpus}: the cluster has {resources.get('CPU', 0):.0f} CPUs; "
                "lower it"
            )
        self.max_in_flight = max(1, int(resources.get("CPU", 1))) * _TASKS_PER_CPU
        # With backend=cuda and no GPU, the first block raises the kernels' error.
        self.uses_gpu = options.backend != "cpu" and resources.get("GPU", 0) >= 1
        self.num_gpus = options.gpus_per_task if self.uses_gpu else 0.0
        # The cluster's resources when it was joined. It may grow or shrink later.
        self.cores = max(1, int(resources.get("CPU", 1)))
        self.gpus = int(resources.get("GPU", 0)) if self.uses_gpu else 0

    def run_blocks(
        self,
        function: Callable[[Block], Result],
        blocks: Sequence[Block],
        *,
        label: str | None = None,
        on_gpu: bool = False,
    ) -> Iterator[Result]:
        """See `executor.Executor`; at most `max_in_flight` tasks at a time."""
        task = _run_block.options(num_cpus=self.num_cpus, num_gpus=self.num_gpus if on_gpu else 0)
        try:
            shared = ray.put(function)
            yield from with_progress(self._results(task, shared, blocks), len(blocks), label, self.seconds)
        except (ObjectStoreFullError, OutOfDiskError):
            raise InputError(
                "the object store of a node is full and so is the disk that it spills to (Ray's temporary folder, "
                "/tmp/ray by default); finished blocks are kept: free space there, or start Ray with a larger "
                "--object-store-memory, and repeat the command"
            ) from None
        except OutOfMemoryError:
            raise InputError(
                "a node's memory is too small for the tasks that run there at once; finished blocks are kept: raise "
                "graph_options.cpus_per_task, so that fewer do, or lower graph_options.rows_per_task, and repeat the "
                "command"
            ) from None

    def _results(self, task: Any, shared: Any, blocks: Sequence[Any]) -> Iterator[Any]:
        waiting = iter(blocks)
        in_flight: deque[Any] = deque()
        try:
            while True:
                while len(in_flight) < self.max_in_flight:
                    try:
                        in_flight.append(task.remote(shared, next(waiting)))
                    except StopIteration:
                        break
                if not in_flight:
                    return
                yield ray.get(in_flight[0])
                in_flight.popleft()
        except (RayTaskError, OutOfMemoryError) as error:
            # Wait for the other tasks, so that none of them writes after the caller has the error.
            # Do not use ray.cancel: if a task completes while it is cancelled, a check in Ray 2.60 fails and ends the
            # driver.
            ray.wait(list(in_flight), num_returns=len(in_flight))
            # Raise bad input as the worker raised it. Any other error keeps the worker's traceback.
            if isinstance(error, RayTaskError) and isinstance(error.cause, InputError):
                raise error.cause from None
            raise


@ray.remote(max_retries=_MAX_RETRIES)
def _run_block(function: Callable[[Any], Any], block: Any) -> Any:
    return function(block)
