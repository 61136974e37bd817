"""Reconstructs whole sequences from UniSRec's rows, which may have been cut to the most recent L items.

U users. A user's *training part* is everything before the validation item. Three sources contain it: the valid row's
history, the test row's history without its last item, and the train rows (every prefix, each with one target). The
longest of the three is used, and the others must agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.formats.unisrec_rows import Rows
from data.ragged import first_difference, offsets_of, ragged_indices, take_lists


@dataclass(frozen=True)
class _Part:
    """A list for each user: values[starts[u]:starts[u] + lengths[u]]."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def whole_sequences(
    test: Rows, valid: Rows, train: Rows | None, source_ids: pa.Array
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return every user's longest consistent sequence.

    Args:
        test: one row for each user, in any order.
        valid: one row for each user, in any order.
        train: any subset of the prefixes, or None.
        source_ids: source ids of the users, for messages.

    Returns:
        Offsets int64 [U+1] and items int64 of the sequences (training part, validation item, test item), and two
        counts: users whose sequence may lack its start, because the files were cut, and users whose sequence was
        reconstructed from train rows.

    Raises:
        InputError: a user has no row, or the files contradict each other.
    """
    test, valid = _by_user(test, source_ids), _by_user(valid, source_ids)
    history = _Part(valid.items, valid.offsets[:-1], valid.lengths - 1)
    tested = _Part(test.items, test.offsets[:-1], test.lengths - 1)
    chain = _chain(train, len(source_ids)) if train else _Part(test.items, test.offsets[:-1], 0 * test.lengths)
    offsets, training = _longest([history, _Part(tested.values, tested.starts, tested.lengths - 1), chain])
    lengths = np.diff(offsets)

    whole_offsets = offsets_of(lengths + 2)
    items = np.empty(whole_offsets[-1], np.int64)
    items[ragged_indices(whole_offsets[:-1], lengths)] = training
    items[whole_offsets[1:] - 2] = valid.items[valid.offsets[1:] - 1]
    items[whole_offsets[1:] - 1] = test.items[test.offsets[1:] - 1]

    whole = _Part(items, whole_offsets[:-1], lengths + 2)
    if train:
        _check_train(train, whole, chain.lengths == lengths, source_ids)
    _check_ending(valid.file, history, whole, 2, source_ids)
    _check_ending(test.file, tested, whole, 1, source_ids)
    shorter = (tested.lengths < lengths + 1) | (history.lengths < lengths)
    notes = {
        "users_with_cut_history": int((shorter & (chain.lengths < lengths)).sum()),
        "users_rebuilt_from_train": int((shorter & (history.lengths < lengths) & (chain.lengths == lengths)).sum()),
    }
    return whole_offsets, items, notes


def _by_user(rows: Rows, source_ids: pa.Array) -> Rows:
    counts = np.bincount(rows.users, minlength=len(source_ids))
    if len(bad := np.flatnonzero(counts != 1)):
        raise InputError(
            f"{rows.file}: {_name(int(bad[0]), source_ids)} has {counts[bad[0]]} rows, expected 1: "
            "the file is truncated or belongs to another split, restore it"
        )
    order = np.argsort(rows.users)
    offsets, items = take_lists(rows.offsets, rows.items, order)
    return Rows(file=rows.file, users=rows.users[order], offsets=offsets, items=items)


def _ranks(train: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows sorted by user and length, and each row's place (0-based) among the rows of its user.

    Rows that were cut to the same length are sorted by the order of the file, which may be descending.
    """
    same_user = train.users[1:] == train.users[:-1]
    steps = np.diff(train.lengths)[same_user]
    rows = np.arange(len(train.users))
    if (steps < 0).sum() > (steps > 0).sum():
        rows = rows[::-1]
    order = rows[np.lexsort((train.lengths[rows], train.users[rows]))]
    counts = np.bincount(train.users)
    return order, np.arange(len(order)) - np.repeat(offsets_of(counts)[:-1], counts)


def _chain(train: Rows, num_users: int) -> _Part:
    """Return the training part that train rows give if all prefixes are there: the first item, then each target."""
    order, rank = _ranks(train)
    users, ends = train.users[order], train.offsets[1:][order]
    prefixes = np.bincount(users, minlength=num_users)
    lengths = prefixes + (prefixes > 0)
    offsets = offsets_of(lengths)
    values = np.empty(offsets[-1], np.int64)
    values[offsets[users] + rank + 1] = train.items[ends - 1]
    values[offsets[users[rank == 0]]] = train.items[ends[rank == 0] - 2]
    return _Part(values, offsets[:-1], lengths)


def _longest(parts: list[_Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's longest list (the first of equally long ones), as offsets [U+1] and values."""
    pool = np.concatenate([part.values for part in parts])
    shifts = np.cumsum([0, *(len(part.values) for part in parts[:-1])])
    starts = np.stack([part.starts + shift for part, shift in zip(parts, shifts, strict=True)])
    lengths = np.stack([part.lengths for part in parts])
    best, users = np.argmax(lengths, axis=0), np.arange(lengths.shape[1])
    chosen = lengths[best, users]
    return offsets_of(chosen), pool[ragged_indices(starts[best, users], chosen)]


def _check_ending(file: str, part: _Part, whole: _Part, skipped: int, source_ids: pa.Array) -> None:
    """Check that the part is the end of the whole sequence without its last `skipped` items."""
    starts = whole.starts + whole.lengths - skipped - part.lengths
    if (user := first_difference(part.values, part.starts, whole.values, starts, part.lengths)) is not None:
        raise InputError(
            f"{file}: the history of {_name(user, source_ids)} contradicts the other files of the split: "
            "it is not the end of the sequence in them; restore all files from the same split"
        )


def _check_train(train: Rows, whole: _Part, complete: np.ndarray, source_ids: pa.Array) -> None:
    """Check that each train row is a prefix of its user's training part, or the end of one if it was cut."""
    order, rank = _ranks(train)
    users, lengths = train.users[order], train.lengths[order]
    # If all prefixes are there, the place tells which prefix a row is, even if its history was cut.
    ends = np.where(complete[users], rank + 2, lengths)
    outside = (ends < lengths) | (ends > whole.lengths[users] - 2)
    inside = np.flatnonzero(~outside)
    differs = first_difference(
        train.items, train.offsets[:-1][order[inside]], whole.values, (whole.starts[users] + ends - lengths)[inside],
        lengths[inside],
    )  # fmt: skip
    bad = inside[differs] if differs is not None else int(np.argmax(outside)) if outside.any() else None
    if bad is not None:
        raise InputError(
            f"{train.file}: row {order[bad] + 2} of {_name(int(users[bad]), source_ids)} is not a prefix of the "
            "history in the valid file; restore all files from the same split, or leave the train file out"
        )


def _name(user: int, source_ids: pa.Array) -> str:
    return f"user {user} (source id {source_ids[user].as_py()!r})"
