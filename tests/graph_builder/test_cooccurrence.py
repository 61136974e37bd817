"""O on disk: the same bytes however it is split, interrupted or joined; windows; what the manifest says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder.executor import SerialExecutor
from graph_builder.row_blocks import CooccurrenceRows
from graph_builder.stages.cooccurrence import block_groups, build_cooccurrence, largest_gap
from graph_builder.stages.window import event_bounds, window_summary
from graph_builder.work_folder import WorkFolder
from kernels import reference
from storage.array_file import save_array
from tests.graph_builder.small_dataset import NUM_ITEMS, CountingExecutor, Interrupted, SmallDataset, content

OPTIONS = GraphConfig(block_rows=16, normalization="none")


def dataset_of(sequences: list[list[int]], num_items: int = NUM_ITEMS) -> SmallDataset:
    """All items are for training."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    return SmallDataset("somewhere", "any", num_items, (), items, np.concatenate([[0], np.cumsum(lengths)]), lengths)


def uneven_sequences(num_users: int = 60) -> list[list[int]]:
    """Popular items have low ids; some histories are empty, one is of one item, and one is long."""
    random = np.random.default_rng(3)
    lengths = [*random.integers(0, 14, num_users).tolist(), 0, 1, 70, 0]
    return [np.minimum(random.geometric(0.1, length) - 1, NUM_ITEMS - 1).tolist() for length in lengths] + [[7] * 5]


def build(
    folder: Path, dataset: SmallDataset, options: GraphConfig = OPTIONS, executor: Any = None, **sizes: int
) -> dict[str, Any]:
    sizes = {"pairs_per_task": 1 << 22} | sizes
    return build_cooccurrence(dataset, WorkFolder(folder), options, executor or SerialExecutor(), **sizes)


def dense(folder: Path, block_rows: int = 16) -> np.ndarray:
    rows = CooccurrenceRows(folder / "cooccurrence", block_rows, NUM_ITEMS)
    indptr, columns, weights = rows.rows(np.arange(NUM_ITEMS))
    matrix = np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)
    matrix[np.repeat(np.arange(NUM_ITEMS), np.diff(indptr)), columns] = weights
    return matrix


