"""Time steps of the same model in different forms of training: sampled, padded and grouped."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import torch

from benchmarks.hashed_graph import HashedGraph
from benchmarks.hashed_training import hashed_training
from configs.loading import load_config
from contracts.batch import Batch, SequenceGroup, Step
from data.sequences import SequenceArrays
from distributed.host_memory import keep_freed_memory
from distributed.world import World

OURS, PADDED, GROUPED = "windows, sampled", "prefix rows, all items", "grouped prefix rows, all items"
_OPTIONS = {
    OURS: ("training.negatives.draws=1024", "model.mdsrec.center_samples=64"),
    PADDED: ("training.unit=prefixes",),
    GROUPED: ("training.unit=prefixes",),
}
FORMS = tuple(_OPTIONS)


class TrainedForm:
    """A training of MDSRec (width 64, batches of 512 targets, replicated table) in one of the `FORMS`."""

    def __init__(self, form: str, data: SequenceArrays, graph: HashedGraph, max_length: int, world: World) -> None:
        config = load_config(None, [f"model.max_length={max_length}", "table.sharding=data_parallel", *_OPTIONS[form]])
        keep_freed_memory()  # as a rank of a training does
        training = hashed_training(config, data, graph, world)
        self._batches, self._steps = training.batches, training.steps
        self._padded, self._next, self._trained = form == PADDED, 0, 0

    def targets_per_second(self, count: int) -> float:
        """Train the next `count` steps, and return the targets per second, loading included."""
        self._trained = 0
        self._steps.sharded.system.train()
        began = perf_counter()
        for _ in self._steps.run(self._ready(count)):
            pass
        return self._trained / (perf_counter() - began)

    def batches(self, count: int) -> list[Batch]:
        """Return the first `count` batches of the epoch."""
        return [self._batches[number].batch for number in range(min(count, len(self._batches)))]

    def _ready(self, count: int) -> Iterator[Step]:
        for _ in range(count):
            step = self._batches[self._next % len(self._batches)]
            self._next += 1
            self._trained += step.batch.num_global_targets
            yield Step(in_one_group(step.batch), step.plan) if self._padded else step


def in_one_group(batch: Batch) -> Batch:
    """Return a batch of prefix rows as one group, padded to the longest row, as such rows are commonly trained."""
    assert all(group.states == 1 for group in batch.groups), "prefix rows have one state each"
    longest = max(group.length for group in batch.groups)
    sizes = [group.count * group.length for group in batch.groups]
    padded = [
        torch.nn.functional.pad(part.view(group.count, group.length), (0, longest - group.length))
        for part, group in zip(batch.history.split(sizes), batch.groups, strict=True)
    ]
    together = Batch(**{**vars(batch), "history": torch.cat(padded).flatten()})
    together.groups = (SequenceGroup(len(batch.lengths), longest, 1),)
    return together


def padded_share(batch: Batch) -> float:
    """Return the share of the towers' positions that hold no item."""
    return 1 - int(batch.lengths.sum()) / len(batch.history)
