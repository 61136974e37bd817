"""Sequences in memory, behind the attributes of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Sequences:
    """A SequenceArrays in memory."""

    num_items: int
    num_users: int
    offsets: np.ndarray
    items: np.ndarray
    train_end: np.ndarray
    valid_end: np.ndarray
