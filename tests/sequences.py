"""Sequences in memory that have the attributes of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Sequences:
    """An in-memory implementation of `data.sequences.SequenceArrays`."""

    num_items: int
    num_users: int
    offsets: np.ndarray
    items: np.ndarray
    train_end: np.ndarray
    valid_end: np.ndarray

    def popularity(self) -> np.ndarray:
        """Return the number of training interactions of each item, int64 [N]."""
        position = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        training = self.items[position < np.repeat(self.train_end, np.diff(self.offsets))]
        return np.bincount(training, minlength=self.num_items)

    def cold_items(self) -> np.ndarray | None:
        """No item is held out of training."""
        return None
