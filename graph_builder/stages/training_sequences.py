"""Copy the training parts of all sequences to files, so that counting pairs cannot read valid or test items.

    items.npy    `item_dtype` [T], one sequence after the other
    offsets.npy  int64 [users+1], where each sequence begins

An event is a position in `items`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contracts.errors import InputError
from graph_builder.build_inputs import GraphSource
from kernels.cooccurrence.pair_counts import cut_rows, item_dtype
from storage.array_file import map_array, save_array
from storage.durable_files import replacing

_COPIED_AT_A_TIME = 1 << 22


class Surroundings(NamedTuple):
    """The requested events and the events around them in the same sequences: the arguments of `bucket_pairs`.

    Attributes:
        items: [T'], the items of all these events.
        offsets: int64, where each sequence, or the part of it that is included, begins in `items`.
        centers: (first, last): the requested events are `items[first:last]`.
    """

    items: np.ndarray
    offsets: np.ndarray
    centers: tuple[int, int]


def read_around(folder: Path, first: int, last: int, max_gap: int) -> Surroundings:
    """Read the events [first, last), and the events of their sequences at most `max_gap` before or after them."""
    offsets = map_array(folder / "offsets.npy")
    first_user = int(np.searchsorted(offsets, first, side="right")) - 1
    last_user = max(int(np.searchsorted(offsets, last)), first_user)
    around = np.asarray(offsets[first_user : last_user + 1])
    begin = max(int(around[0]), first - max_gap)
    end = max(min(int(around[-1]), last + max_gap), begin)
    items = np.asarray(map_array(folder / "items.npy")[begin:end])
    return Surroundings(items, np.clip(around, begin, end) - begin, (first - begin, last - begin))


def write_training_sequences(source: GraphSource, folder: Path) -> np.ndarray:
    """Write both files, unless they exist. Return the lengths of the training sequences, int64 [users].

    Raises:
        InputError: a training item outside [0, N).
    """
    lengths = np.asarray(source.train_end, dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    assert ((lengths >= 0) & (lengths <= np.diff(source.offsets))).all()
    if (folder / "offsets.npy").exists():
        return lengths
    # Users are copied in ranges of about _COPIED_AT_A_TIME events, at least one user at a time.
    copies = cut_rows(np.diff(source.offsets), _COPIED_AT_A_TIME)
    with replacing(folder / "items.npy") as temporary:
        dtype = item_dtype(source.num_items)
        items = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(int(offsets[-1]),))
        for first, last in itertools.pairwise(copies):
            begins = np.asarray(source.offsets[first : last + 1], dtype=np.int64)
            position = np.arange(begins[0], begins[-1]) - np.repeat(begins[:-1], np.diff(begins))
            trained = position < np.repeat(lengths[first:last], np.diff(begins))
            chunk = np.asarray(source.items[begins[0] : begins[-1]])[trained]
            if len(chunk) and not (chunk.min() >= 0 and chunk.max() < source.num_items):
                raise InputError(
                    f"dataset {source.path}: users {first} to {last - 1} hold a training item outside "
                    f"[0, {source.num_items}); prepare the dataset again"
                )
            items[offsets[first] : offsets[last]] = chunk
        items.flush()
    save_array(folder / "offsets.npy", offsets)
    return lengths
