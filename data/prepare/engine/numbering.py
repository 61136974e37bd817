"""Numbers users and items in order of first appearance, across all segments.

First, the dictionaries of the segments are unified bucket by bucket: an id is in the same bucket of every segment, so a
task holds the texts of one bucket. Then whole numbers are enough. A segment introduces an id if no earlier one has it.
In a segment, codes are in order of first appearance. So the number of an id is the number of ids that earlier segments
introduce, plus its rank among those of its own segment.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.prepare.engine.plan import Kind, Table
from data.prepare.engine.work import load, load_batch, save, save_batches

_LARGEST = 2**31 - 1


def unify_bucket(table: Table, kind: Kind, bucket: int) -> None:
    """Write the different ids of a bucket, and the place of each segment's ids among them.

    Files: ids.arrow; places.npy, int32, segment after segment.
    """
    with table.work.writing(f"unify/{kind}", bucket) as (folder, facts):
        texts = [load_batch(segment.folder / f"{kind}-ids.arrow", bucket).column(0) for segment in table.segments]
        joined = pa.concat_arrays(texts).dictionary_encode()
        save_batches(folder / "ids.arrow", [pa.record_batch({"id": joined.dictionary})])
        save(folder, places=joined.indices.to_numpy())
        facts["num_ids"] = len(joined.dictionary)


def number_ids(table: Table, kind: Kind, _task: int = 0) -> None:
    """Write the number of each id, and the numbers of each segment's codes.

    Files: numbers.npy, int32, in the order of buckets and of ids in them; rows.npy, int64, the number of rows of each
    number; codes-<segment>.npy, int32, the number of each code of a segment.

    Raises:
        InputError: there are more than 2^31 - 1 different ids.
    """
    work = table.work
    sizes = [work.facts(f"unify/{kind}", bucket)["num_ids"] for bucket in range(table.num_buckets)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if starts[-1] > _LARGEST:
        raise InputError(
            f"the input has {starts[-1]:,} different {kind}, at most {_LARGEST:,} are supported; leave rows out"
        )
    places = [load(work.task(f"unify/{kind}", bucket), "places") for bucket in range(table.num_buckets)]
    numbers = np.full(starts[-1], -1, np.int32)
    rows = np.zeros(starts[-1], np.int64)
    read, introduced = np.zeros(table.num_buckets, np.int64), 0
    with work.writing(f"number/{kind}", 0) as (folder, facts):
        for index, segment in enumerate(table.segments):
            lengths = np.diff(segment.offsets[kind])
            # The ids of the segment, bucket by bucket: their places among all ids, and their codes in the segment.
            parts = [
                starts[bucket] + places[bucket][read[bucket] : read[bucket] + length].astype(np.int64)
                for bucket, length in enumerate(lengths)
            ]
            read += lengths
            of_codes = np.empty(lengths.sum(), np.int64)
            of_codes[load(segment.folder, f"{kind}-codes")] = np.concatenate(parts)
            new = numbers[of_codes] < 0
            num_new = int(np.count_nonzero(new))
            numbers[of_codes[new]] = np.arange(introduced, introduced + num_new)
            introduced += num_new
            numbered = numbers[of_codes]
            rows[numbered] += load(segment.folder, f"{kind}-rows")
            save(folder, **{f"codes-{index}": numbered})
        assert introduced == starts[-1]
        save(folder, numbers=numbers, rows=rows)
        facts["num_ids"] = introduced


def id_of(table: Table, kind: Kind, number: int) -> str:
    """Return the id with a number, for a message."""
    place = int(np.flatnonzero(load(table.work.task(f"number/{kind}", 0), "numbers") == number)[0])
    for bucket in range(table.num_buckets):
        folder = table.work.task(f"unify/{kind}", bucket)
        size = table.work.facts(f"unify/{kind}", bucket)["num_ids"]
        if place < size:
            return str(load_batch(folder / "ids.arrow", 0).column(0)[place].as_py())
        place -= size
    raise AssertionError(number)
