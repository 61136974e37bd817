"""The engine gives what the same steps give over whole columns in memory, however the input is divided."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.prepare.cold import ColdRule, with_cold
from data.prepare.engine.executor import SerialExecutor
from data.prepare.engine.plan import KnownIds, Rules, Sizes
from data.prepare.engine.result import Prepared
from data.prepare.engine.run import prepare
from data.prepare.engine.work import Work
from data.prepare.engine.workplace import Workplace, prepared
from data.prepare.split import SplitRule
from data.writing import write_items, write_sequences, write_users
from tests.data.engine.in_memory import cold_in_memory, prepared_in_memory
from tests.data.engine.memory_source import MemorySource
from tests.fingerprints import Fingerprint, fingerprints

IDS = st.sampled_from(["a", "b", "c", "ä", "1", "01", " ", None])
ROWS = st.lists(st.tuples(IDS, IDS, st.integers(-2, 3) | st.none()), min_size=1, max_size=60)
TINY = Sizes(bucket_bytes=20, segment_rows=9, range_rows=20, group_rows=2)
ALL = Rules(min_user_interactions=1, min_item_interactions=1)


def table_of(rows: list[tuple[Any, Any, Any]]) -> pa.Table:
    kinds = {"user": pa.large_string(), "item": pa.large_string(), "timestamp": pa.int64()}
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(kinds.items())})


def engine(source: MemorySource, rules: Rules, folder: Path, sizes: Sizes, known: KnownIds | None = None) -> Prepared:
    work = Work(folder)
    with work.opened({"made": "by a test"}):
        return prepare(source, source.chunks(1), rules, work=work, executor=SerialExecutor(), sizes=sizes, known=known)


def contents(
    folder: Path, sequences: Any, user_ids: Any, item_ids: Any, cold: np.ndarray | None = None
) -> dict[str, Fingerprint]:
    """The files of a dataset, by the functions that write them, but without flushing them to disk."""
    folder.mkdir()
    write_sequences(folder / "sequences", sequences)
    write_users(folder / "users", user_ids)
    further = None if cold is None else with_cold(None, cold)
    write_items(folder / "items", item_ids, sequences.popularity(len(item_ids)), None, {}, further)
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
    cold=st.none() | st.builds(ColdRule, share=st.floats(0.1, 0.9), seed=st.integers(0, 2**63 - 1)),
)


@pytest.mark.long
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=25)
@given(ROWS, RULES, st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_same_files_as_in_memory(
    rows: list[Any], rules: Rules, chunk: int, block: int, range_rows: int, bucket_bytes: int
) -> None:
    table = table_of(rows)
    source = MemorySource(table=table, rows_of_chunk=chunk, rows_of_block=block)
    sizes = Sizes(bucket_bytes=bucket_bytes, segment_rows=block + 1, range_rows=range_rows)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if (refusal := refused(lambda: prepared_in_memory(source, rules))) is not None:
            assert refused(lambda: engine(source, rules, root / "work", sizes)) == refusal
            return
        expected = prepared_in_memory(source, rules)
        found = engine(source, rules, root / "work", sizes)
        assert (found.split, found.dropped) == expected[3:]
        files = contents(root / "found", found.sequences, found.user_ids, found.item_ids, found.cold)
        cold = None if rules.cold is None else np.array(cold_in_memory(expected[2].to_pylist(), rules.cold))
        assert files == contents(root / "expected", *expected[:3], cold)


@pytest.mark.long
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=5)
@given(st.integers(0, 2**32), st.integers(1, 300), st.booleans())
def test_long_histories_with_many_equal_times(seed: int, num_times: int, with_times: bool) -> None:
    """Two users with hundreds of rows each, so that sorting by insertion is left to NumPy's."""
    random = np.random.default_rng(seed)
    count = 800
    columns = {
        "user": pa.array(random.choice(["a", "b", "c"], count, p=[0.6, 0.39, 0.01]), pa.large_string()),
        "item": pa.array(random.integers(0, 5, count).astype(str), pa.large_string()),
        "timestamp": pa.array(random.integers(0, num_times, count)),
    }
    table = pa.table(columns if with_times else {name: columns[name] for name in ("user", "item")})
    source = MemorySource(table=table, rows_of_chunk=300, rows_of_block=70)
    expected = prepared_in_memory(source, ALL)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = Sizes(bucket_bytes=300, segment_rows=200, range_rows=250)
        found = engine(source, ALL, Path(scratch) / "work", sizes)
        assert found.dropped == expected[4]
        files = contents(Path(scratch) / "found", found.sequences, found.user_ids, found.item_ids)
        assert files == contents(Path(scratch) / "expected", *expected[:3])


