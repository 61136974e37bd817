"""Divides the texts of a part into batches of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def token_batches(lengths: np.ndarray, most_tokens: int) -> Iterator[np.ndarray]:
    """Yield the indices of each batch, int64, shortest texts first, so that little of a batch is padding.

    The batches follow from the lengths alone.

    Args:
        lengths: int64 [n], tokens of each text.
        most_tokens: most tokens of a batch, padding included. A longer text is a batch of its own.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and lengths[order[stop]] * (stop + 1 - start) <= most_tokens:
            stop += 1
        yield order[start:stop]
        start = stop
