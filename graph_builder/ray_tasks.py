"""Runs the blocks of a stage as Ray tasks or, if they use GPUs, on Ray actors (`ray_gpu_actors`).

Blocks get the paths of matrices and open them as memory maps. Every node must have the dataset and graph folders under
the same paths.
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
from graph_builder.ray_gpu_actors import GpuActors

# Submitted tasks per core: enough that a slow task leaves no core idle, and few enough for the scheduler.
_TASKS_PER_CPU = 4
# Ray runs the blocks of a lost worker or node again. A block that ends every worker, because memory is too small, must
# not be run without end.
_MAX_RETRIES = 5


class RayExecutor:
    """Runs the blocks on the connected cluster. A block whose worker or node is lost is run again elsewhere.

    Blocks are deterministic and write to temporary names, so a block that ran twice does no harm.

    Attributes:
        seconds: wall time of the labelled stages so far.
        cores: cores of the cluster when it was joined. It may grow or shrink later.
        gpus: GPUs of the cluster at that time; 0 if the options ask for the CPU.
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
        self.cores = max(1, int(resources.get("CPU", 1)))
        # With backend=cuda and no GPU, the first block raises the kernels' error.
        self.gpus = int(resources.get("GPU", 0)) if options.backend != "cpu" else 0
        self.gpus_per_task = options.gpus_per_task
        self._actors = GpuActors(options.gpus_per_task, _MAX_RETRIES)

    def run_blocks(
        self,
        function: Callable[[Block], Result],
        blocks: Sequence[Block],
        *,
        label: str | None = None,
        on_gpu: bool = False,
    ) -> Iterator[Result]:
        """See `executor.Executor`; at most `max_in_flight` blocks are started before their results are taken."""
        try:
            shared = ray.put(function)
            if on_gpu and self.gpus:
                ahead = max(self.max_in_flight, _TASKS_PER_CPU * int(self.gpus / self.gpus_per_task))
                results = self._actors.results(shared, blocks, ahead)
            else:
                results = self._task_results(shared, blocks)
            yield from with_progress(results, len(blocks), label, self.seconds)
        except (ObjectStoreFullError, OutOfDiskError):
            raise InputError(
                "the object store of a node is full and so is the disk that it spills to (Ray's temporary folder, "
                "/tmp/ray by default); finished blocks are kept: free space there, or start Ray with a larger "
                "--object-store-memory, and repeat the command"
            ) from None
        except OutOfMemoryError:
            knob = "gpus_per_task" if on_gpu and self.gpus else "cpus_per_task"
            raise InputError(
                "a node's memory is too small for the tasks that run there at once; finished blocks are kept: raise "
                f"graph_options.{knob}, so that fewer do, or lower graph_options.rows_per_task, and repeat the command"
            ) from None
        except RayTaskError as error:
            # Raise bad input as the worker raised it. Any other error keeps the worker's traceback.
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise

    def release(self) -> None:
        """See `executor.Executor`."""
        self._actors.close()

    def _task_results(self, function: Any, blocks: Sequence[Any]) -> Iterator[Any]:
        task = _run_block.options(num_cpus=self.num_cpus)
        waiting = iter(blocks)
        in_flight: deque[Any] = deque()
        try:
            while True:
                while len(in_flight) < self.max_in_flight:
                    try:
                        in_flight.append(task.remote(function, next(waiting)))
                    except StopIteration:
                        break
                if not in_flight:
                    return
                yield ray.get(in_flight[0])
                in_flight.popleft()
        except (RayTaskError, OutOfMemoryError):
            # Wait for the other tasks, so that none of them writes after the caller has the error.
            # Do not use ray.cancel: if a task completes while it is cancelled, a check in Ray 2.60 fails and ends the
            # driver.
            ray.wait(list(in_flight), num_returns=len(in_flight))
            raise


@ray.remote(max_retries=_MAX_RETRIES)
def _run_block(function: Callable[[Any], Any], block: Any) -> Any:
    return function(block)