def lists_of(found: Prepared, folder: Path) -> dict[str, list[tuple[str, int, int]]]:
    """For each user, the items, and the ends of training and validation."""
    contents(folder, found.sequences, found.user_ids, found.item_ids)
    batch = pa.ipc.open_file(folder / "sequences").get_batch(0)
    users, items = found.user_ids.collected().to_pylist(), found.item_ids.collected().to_pylist()
    rows = zip(*(batch.column(name).to_pylist() for name in ("items", "train_end", "valid_end")), strict=True)
    return {user: ([items[i] for i in row[0]], *row[1:]) for user, row in zip(users, rows, strict=True)}


def test_ids_that_are_known_come_first_and_stay(tmp_path: Path) -> None:
    rows = [("x", "new", 1), ("old", "p", 2), ("x", "q", 3), ("y", "r", 4), ("x", "p", 5), ("y", "p", 6), ("z", "p", 7)]
    source = MemorySource(table=table_of(rows), rows_of_chunk=3)
    ids = {"users": ["y", "old"], "items": ["unseen", "q", "p"]}
    known = KnownIds(**{kind: pa.array(names, pa.large_string()) for kind, names in ids.items()})
    rules = Rules(min_user_interactions=2, min_item_interactions=2)
    found = engine(source, rules, tmp_path / "work", TINY, known)
    assert lists_of(found, tmp_path / "files") == {"y": (["p"], 1, 1), "old": (["p"], 1, 1), "x": (["q", "p"], 2, 2)}
    assert found.item_ids.collected().to_pylist() == ["unseen", "q", "p"]
    assert found.dropped["k_core_interactions"] == 3  # new and r are too rare, and so is z
    assert (found.dropped["k_core_users"], found.dropped["k_core_items"]) == (1, 2)
    missing = KnownIds(users=pa.array(["y", "who"], pa.large_string()), items=known.items)
    with pytest.raises(InputError, match="has no interaction of user 'who', who must stay; give at least one"):
        engine(source, rules, tmp_path / "other", TINY, missing)


@pytest.mark.long
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=6)
@given(ROWS, RULES)
def test_all_ids_known_in_order_of_appearance_change_nothing(rows: list[Any], rules: Rules) -> None:
    """With the ids that a preparation keeps, the same input gives the same dataset."""
    source = MemorySource(table=table_of(rows), rows_of_chunk=7, rows_of_block=3)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if refused(lambda: engine(source, rules, root / "refused", TINY)) is not None:
            return
        first = engine(source, rules, root / "first", TINY)
        known = KnownIds(users=first.user_ids.collected(), items=first.item_ids.collected())
        second = engine(source, rules, root / "second", TINY, known)
        assert (second.dropped, second.split) == (first.dropped, first.split)
        files = [contents(root / str(n), p.sequences, p.user_ids, p.item_ids) for n, p in enumerate((first, second))]
        assert files[0] == files[1]


