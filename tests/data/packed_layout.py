"""The packed layout of a batch, read back with plain loops as `contracts.batch` documents it."""

from __future__ import annotations

import numpy as np

from contracts.batch import Batch


def contexts(batch: Batch) -> list[list[int]]:
    """Per target, what its state has seen (positions in the plan, oldest first).

    Asserts the rest of the layout: groups are as large as their largest sequence, whole or partial, pads are 0,
    nothing is left over, and each requested state belongs to one target.
    """
    seen: dict[int, list[int]] = {}
    row = place = state = 0
    for group in batch.groups:
        lengths, asked = batch.lengths[row:][: group.count].tolist(), batch.num_states[row:][: group.count].tolist()
        assert (len(lengths), max(lengths), max(asked)) == (group.count, group.length, group.states)
        assert (group.states == group.length) == (lengths == asked), "whole and partial sequences in one group"
        for length, num_states in zip(lengths, asked, strict=True):
            assert 1 <= num_states <= length
            items = batch.history[place : place + group.length].tolist()
            assert not any(items[length:])
            for q in range(num_states):
                seen[state + q] = items[: length - num_states + q + 1]
            row, place, state = row + 1, place + group.length, state + group.states
    assert (row, row, place) == (len(batch.lengths), len(batch.num_states), len(batch.history))
    assert sorted(batch.states.tolist()) == sorted(seen)
    return [seen[number] for number in batch.states.tolist()]


def real_places(batch: Batch) -> np.ndarray:
    """bool [P]: which places of `history` hold an item, not a pad."""
    widths = np.repeat([group.length for group in batch.groups], [group.count for group in batch.groups])
    lengths = batch.lengths.tolist()
    rows = [np.arange(width) < length for width, length in zip(widths, lengths, strict=True)]
    return np.concatenate([np.empty(0, dtype=bool), *rows])
