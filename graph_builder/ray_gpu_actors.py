"""Runs blocks on Ray actors: one actor for each share of a GPU, for a whole build.

Ray tasks would be wrong here. Ray tells a task its GPU by CUDA_VISIBLE_DEVICES, and runs the task in a worker process
that may have run a task on another GPU before (ray-project/ray#47767). CUDA reads the variable once per process, so
the process stays on its first GPU: tasks meet on one GPU, and the other GPU is idle. An actor is a process with the
same GPU for all its life. It also keeps its CUDA context, its compiled kernels and the matrices that it has copied to
the GPU from block to block.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError

# The errors of a block whose process or node is gone. The block itself may be sound, so another actor runs it again.
_LOST = (RayActorError, ObjectLostError, OutOfMemoryError)


@ray.remote(max_restarts=0, max_task_retries=0)
class _BlockRunner:
    def is_ready(self) -> None:
        """Return once the actor's process runs, which is when the actor has its GPU."""

    def run(self, function: Callable[[Any], Any], block: Any) -> Any:
        return function(block)


class GpuActors:
    """Actors that each hold a share of a GPU, and run blocks one after another.

    Actors reserve no CPU cores, because a build never runs blocks on GPUs and blocks on cores at the same time. A
    reserved core would be idle in all stages on cores.
    """

    def __init__(self, share: float, max_retries: int) -> None:
        """Prepare; actors are started when there are blocks to run.

        Args:
            share: of a GPU, for each actor; at most 1.
            max_retries: how often a block is run again after the loss of its actor.
        """
        self._share = share
        self._max_retries = max_retries
        self._ready: list[Any] = []
        self._starting: dict[Any, Any] = {}  # reference of `is_ready` -> actor
        self._failed_starts = 0

    def results(self, function: Any, blocks: Sequence[Any], max_ahead: int) -> Iterator[Any]:
        """Yield the results in the order of `blocks`.

        Args:
            function: a reference to the function, from `ray.put`.
            blocks: the arguments of the calls.
            max_ahead: how many blocks may be started before the result of the first of them is yielded.

        Raises:
            RayError: a block raised, or its actors were lost `max_retries` + 1 times. No block runs any more.
        """
        run = _Run(function, blocks, self._max_retries)
        try:
            while run.next_result < len(blocks):
                self._start(min(_places(self._share), run.unfinished))
                run.submit(self._ready, len(self._starting), max_ahead)
                ended, _ = ray.wait([*run.running, *self._starting], num_returns=1)
                self._sort_out(ended[0], run)
                yield from run.take_results()
        except RayError:
            # Wait for the other blocks, so that none of them writes after the caller has the error.
            if run.running:
                ray.wait(list(run.running), num_returns=len(run.running))
            self.close()
            raise

    def close(self) -> None:
        """End all actors and free their GPUs. If there are blocks to run again, others are started."""
        for actor in (*self._ready, *self._starting.values()):
            ray.kill(actor)
        self._ready, self._starting = [], {}

    def _start(self, wanted: int) -> None:
        """Request actors until there are `wanted`. Some may have to wait until a GPU is free."""
        for _ in range(wanted - len(self._ready) - len(self._starting)):
            actor = _BlockRunner.options(num_gpus=self._share, num_cpus=0).remote()  # type: ignore[attr-defined]
            self._starting[actor.is_ready.remote()] = actor

    def _sort_out(self, reference: Any, run: _Run) -> None:
        """Record what a finished call says: a result, a new actor, or the loss of an actor."""
        if reference in self._starting:
            actor = self._starting.pop(reference)
            try:
                ray.get(reference)
            except _LOST:
                self._failed_starts += 1
                if self._failed_starts > self._max_retries:
                    raise
                return
            self._failed_starts = 0
            self._ready.append(actor)
        elif (lost := run.finish(reference)) is not None:
            self._ready.remove(lost)
            ray.kill(lost)  # so that its GPU is free, also if only a result was lost


class _Run:
    """The state of one stage: which blocks wait, run or are done."""

    def __init__(self, function: Any, blocks: Sequence[Any], max_retries: int) -> None:
        self._function, self._blocks, self._max_retries = function, blocks, max_retries
        self._waiting = deque(range(len(blocks)))
        self._losses: Counter[int] = Counter()
        self._done: dict[int, Any] = {}
        self.running: dict[Any, tuple[Any, int]] = {}  # reference -> actor, number of the block; oldest first
        self.next_result = 0

    @property
    def unfinished(self) -> int:
        return len(self._waiting) + len(self.running)

    def submit(self, actors: list[Any], num_starting: int, max_ahead: int) -> None:
        """Give each idle actor a block, and a second one as long as more blocks wait than there are actors.

        With a second block, an actor need not wait for the driver. Near the end of a stage it would keep the block
        from an actor that is idle.

        Args:
            actors: those that are ready.
            num_starting: how many others there will be.
            max_ahead: see `GpuActors.results`.
        """
        most = len(actors) + num_starting
        for depth in (1, 2):
            held = Counter(actor for actor, _ in self.running.values())
            for actor in actors:
                if not self._waiting or (depth == 2 and len(self._waiting) <= most):
                    return
                if self._waiting[0] >= self.next_result + max_ahead:
                    return
                if held[actor] < depth:
                    number = self._waiting.popleft()
                    reference = actor.run.remote(self._function, self._blocks[number])
                    self.running[reference] = actor, number

    def finish(self, reference: Any) -> Any | None:
        """Store the result of a call. Return its actor if it is lost; its blocks then wait again.

        Raises:
            RayError: the block raised, or its actors were lost too often.
        """
        actor, number = self.running.pop(reference)
        try:
            self._done[number] = ray.get(reference)
            return None
        except _LOST:
            self._losses[number] += 1
            if self._losses[number] > self._max_retries:
                raise
        again = [number]
        # A block that waited in the lost actor has not begun, so the loss is not counted as its own.
        for other, (holder, waiting) in list(self.running.items()):
            if holder == actor:
                del self.running[other]
                again.append(waiting)
        self._waiting.extendleft(sorted(again, reverse=True))
        return actor

    def take_results(self) -> Iterator[Any]:
        """Yield the results that are next in order."""
        while self.next_result in self._done:
            self.next_result += 1
            yield self._done.pop(self.next_result - 1)


def _places(share: float) -> int:
    """Return how many actors the GPUs of the connected cluster have room for."""
    per_gpu = int(1 / share + 1e-9)
    gpus = sum(int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"])
    return max(1, gpus * per_gpu)