def test_the_sources_own_split_is_kept(tmp_path: Path) -> None:
    rows = [("u", "a", 1, 0), ("v", "a", 1, 2), ("u", "c", 3, 2), ("u", "b", 3, 1), ("v", "b", 0, 0), ("v", "a", 1, 0)]
    table = table_of([row[:3] for row in rows]).append_column("split", pa.array([row[3] for row in rows], pa.int8()))
    source = MemorySource(table=table, rows_of_chunk=2)
    found = engine(source, ALL, tmp_path / "work", TINY)
    # Of equal times, an earlier part of the split comes first; of duplicates, the first in the input stays.
    assert lists_of(found, tmp_path / "files") == {"u": (["a", "b", "c"], 1, 2), "v": (["b", "a"], 1, 1)}
    given_by = {"method": "given", "given_by": "the source's files"}
    assert found.split == given_by | {"users_not_in_order_of_time": 0}
    assert found.sequences.time_files is not None
    late = MemorySource(table=table.set_column(3, "split", pa.array([1, 2, 0, 0, 0, 0], pa.int8())))
    # A split that was drawn at random comes before time, and then there are no timestamps.
    found = engine(late, ALL, tmp_path / "late", TINY)
    assert lists_of(found, tmp_path / "late files") == {"u": (["c", "b", "a"], 2, 3), "v": (["b", "a"], 1, 1)}
    assert found.split == given_by | {"users_not_in_order_of_time": 1}
    assert found.sequences.time_files is None
    none = MemorySource(table=table.set_column(3, "split", pa.array([2] * 6, pa.int8())))
    with pytest.raises(InputError, match="no interaction is for training in the source's own split"):
        engine(none, ALL, tmp_path / "none", TINY)


def test_without_timestamps_the_order_is_that_of_the_input(tmp_path: Path) -> None:
    table = table_of([("u", "b", 0), ("v", "a", 0), ("u", "a", 0), ("u", "b", 0)]).drop_columns(["timestamp"])
    found = engine(MemorySource(table=table, rows_of_chunk=2), ALL, tmp_path / "work", TINY)
    assert lists_of(found, tmp_path / "files") == {"u": (["b", "a", "b"], 1, 2), "v": (["a"], 1, 1)}
    assert found.time_kind is None
    assert "duplicates" not in found.dropped
    rules = Rules(min_user_interactions=1, min_item_interactions=1, split=SplitRule(method="global-time"))
    with pytest.raises(InputError, match="split global-time: the data has no timestamps; use --split leave-one-out"):
        engine(MemorySource(table=table), rules, tmp_path / "other", TINY)


@pytest.mark.long
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=6)
@given(ROWS, st.integers(1, 3), st.integers(1, 3))
def test_rows_are_in_the_dataset_or_held_back(rows: list[Any], min_user: int, min_item: int) -> None:
    source = MemorySource(table=table_of(rows), rows_of_chunk=7, rows_of_block=3)
    rules = Rules(min_user_interactions=min_user, min_item_interactions=min_item, hold_back=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if refused(lambda: engine(source, rules, root / "refused", TINY)) is not None:
            return
        found = engine(source, rules, root / "work", TINY)
        assert found.held_back is not None
        found.held_back.write(root / "held.parquet")
        held = pq.read_table(root / "held.parquet")
        assert held.schema.names == ["user", "item", "timestamp"]
        assert held.num_rows == found.dropped["k_core_interactions"]
        files = root / "files"
        contents(files, found.sequences, found.user_ids, found.item_ids)
        batch = pa.ipc.open_file(files / "sequences").get_batch(0)
        users, items = found.user_ids.collected().to_pylist(), found.item_ids.collected().to_pylist()
        columns = (batch.column(name).to_pylist() for name in ("items", "timestamps"))
        kept = [(u, items[i], t) for u, *row in zip(users, *columns, strict=True) for i, t in zip(*row, strict=True)]
        complete = {row for row in rows if None not in row}
        assert sorted([*kept, *zip(*held.to_pydict().values(), strict=True)]) == sorted(complete)


def test_the_first_broken_chunk_is_named_and_nothing_stays(tmp_path: Path) -> None:
    source = MemorySource(table=table_of([("u", "a", 1)] * 9), rows_of_chunk=2, broken=2)
    place = Workplace(folder=tmp_path / "work", sizes=TINY)
    with pytest.raises(InputError, match="memory: chunk 2 is broken"), prepared(source, ALL, place):
        pass
    assert not (tmp_path / "work").exists()


def test_one_command_at_a_time(tmp_path: Path) -> None:
    source = MemorySource(table=table_of([("u", "a", 1)]))
    place = Workplace(folder=tmp_path / "work")
    with prepared(source, ALL, place):
        with pytest.raises(InputError, match="another command prepares the same dataset"), prepared(source, ALL, place):
            pass
        assert (tmp_path / "work").exists()