@pytest.mark.long
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("distance_weighting", [True, False])
def test_any_split_gives_the_same_bytes(tmp_path: Path, window: int | None, distance_weighting: bool) -> None:
    dataset = dataset_of(uneven_sequences())
    options = OPTIONS.model_copy(update={"window": window, "distance_weighting": distance_weighting})
    summary = build(tmp_path / "whole", dataset, options)
    expected = reference.cooccurrence(dataset.sequences(), NUM_ITEMS, window, distance_weighting)
    np.testing.assert_array_equal(dense(tmp_path / "whole"), expected.astype(np.float32))
    pairs = summary["pairs_counted"]
    for shards, entries_at_a_time in [(1, 1), (2, 100), (7, 30), (pairs, 10**9)]:
        path = tmp_path / f"{shards}-{entries_at_a_time}"
        other = build(path, dataset, options, pairs_per_task=-(-pairs // shards), entries_at_a_time=entries_at_a_time)
        assert content(path / "cooccurrence") == content(tmp_path / "whole/cooccurrence")
        assert other.pop("mass_kept") == pytest.approx(summary["mass_kept"])
        assert other == {name: value for name, value in summary.items() if name != "mass_kept"}


def test_files_are_those_of_numpy(tmp_path: Path) -> None:
    """Growing files and joined ones cannot be told from arrays saved at once."""
    build(tmp_path, dataset_of(uneven_sequences()), entries_at_a_time=20)
    for path in sorted((tmp_path / "cooccurrence").iterdir()):
        save_array(tmp_path / "again.npy", np.load(path))
        assert path.read_bytes() == (tmp_path / "again.npy").read_bytes()


@pytest.mark.parametrize("normalization", ["row_l2", "row_l1", "none"])
def test_ties_are_cut_at_the_lowest_id(tmp_path: Path, normalization: str) -> None:
    sequences = [[0, column] for column in (9, 40, 3, 20, 80, 3)]
    options = GraphConfig(**{**OPTIONS.model_dump(), "normalization": normalization, "max_neighbors": 3})
    summary = build(tmp_path, dataset_of(sequences), options)
    matrix = dense(tmp_path)
    assert np.flatnonzero(matrix[0]).tolist() == [3, 9, 20]
    raw = reference.cooccurrence(sequences, NUM_ITEMS)
    np.testing.assert_allclose(matrix, reference.normalized_cooccurrence(raw, normalization, 3), rtol=1e-6)
    assert (summary["num_pairs"], summary["num_pairs_kept"]) == (10, 8)
    assert summary["mass_kept"] == 10 / 12


@pytest.mark.parametrize("sequences", [[], [[]], [[3], [], [5]], [[4, 4, 4]]])
def test_nothing_to_count(tmp_path: Path, sequences: list[list[int]]) -> None:
    summary = build(tmp_path, dataset_of(sequences), OPTIONS.model_copy(update={"max_neighbors": 2}))
    assert not dense(tmp_path).any()
    assert summary["pairs_counted"] == summary["num_pairs"] == summary["pairs_beyond_window"] == 0
    assert summary["mass_kept"] == summary["window_mass_kept"] == 1


def test_long_history_takes_wide_gaps_and_several_tasks(tmp_path: Path) -> None:
    sequence = np.random.default_rng(5).integers(0, 4, 300).tolist()
    for window, pairs_per_task in [(None, 1 << 22), (None, 5000), (256, 5000)]:
        path = tmp_path / f"{window}-{pairs_per_task}"
        executor = CountingExecutor()
        options = OPTIONS.model_copy(update={"window": window})
        summary = build(path, dataset_of([sequence]), options, executor, pairs_per_task=pairs_per_task)
        assert executor.num_blocks > 9 or pairs_per_task > 5000
        assert summary["max_gap"] == (window or 299)
        expected = reference.cooccurrence([sequence], NUM_ITEMS, window).astype(np.float32)
        np.testing.assert_array_equal(dense(path), expected)


@pytest.mark.long
def test_interrupted_anywhere_continues(tmp_path: Path) -> None:
    dataset = dataset_of(uneven_sequences())
    sizes = {"pairs_per_task": 400, "entries_at_a_time": 40}
    complete = CountingExecutor()
    summary = build(tmp_path / "complete", dataset, executor=complete, **sizes)
    num_tasks = len(event_bounds(dataset.train_end, summary["max_gap"], 400)) - 1
    assert complete.num_blocks > num_tasks + 4 > 10
    for stop_at in range(complete.num_blocks):
        path = tmp_path / str(stop_at)
        with pytest.raises(Interrupted):
            build(path, dataset, executor=CountingExecutor(stop_at), **sizes)
        rest = CountingExecutor()
        assert build(path, dataset, executor=rest, **sizes) == summary
        # How large blocks are cut is looked up again; nothing that is written is written again.
        looked_up_again = rest.num_blocks + stop_at - complete.num_blocks
        assert looked_up_again == 0 if stop_at <= num_tasks else 0 <= looked_up_again <= 2
        assert content(path / "cooccurrence") == content(tmp_path / "complete/cooccurrence")
        assert sorted(file.name for file in (path / "work").iterdir()) == ["cooccurrence.json"]


def test_what_the_window_left_out(tmp_path: Path) -> None:
    sequences = uneven_sequences()
    summary = build(tmp_path, dataset_of(sequences), OPTIONS.model_copy(update={"window": 3}))
    gaps = [
        (right - left, sequence[left] != sequence[right])
        for sequence in sequences
        for right in range(len(sequence))
        for left in range(right)
    ]
    assert summary["pairs_counted"] == sum(gap <= 3 and differ for gap, differ in gaps)
    assert summary["pairs_beyond_window"] == sum(gap > 3 for gap, _ in gaps)
    mass = sum(1 / gap for gap, _ in gaps)
    assert summary["window_mass_kept"] == pytest.approx(sum(1 / gap for gap, _ in gaps if gap <= 3) / mass)
    lengths = np.array([len(sequence) for sequence in sequences])
    kept = sum(gap <= 3 for gap, _ in gaps) / len(gaps)
    assert window_summary(lengths, 3, distance_weighting=False)["window_mass_kept"] == pytest.approx(kept)


@settings(max_examples=60, deadline=None)
@example([37, 10, 12], 31, 127)  # small users after a large one
@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 50), st.integers(1, 300))
def test_event_ranges(sizes: list[int], max_gap: int, pairs_per_task: int) -> None:
    lengths = np.array(sizes, dtype=np.int64)
    bounds = event_bounds(lengths, max_gap, pairs_per_task)
    assert bounds[0] == 0
    assert bounds[-1] == lengths.sum()
    assert (np.diff(bounds) > 0).all() or bounds.tolist() == [0, 0]
    # Pairs by the later of their positions.
    pairs = np.array([min(position, max_gap) for length in sizes for position in range(length)])
    counts = [int(pairs[begin:end].sum()) for begin, end in itertools.pairwise(bounds)]
    # The chunks of a large user have equally many positions, and a position has at most twice the pairs of the mean
    # position: at most 2 * pairs_per_task + max_gap. Small users of up to pairs_per_task may follow its last chunk.
    assert max(counts, default=0) <= 3 * pairs_per_task + max_gap


def test_block_groups() -> None:
    assert block_groups(np.array([1, 1, 9, 1, 1, 1, 0]), 4, 3) == [range(2), range(2, 3), range(3, 6), range(6, 7)]
    assert block_groups(np.array([0]), 4, 1) == [range(1)]


def test_gaps_that_have_no_room_are_refused() -> None:
    dataset = dataset_of([[0] * 11])
    dataset.num_items = 2**31
    assert largest_gap(dataset, OPTIONS) == 10
    dataset.num_items = 2**60
    with pytest.raises(InputError, match=r"has 11 items, .* leave room for gaps up to 7; set a smaller window"):
        largest_gap(dataset, OPTIONS)
    assert largest_gap(dataset, OPTIONS.model_copy(update={"window": 7})) == 7
