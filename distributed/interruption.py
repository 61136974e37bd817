"""Between steps ranks agree whether to write a checkpoint, and whether to end there.

Each rank says what it wants after each step, and the most that any wants is done by all, one step later: the ranks'
words cross while that step is computed, on the host, so no step waits for them.
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

# Seconds between two looks at the run folder, which may be on a far file system.
_LOOK_EVERY, _LOOK_EVERY_URI = 1.0, 10.0
# Seconds between two questions to the cluster; all ranks wait for each answer.
_ASK_EVERY = 15.0
STOP_FILE = "stop"  # put into a run's folder to ask for its end
STOPPED_FILE = "stopped"  # what it is renamed to, once that is done


class Wish(IntEnum):
    """What is to happen after a step; a greater one includes the lesser."""

    GO_ON = 0
    ASK = 1  # whether a machine is about to be taken away
    CHECKPOINT = 2
    STOP = 3


class Interruption:
    """What a rank wants, and what all agreed on.

    A checkpoint: after `checkpoint_minutes` by rank 0's clock, every `checkpoint_steps`, or when a rank's machine is
    about to be taken away. The end: when a file named `stop` is put into the run folder.
    """

    def __init__(
        self,
        *,
        training: TrainingConfig,
        storage: RunStorage,
        world: World,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_leaving`, called by all together, says to all alike whether a machine is about to be taken away."""
        self._training, self._storage, self._world, self._is_leaving = training, storage, world, is_leaving
        self._look_every = _LOOK_EVERY_URI if storage.is_remote else _LOOK_EVERY
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._words = torch.zeros(2, dtype=torch.int32)
        self._under_way: dist.Work | None = None
        self._looked_at = self._asked_at = self._saved_at = time.monotonic()
        self._stop_seen = self._left = False
        self.nobody_writes = True

    def agreed(self, step: int, writing: bool = False) -> Wish:
        """What all ranks do after step `step`, once they have taken it; call it after every step, on every rank.

        Args:
            writing: whether this rank is still writing a checkpoint; `nobody_writes` then says it of all.
        """
        agreed, wish = Wish.GO_ON, self._wish()
        if self._group is None:
            agreed, self.nobody_writes = wish, not writing
        else:
            if self._under_way is not None:
                self._under_way.wait()
                agreed, self.nobody_writes = Wish(int(self._words[0])), not self._words[1]
            self._words = torch.tensor([wish, writing], dtype=torch.int32)
            self._under_way = dist.all_reduce(self._words, dist.ReduceOp.MAX, group=self._group, async_op=True)
        if agreed == Wish.ASK:
            self._asked_at, agreed = time.monotonic(), Wish.GO_ON
            if not self._left and self._is_leaving():
                self._left, agreed = True, Wish.CHECKPOINT  # once: what comes after is trained again elsewhere
        steps = self._training.checkpoint_steps
        by_count = steps is not None and step % steps == 0  # known to all without a word
        return max(agreed, Wish.CHECKPOINT) if by_count else agreed

    def saved(self) -> None:
        """A checkpoint was begun: what was wished for meanwhile is granted, but for the end; somebody writes now."""
        self._saved_at = time.monotonic()
        if self._under_way is not None:
            self._under_way.wait()
            if self._words[0] < Wish.STOP:
                self._words[0] = Wish.GO_ON
            self._words[1] = True

    def _wish(self) -> Wish:
        now, minutes = time.monotonic(), self._training.checkpoint_minutes
        if self._world.is_first and now - self._looked_at > self._look_every:
            self._looked_at, self._stop_seen = now, self._storage.has(STOP_FILE)
        if self._stop_seen:
            return Wish.STOP
        if self._world.is_first and minutes is not None and now - self._saved_at > 60 * minutes:
            return Wish.CHECKPOINT
        return Wish.ASK if self._world.is_first and now - self._asked_at > _ASK_EVERY else Wish.GO_ON
