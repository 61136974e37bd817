"""Reads the ids and texts of items, and the ids of users, block by block.

N items. Memory: one block of rows of a Parquet file, and a sample of the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.dataset import Dataset
from data.layout import ITEMS, UNREADABLE, USERS
from experiments.inspection.counting import ValueCounts
from experiments.inspection.facts import IdFacts, TextFacts

_BATCH = 1 << 16  # rows
SAMPLE = 20_000  # texts
# A number with a point or an exponent: floats that were once whole numbers.
_FLOAT = r"^[+-]?[0-9]+(\.[0-9]*([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)$"
_SPACED = r"^\s|\s$"
_TAGS = "a|b|br|div|em|font|h[1-6]|hr|i|img|li|ol|p|span|strong|su[bp]|table|t[bdhr]|u|ul"
_MARKUP = rf"(?i)</?({_TAGS})( [^<>]*)?/?>|&(#[0-9]+|#x[0-9a-f]+|[a-z]{{2,8}});"


@dataclass
class IdCounts:
    """Counts ids that look like mistakes."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((_FLOAT, _SPACED), 0))
    examples: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys((_FLOAT, _SPACED), None))

    def add(self, ids: pa.Array) -> None:
        """Count a block of ids."""
        for pattern in self.counts:
            matches = pc.match_substring_regex(ids, pattern)
            number = matches.true_count
            if number and self.examples[pattern] is None:
                self.examples[pattern] = ids[pc.index(matches, True).as_py()].as_py()
            self.counts[pattern] += number

    def facts(self) -> IdFacts:
        return IdFacts(
            num_like_floats=self.counts[_FLOAT],
            like_float=self.examples[_FLOAT],
            num_spaced=self.counts[_SPACED],
            spaced=self.examples[_SPACED],
        )


@dataclass(frozen=True, kw_only=True)
class Names:
    """What was read: facts, and the ids and texts of the rows that were asked for."""

    ids: IdFacts
    texts: TextFacts | None
    id_of: dict[int, str]
    text_of: dict[int, str]


def item_names(data: Dataset, wanted: Iterable[int]) -> Names:
    """Read all items' ids and texts, and keep those of the items `wanted`.

    Raises:
        InputError: the file cannot be read.
    """
    return _names(data.folder / ITEMS, data.num_items, wanted)


def user_names(data: Dataset, wanted: Iterable[int]) -> Names:
    """Read all users' ids, and keep those of the users `wanted`. Raises InputError like `item_names`."""
    return _names(data.folder / USERS, data.num_users, wanted)


def _names(file: Path, num_rows: int, wanted: Iterable[int]) -> Names:
    chosen = np.array(sorted(set(wanted)), np.int64)
    ids, id_of, text_of = IdCounts(), dict[int, str](), dict[int, str]()
    texts, step = _Texts(), -(-num_rows // SAMPLE)
    has_texts = False
    for start, batch in _batches(file):
        ids.add(batch.column("source_id"))
        rows = chosen[(chosen >= start) & (chosen < start + len(batch))]
        taken = batch.take(pa.array(rows - start))
        id_of |= zip(rows.tolist(), taken.column("source_id").to_pylist(), strict=True)
        if "text" in batch.schema.names:
            has_texts = True
            texts.add(batch.column("text"), np.arange(-start % step, len(batch), step))
            found = zip(rows.tolist(), taken.column("text").to_pylist(), strict=True)
            text_of |= {row: text for row, text in found if text}
    return Names(ids=ids.facts(), texts=texts.facts() if has_texts else None, id_of=id_of, text_of=text_of)


def _batches(file: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the first row and the content of blocks of rows.

    Raises:
        InputError: the file cannot be read.
    """
    start = 0
    try:
        with pq.ParquetFile(file) as parquet:
            columns = [name for name in ("source_id", "text") if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_BATCH, columns=columns):
                yield start, batch
                start += len(batch)
    except UNREADABLE as error:
        raise InputError(f"{file}: cannot be read ({error}); prepare the dataset again") from None


@dataclass
class _Texts:
    """Counts texts; those of the given rows are the sample."""

    lengths: ValueCounts = field(default_factory=ValueCounts)
    num_markup: int = 0
    sample: Counter[str] = field(default_factory=Counter)

    def add(self, texts: pa.Array, sampled: np.ndarray) -> None:
        lengths = pc.fill_null(pc.utf8_length(texts), 0).to_numpy()
        if (lengths > 0).any():
            self.lengths.add(lengths[lengths > 0])
        self.num_markup += pc.match_substring_regex(texts, _MARKUP).true_count
        self.sample.update(text for text in texts.take(pa.array(sampled)).to_pylist() if text)

    def facts(self) -> TextFacts:
        [(commonest, count)] = self.sample.most_common(1) or [("", 0)]
        return TextFacts(
            num_texts=int(self.lengths.counts.sum()),
            lengths=self.lengths.spread() if len(self.lengths.values) else None,
            num_markup=self.num_markup,
            num_sampled=self.sample.total(),
            num_distinct=len(self.sample),
            commonest=commonest,
            num_commonest=count,
        )
