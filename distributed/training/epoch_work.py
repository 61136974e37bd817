"""Runs what a model computes from the whole catalogue before each epoch, such as a clustering of its items.

Rank 0 computes, and every rank receives the same bytes. The result is in the model's buffers, which are part of a
checkpoint. So a run that resumes within an epoch reads them, and one that resumes between two epochs computes them
again from the same weights and random numbers. On CPUs that gives the same bits. On a GPU sums may be added in another
order, and the result may differ in its last digits.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from distributed.inputs import Inputs
from distributed.random_streams import seed_for
from distributed.world import World
from model.recommender import Recommender


class StoredFeatures:
    """Reads the raw features of a dataset, a block of items at a time."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        self.num_items = inputs.dataset.num_items
        self._dataset, self._device = inputs.dataset, device

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return a feature of items start .. stop - 1, float32 [n, d_m], on the device."""
        block = np.array(self._dataset.features(name)[start:stop], dtype=np.float32)
        return torch.from_numpy(block).to(self._device)


def begin_epoch(recommender: Recommender, inputs: Inputs, world: World, seed: int, epoch: int) -> None:
    """Compute the model's epoch buffers on rank 0 and send them to all ranks. A collective.

    Args:
        recommender: the model; nothing happens if it has no epoch buffers.
        inputs: the dataset.
        world: this rank's place.
        seed: the run's seed.
        epoch: the number of the epoch that begins.
    """
    if not recommender.epoch_buffers:
        return
    if world.is_first:
        seed_for("epoch", seed, epoch, 0)
        recommender.eval()
        with torch.no_grad():
            recommender.begin_epoch(StoredFeatures(inputs, world.device))
    if world.size > 1:
        for name in recommender.epoch_buffers:
            dist.broadcast(recommender.get_buffer(name), 0)
