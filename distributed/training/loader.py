"""The loader of an epoch's steps: their order, its processes, and what keeps a forked process safe."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

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


def num_loader_workers(chosen: int | Literal["auto"], device: torch.device) -> int:
    """Return `training.loader_workers`. "auto" is 0 on CPUs, where cores compute; on a GPU the host's cores are free.

    Args:
        chosen: the setting.
        device: the rank's device.
    """
    if chosen != "auto":
        return chosen
    if device.type != "cuda":
        return 0
    ranks_of_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(4, max(1, (os.cpu_count() or 1) // ranks_of_node))


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
