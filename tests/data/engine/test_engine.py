"""The engine gives what the same steps give over whole columns in memory, however the input is divided."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.prepare.engine.executor import SerialExecutor
from data.prepare.engine.plan import KnownIds, Rules, Sizes
from data.prepare.engine.result import Prepared
from data.prepare.engine.run import prepare
from data.prepare.engine.work import Work
from data.prepare.split import SplitRule
from data.writing import DatasetContent, write_folder
from tests.data.engine.in_memory import prepared_in_memory
from tests.data.engine.memory_source import MemorySource
from tests.fingerprints import fingerprints

IDS = st.sampled_from(["a", "b", "c", "ä", "1", "01", " ", None])
ROWS = st.lists(st.tuples(IDS, IDS, st.integers(-2, 3) | st.none()), min_size=1, max_size=60)
TINY = Sizes(bucket_bytes=5, segment_rows=4, range_rows=7)


def table_of(rows: list[tuple[Any, Any, Any]]) -> pa.Table:
    kinds = {"user": pa.large_string(), "item": pa.large_string(), "timestamp": pa.int64()}
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(kinds.items())})


def engine(source: MemorySource, rules: Rules, folder: Path, sizes: Sizes, known: KnownIds | None = None) -> Prepared:
    work = Work(folder)
    with work.opened({"made": "by a test"}):
        return prepare(source, source.pieces(1), rules, work=work, executor=SerialExecutor(), sizes=sizes, known=known)


def written(folder: Path, sequences: Any, user_ids: Any, item_ids: Any, split: Any, dropped: Any) -> dict[str, Any]:
    content = DatasetContent(
        sequences=sequences, user_source_ids=user_ids, item_source_ids=item_ids, split=split, dropped=dropped
    )
    write_folder(str(folder), content, overwrite=False)
    return fingerprints(folder)


def refused(call: Callable[[], Any]) -> str | None:
    """The line with which a call refuses its input."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


SPLITS = st.sampled_from(
    [
        SplitRule(),
        SplitRule(method="global-time", valid_from=1, test_from=2),
        SplitRule(method="global-time", valid_fraction=0.5, test_fraction=0.75),
        SplitRule(method="global-time", valid_fraction=0.9, test_fraction=1.0),
    ]
)
RULES = st.builds(
    Rules,
    min_user_interactions=st.integers(1, 3),
    min_item_interactions=st.integers(1, 3),
    max_history=st.none() | st.integers(1, 4),
    split=SPLITS,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=40)
@given(ROWS, RULES, st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_same_files_as_in_memory(
    rows: list[Any], rules: Rules, piece: int, block: int, range_rows: int, bucket_bytes: int
) -> None:
    table = table_of(rows)
    source = MemorySource(table=table, rows_of_piece=piece, rows_of_block=block)
    sizes = Sizes(bucket_bytes=bucket_bytes, segment_rows=block + 1, range_rows=range_rows)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if (refusal := refused(lambda: prepared_in_memory(source, rules))) is not None:
            assert refused(lambda: engine(source, rules, root / "work", sizes)) == refusal
            return
        expected = prepared_in_memory(source, rules)
        found = engine(source, rules, root / "work", sizes)
        assert found.dropped == expected[4]
        files = written(root / "found", found.sequences, found.user_ids, found.item_ids, found.split, found.dropped)
        assert files == written(root / "expected", *expected)
