"""The neighbour search as tasks equals the kernel in one process: rounds, ranges, precisions, copies, near-ties."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import GraphConfig
from graph_builder.executor import SerialExecutor
from graph_builder.stages.injection import FeatureSpec
from graph_builder.stages.neighbors import build_neighbors, default_rows_per_task
from graph_builder.stages.triangle import block_rounds, blocks_of
from graph_builder.work_folder import WorkFolder
from kernels.cosine.cosine_topk import cosine_neighbors, square_norms
from storage.array_file import save_array
from tests.graph_builder.small_dataset import CountingExecutor, Interrupted

N, WIDTH = 500, 24


def hard_features() -> np.ndarray:
    """Whole numbers: many copies of one row, sixty near-ties of another, missing rows, multiples."""
    rng = np.random.default_rng(8)
    features = rng.integers(-5, 6, (N, WIDTH)).astype(np.float32)
    features[rng.choice(N, 90, replace=False)] = features[3]
    near = rng.choice(N, 60, replace=False)
    features[near] = features[10] * 2000
    features[near, 0] += np.arange(60)
    features[rng.choice(N, 40, replace=False)] = 0
    features[200:220] = 7 * features[230:250]
    return features


def specification(folder: Path, features: np.ndarray) -> FeatureSpec:
    work = WorkFolder(folder)
    spec = FeatureSpec(
        modality="text", features=folder / "text.npy", work=work, num_items=len(features), block_rows=64, backend="cpu"
    )
    save_array(spec.injected, features)
    save_array(spec.squares, square_norms(features))
    save_array(folder / "clusters" / "text.npy", np.random.default_rng(0).integers(0, 4, len(features)))
    return spec


def built(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(folder / "neighbors/text.npy"), np.load(folder / "neighbors/text.scores.npy")


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(
    ("rows_per_task", "precision", "threads"), [(1000, "float32", 2), (64, "auto", 1), (90, "float16", 1)]
)
def test_tasks_equal_one_process(
    tmp_path: Path, include_self: bool, rows_per_task: int, precision: str, threads: int
) -> None:
    features = hard_features()
    options = GraphConfig(num_neighbors=6, include_self=include_self, precision=precision, cpus_per_task=threads)
    record = build_neighbors(specification(tmp_path, features), options, SerialExecutor(), rows_per_task)
    ids, scores, certified = cosine_neighbors(features, 6, include_self)
    np.testing.assert_array_equal(built(tmp_path)[0], ids)
    assert built(tmp_path)[1].tobytes() == scores.tobytes()
    # Near-ties overflow in any precision; what float16 alone could not tell apart, float32 did.
    assert record["fallback_rows"] >= record["float64_rows"] == np.count_nonzero(~certified) > 0
    assert (record["fallback_rows"] > record["float64_rows"]) == (precision == "float16")
    searched = np.count_nonzero(features.any(axis=1)) - record["copies_left_out"]
    assert record["certified_fraction"] == pytest.approx(1 - record["fallback_rows"] / searched)
    assert record["copies_left_out"] > 50


@pytest.mark.long
def test_stopped_anywhere_continues_without_doing_a_block_twice(tmp_path: Path) -> None:
    features = hard_features()
    options = GraphConfig(num_neighbors=6, precision="float16")
    complete = CountingExecutor()
    build_neighbors(specification(tmp_path / "complete", features), options, complete, 60)
    for stop_at in range(0, complete.num_blocks, 5):
        spec = specification(tmp_path / str(stop_at), features)
        with pytest.raises(Interrupted):
            build_neighbors(spec, options, CountingExecutor(stop_at), 60)
        rest = CountingExecutor()
        build_neighbors(spec, options, rest, 60)
        assert rest.num_blocks == complete.num_blocks - stop_at
        assert built(tmp_path / str(stop_at))[1].tobytes() == built(tmp_path / "complete")[1].tobytes()
        again = CountingExecutor()
        build_neighbors(spec, options, again, 60)
        assert again.num_blocks == 0


def test_work_files_keep_the_keys_of_earlier_versions(tmp_path: Path) -> None:
    """An unfinished build of an earlier version must stay readable, so stored keys do not follow attribute names."""
    spec = specification(tmp_path, hard_features())
    with pytest.raises(Interrupted):
        # Stop after the order, the three blocks of two ranges, and the merges.
        build_neighbors(spec, GraphConfig(num_neighbors=6), CountingExecutor(1 + 3 + 2), 300)
    stored = {"line", "slack", "overflowed", "offsets", "ids", "scores"}
    with np.load(tmp_path / "work/neighbors-text/range-00000.npz") as arrays:
        assert set(arrays.files) == stored | {"merged"}
        assert arrays["line"].dtype == arrays["slack"].dtype == np.float32
        assert (arrays["slack"] > 0).all()


@pytest.mark.parametrize("num_neighbors", [1, 3])
def test_one_item_and_only_itself(tmp_path: Path, num_neighbors: int) -> None:
    options = GraphConfig(num_neighbors=num_neighbors)
    record = build_neighbors(specification(tmp_path, np.ones((1, 2), dtype=np.float32)), options, SerialExecutor(), 10)
    assert record["certified_fraction"] == 1
    assert built(tmp_path)[0].tolist() == [[0] + [-1] * (num_neighbors - 1)]
    assert built(tmp_path)[1][0, 0] == 1


@pytest.mark.parametrize("num_ranges", [0, 1, 2, 3, 4, 7, 10, 64])
def test_rounds_hold_every_block_once_and_treat_ranges_alike(num_ranges: int) -> None:
    rounds = block_rounds(num_ranges, 20)
    blocks = [block for round_blocks in rounds for block in round_blocks]
    expected = [(i, j) for i in range(num_ranges) for j in range(i, num_ranges)]
    assert sorted(blocks) == expected
    for round_blocks in rounds[:-1]:
        counts = {
            len([1 for block in blocks_of(round_blocks, index) for place in block if place == index])
            for index in range(num_ranges)
        }
        assert len(counts) == 1
        assert len(round_blocks) >= 20


def test_ranges_grow_rather_than_multiply() -> None:
    assert default_rows_per_task(50_000, 0) == 32768
    assert default_rows_per_task(10_000_000, 0) == 156_250
    assert default_rows_per_task(10_000_000, 1) == 1 << 20
    assert default_rows_per_task(10_000_000, 8) == 1 << 20
    assert default_rows_per_task(1 << 27, 8) == 1 << 21


def test_several_gpus_share_a_small_search() -> None:
    assert default_rows_per_task(1_000_000, 1) == 1 << 20
    assert default_rows_per_task(1_000_000, 8) == 125_000
    assert default_rows_per_task(3_000_000, 8) == 375_000
    assert default_rows_per_task(100_000, 8) == 32768


class ListeningExecutor(SerialExecutor):
    """Notes the order of the blocks of the search, as if there were several GPUs."""

    def __init__(self, gpus: int) -> None:
        super().__init__()
        self.gpus = gpus
        self.blocks: list[tuple[int, int]] = []

    def run_blocks(self, function: Any, blocks: Any, *, label: str | None = None, on_gpu: bool = False) -> Any:
        if (label or "").startswith("neighbors-"):
            self.blocks += blocks
        return super().run_blocks(function, blocks, label=label, on_gpu=on_gpu)


@pytest.mark.parametrize("gpus", [2, 3, 8])
def test_gpus_end_a_small_search_at_the_same_time(tmp_path: Path, gpus: int) -> None:
    features = np.random.default_rng(0).standard_normal((gpus * 5, 4)).astype(np.float32)
    executor = ListeningExecutor(gpus)
    build_neighbors(specification(tmp_path, features), GraphConfig(), executor, 5)
    busy = [0.0] * gpus  # until when each GPU computes; a block of a range with itself takes half as long
    for first, second in executor.blocks:
        heapq.heapreplace(busy, busy[0] + (0.5 if first == second else 1.0))
    assert set(busy) == {gpus / 2}
