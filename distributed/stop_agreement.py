"""After each step, all ranks agree whether to write a checkpoint and whether to stop.

Each rank makes a request after each step. Ranks all-reduce the strongest request while the next step runs, and act on
it after that step. The all-reduce runs on the host, so no step waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

import torch
import torch.distributed as dist

from configs.schema import TrainingConfig
from distributed.checkpoints.run_storage import RunStorage
from distributed.world import World

# Seconds between two searches for the stop file in the run folder, which may be on a remote file system.
_LOOK_EVERY, _LOOK_EVERY_URI = 1.0, 10.0
# Seconds between two queries to the cluster; all ranks wait for each answer.
_ASK_EVERY = 15.0
STOP_FILE = "stop"  # a user puts a file of this name into a run's folder to stop its training
STOPPED_FILE = "stopped"  # the name of that file after the training has stopped


class Request(IntEnum):
    """The action after a step that a rank requests. Of several requests, the one with the greatest value is met."""

    CONTINUE = 0
    CHECK_MACHINES = 1  # query the cluster whether a machine is about to be taken away
    CHECKPOINT = 2
    STOP = 3  # after writing a checkpoint


class Interruption:
    """A rank's requests, and the action that all ranks agreed on.

    A checkpoint is due every `checkpoint_minutes` by rank 0's clock, every `checkpoint_steps`, and when a machine of
    the run is about to be taken away. Training stops when a file named `stop` is in the run folder.
    """

    def __init__(
        self,
        *,
        training: TrainingConfig,
        storage: RunStorage,
        world: World,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start with no request.

        Args:
            training: has the knobs `checkpoint_minutes` and `checkpoint_steps`.
            storage: the run's folder, in which rank 0 looks for the stop file.
            world: this rank's place.
            is_leaving: whether a machine of the run is about to be taken away. All ranks call it at the same step,
                and it must return the same value on all of them.
        """
        self._training, self._storage, self._world, self._is_leaving = training, storage, world, is_leaving
        self._look_every = _LOOK_EVERY_URI if storage.is_remote else _LOOK_EVERY
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._message = torch.zeros(2, dtype=torch.int32)  # the request, and whether this rank is writing
        self._reduction: dist.Work | None = None
        self._looked_at = self._asked_at = self._saved_at = time.monotonic()
        self._stop_seen = self._left = False
        self.nobody_writes = True

    def agreed(self, step: int, writing: bool = False) -> Request:
        """Return the action for all ranks after step `step`. Every rank calls this after every step.

        Args:
            step: the number of the step that was just taken.
            writing: whether this rank is still writing a checkpoint. The attribute `nobody_writes` then holds, one
                step later, whether no rank is.
        """
        agreed, request = Request.CONTINUE, self._request()
        if self._group is None:
            agreed, self.nobody_writes = request, not writing
        else:
            if self._reduction is not None:
                self._reduction.wait()
                agreed, self.nobody_writes = Request(int(self._message[0])), not self._message[1]
            self._message = torch.tensor([request, writing], dtype=torch.int32)
            self._reduction = dist.all_reduce(self._message, dist.ReduceOp.MAX, group=self._group, async_op=True)
        if agreed == Request.CHECK_MACHINES:
            self._asked_at, agreed = time.monotonic(), Request.CONTINUE
            if not self._left and self._is_leaving():
                # One checkpoint only: steps after it are repeated on another machine.
                self._left, agreed = True, Request.CHECKPOINT
        steps = self._training.checkpoint_steps
        by_count = steps is not None and step % steps == 0  # every rank knows this without communication
        return max(agreed, Request.CHECKPOINT) if by_count else agreed

    def saved(self) -> None:
        """Clear pending checkpoint requests (not a stop) and record that a write is in progress."""
        self._saved_at = time.monotonic()
        if self._reduction is not None:
            self._reduction.wait()
            if self._message[0] < Request.STOP:
                self._message[0] = Request.CONTINUE
            self._message[1] = True

    def _request(self) -> Request:
        """Return this rank's own request. Rank 0 watches the clock and the run folder for all ranks."""
        now, minutes = time.monotonic(), self._training.checkpoint_minutes
        if self._world.is_first and now - self._looked_at > self._look_every:
            self._looked_at, self._stop_seen = now, self._storage.has(STOP_FILE)
        if self._stop_seen:
            return Request.STOP
        if self._world.is_first and minutes is not None and now - self._saved_at > 60 * minutes:
            return Request.CHECKPOINT
        due = self._world.is_first and now - self._asked_at > _ASK_EVERY
        return Request.CHECK_MACHINES if due else Request.CONTINUE
