"""Growing a dataset: ids, histories, what was held back, the split, and how the input is divided."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.dataset import Dataset
from data.prepare.engine.plan import Sizes
from data.prepare.growth.moved import moved_targets
from data.prepare.growth.stored_rows import ids_of_users
from data.prepare.split import SplitRule
from tests.data.growth.growing import Row, histories, prepared_dataset, source_of, targets
from tests.fingerprints import fingerprints

NAMES = st.sampled_from(["a", "b", "c", "ä", "1", "01", " "])
ROWS = st.lists(st.tuples(NAMES, NAMES, st.integers(0, 9)), min_size=1, max_size=20)
MINIMUMS = st.integers(1, 3)
TINY = Sizes(chunk_bytes=40, block_bytes=70, bucket_bytes=300, segment_rows=4, range_rows=7)
QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=20)


def first_dataset(folder: Path, rows: list[Row], **options: Any) -> Dataset | None:
    """The dataset of these rows; None: nothing is left of them."""
    try:
        return prepared_dataset(folder, source_of(rows), **options)
    except InputError:
        return None


@pytest.mark.long
@QUICK
@given(ROWS, ROWS, MINIMUMS, MINIMUMS)
def test_with_rows_held_back_two_steps_give_the_users_items_and_histories_of_one(
    before: list[Row], after: list[Row], min_user: int, min_item: int
) -> None:
    options = {"min_user_interactions": min_user, "min_item_interactions": min_item, "hold_back": True}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if (old := first_dataset(root / "old", before, **options)) is None:
            return
        whole = prepared_dataset(root / "whole", source_of([*before, *after]), **options)
        grown = prepared_dataset(root / "grown", source_of(after, rows_of_chunk=2), old, sizes=TINY, **options)
        assert set(grown.item_source_ids().to_pylist()) == set(whole.item_source_ids().to_pylist())
        # Rows at the same time may be in another order: OLD's come first, then those held back, then the new.
        expected = {user: sorted(history) for user, history in histories(whole).items()}
        assert {user: sorted(history) for user, history in histories(grown).items()} == expected
        lengths = [dict(zip(d.user_source_ids().to_pylist(), d.train_end, strict=True)) for d in (grown, whole)]
        assert lengths[0] == lengths[1]
        # A second time, the same rows are all repeats, and nothing changes.
        again = prepared_dataset(root / "again", source_of(after), grown, **options)
        assert again.fingerprint == grown.fingerprint


@pytest.mark.long
@QUICK
@given(ROWS, ROWS, MINIMUMS, MINIMUMS, st.none() | st.integers(1, 4))
def test_old_users_items_and_rows_stay(
    before: list[Row], after: list[Row], min_user: int, min_item: int, max_history: int | None
) -> None:
    options = {
        "min_user_interactions": min_user, "min_item_interactions": min_item, "max_history": max_history
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if (old := first_dataset(root / "old", before, **options)) is None:
            return
        untouched = fingerprints(root / "old")
        grown = prepared_dataset(root / "grown", source_of(after), old, **options)
        assert grown.user_source_ids().slice(0, old.num_users).equals(old.user_source_ids())
        assert grown.item_source_ids().slice(0, old.num_items).equals(old.item_source_ids())
        assert fingerprints(root / "old") == untouched
        divided = prepared_dataset(root / "divided", source_of(after, rows_of_chunk=2), old, sizes=TINY, **options)
        assert divided.fingerprint == grown.fingerprint
        earlier, later = histories(old), histories(grown)
        given_rows = {user: [(time, item) for name, item, time in after if name == user] for user in later}
        for user, history in later.items():
            kept = history if max_history is None else history[-max_history:]
            assert set(kept) <= {*earlier.get(user, ()), *given_rows[user]}
            if max_history is None:
                assert set(earlier.get(user, ())) <= set(history)
        was, now = targets(old), targets(grown)
        moved = moved_targets(old, grown)
        assert (moved.num_users, moved.valid, moved.test) == (
            old.num_users, *(sum(was[user][part] != now[user][part] for user in was) for part in (0, 1))
        )  # fmt: skip


def rows_of(users: dict[str, list[tuple[str, int]]]) -> list[Row]:
    return [(user, item, time) for user, history in users.items() for item, time in history]


OLD = rows_of({"u": [("a", 1), ("b", 2), ("c", 3)], "v": [("a", 2), ("b", 3), ("c", 4)]})
LOW = {"min_user_interactions": 1, "min_item_interactions": 1}


def test_leave_one_out_moves_only_the_targets_of_users_with_new_rows(tmp_path: Path) -> None:
    old = prepared_dataset(tmp_path / "old", source_of(OLD), **LOW)
    grown = prepared_dataset(tmp_path / "grown", source_of([("u", "d", 9)]), old, **LOW)
    assert targets(old)["u"] == ([(2, "b")], [(3, "c")])
    # The old test item is the validation target now, and the old validation item is for training.
    assert targets(grown)["u"] == ([(3, "c")], [(9, "d")])
    assert targets(grown)["v"] == targets(old)["v"]
    moved = moved_targets(old, grown)
    assert (moved.valid, moved.test) == (1, 1)


def test_global_time_keeps_its_moments_so_new_rows_are_for_testing(tmp_path: Path) -> None:
    rule = SplitRule(method="global-time", valid_from=3, test_from=4)
    old = prepared_dataset(tmp_path / "old", source_of(OLD), split=rule, **LOW)
    new = source_of([("u", "d", 9), ("w", "a", 2)])
    grown = prepared_dataset(tmp_path / "kept", new, old, split=rule, **LOW)
    assert targets(grown) == {
        "u": ([(3, "c")], [(9, "d")]), "v": ([(3, "b")], [(4, "c")]), "w": ([], []),
    }  # fmt: skip
    assert moved_targets(old, grown).valid == 0
    later = SplitRule(method="global-time", valid_from=4, test_from=5)
    grown = prepared_dataset(tmp_path / "moved", new, old, split=later, **LOW)
    assert targets(grown)["u"] == ([], [(9, "d")])
    assert targets(grown)["v"] == ([(4, "c")], [])


def test_rows_older_than_a_cut_history_come_in_and_are_cut_again(tmp_path: Path) -> None:
    rows = rows_of({"u": [(name, time) for time, name in enumerate("abcde")]})
    old = prepared_dataset(tmp_path / "old", source_of(rows), max_history=2, **LOW)
    assert histories(old) == {"u": [(3, "d"), (4, "e")]}
    same = prepared_dataset(tmp_path / "same", source_of([*rows, ("u", "f", 5)]), old, max_history=2, **LOW)
    assert histories(same) == {"u": [(4, "e"), (5, "f")]}
    assert same.item_source_ids().to_pylist() == list("abcdef")
    longer = prepared_dataset(tmp_path / "longer", source_of([*rows, ("u", "f", 5)]), old, max_history=4, **LOW)
    assert histories(longer) == {"u": [(2, "c"), (3, "d"), (4, "e"), (5, "f")]}


def test_without_timestamps_new_rows_follow_and_nothing_counts_as_a_repeat(tmp_path: Path) -> None:
    old = prepared_dataset(tmp_path / "old", source_of(OLD, has_times=False), **LOW)
    grown = prepared_dataset(
        tmp_path / "grown", source_of([("u", "d", 0), ("v", "a", 0), ("v", "a", 0)], has_times=False), old, **LOW
    )
    items = {user: [item for _, item in history] for user, history in histories(grown).items()}
    assert items == {"u": ["a", "b", "c", "d"], "v": ["a", "b", "c", "a", "a"]}


@pytest.mark.parametrize("old_has_times", [True, False])
def test_timestamps_on_one_side_only_are_refused(tmp_path: Path, old_has_times: bool) -> None:
    old = prepared_dataset(tmp_path / "old", source_of(OLD, has_times=old_has_times), **LOW)
    with pytest.raises(InputError, match="nothing says which rows are later"):
        prepared_dataset(tmp_path / "grown", source_of(OLD, has_times=not old_has_times), old, **LOW)
    assert not (tmp_path / "grown").exists()


def test_the_manifest_names_every_dataset_that_it_has_grown_from(tmp_path: Path) -> None:
    first = prepared_dataset(tmp_path / "1", source_of(OLD), **LOW)
    second = prepared_dataset(tmp_path / "2", source_of([("u", "d", 9)]), first, **LOW)
    third = prepared_dataset(tmp_path / "3", source_of([("x", "d", 9)]), second, **LOW)
    origin = third.manifest["source"]["appended_to"]
    assert (origin["path"], origin["fingerprint"]) == (second.path, second.fingerprint)
    assert origin["appended_to"] == {
        "path": first.path, "fingerprint": first.fingerprint, "num_users": 2, "num_items": 3
    }  # fmt: skip


def test_rows_at_the_same_time_are_in_the_order_old_held_back_new(tmp_path: Path) -> None:
    options = {"min_user_interactions": 2, "min_item_interactions": 2, "hold_back": True}
    rows = [("u", "z", 5), ("u", "a", 5), ("v", "a", 1), ("u", "b", 5), ("v", "b", 2)]
    old = prepared_dataset(tmp_path / "old", source_of(rows), **options)
    assert histories(old)["u"] == [(5, "a"), (5, "b")]
    new = source_of([("u", "c", 5), ("u", "b", 5), ("w", "z", 1), ("w", "c", 2)])
    grown = prepared_dataset(tmp_path / "grown", new, old, **options)
    assert histories(grown)["u"] == [(5, "a"), (5, "b"), (5, "z"), (5, "c")]
    assert grown.user_source_ids().to_pylist() == ["u", "v", "w"]
    assert grown.item_source_ids().to_pylist() == ["a", "b", "z", "c"]


def test_a_target_of_the_same_item_at_another_time_has_moved(tmp_path: Path) -> None:
    old = prepared_dataset(tmp_path / "old", source_of(rows_of({"u": [("a", 1), ("b", 2), ("b", 3)]})), **LOW)
    grown = prepared_dataset(tmp_path / "grown", source_of([("u", "b", 4)]), old, **LOW)
    moved = moved_targets(old, grown)
    assert (moved.valid, moved.test) == (1, 1)


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (0, 1), (2, 4), (3, 7), (6, 7), (1, 6)])
def test_ids_of_a_range_of_users_come_from_its_row_groups(tmp_path: Path, start: int, stop: int) -> None:
    names = pa.array([f"u{number}" for number in range(7)], pa.large_string())
    pq.write_table(pa.table({"source_id": names}), tmp_path / "users.parquet", row_group_size=2)
    assert ids_of_users(tmp_path / "users.parquet", start, stop).equals(names.slice(start, stop - start))
