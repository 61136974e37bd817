"""The loader of an epoch's steps: their order, its processes, and what keeps a forked process safe."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Sampler

from contracts.batch import Step
from data.sampling.batches import TrainBatches
from distributed.world import World


class StepOrder(Sampler[int]):
    """The numbers of an epoch's steps in order, beginning with `first`."""

    def __init__(self, count: int) -> None:
        self.first, self._count = 0, count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self._count))

    def __len__(self) -> int:
        return self._count - self.first


def loader_of(batches: TrainBatches, order: Sampler[int], num_workers: int, world: World) -> DataLoader[Step]:
    """Return a loader of steps in the given order, whose processes stay alive for the whole run."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=world.device.type == "cuda",
        generator=torch.Generator(),  # its own, so that the loader does not draw from the default generator
    )


@contextmanager
def no_collection_in_forks() -> Iterator[None]:
    """Within this context, a forked process never finalises objects that its parent created.

    Unreachable objects of the parent may own threads, as a process group of an earlier attempt does. A fork does not
    copy threads, so finalising such an object in the child hangs or crashes.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
