"""A whole graph against the reference; only training items; resumed, restarted, refused, and on Ray."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from graph_builder.stages.injection import find_rows
from kernels import reference
from tests.graph_builder.small_dataset import (
    NUM_ITEMS,
    OPTIONS,
    CountingExecutor,
    Interrupted,
    SmallDataset,
    content,
    make_dataset,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def built(dataset: SmallDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "graph"
    build_graph(dataset, path, OPTIONS, 0, SerialExecutor())
    return path


def dense_cooccurrence(graph: Graph) -> np.ndarray:
    indptr, indices, weights = graph.cooccurrence_rows(np.arange(graph.num_items))
    return scipy.sparse.csr_matrix((weights, indices, indptr), shape=(graph.num_items,) * 2).toarray()


def test_graph_equals_reference(dataset: SmallDataset, built: Path) -> None:
    graph = Graph.open(built, dataset_fingerprint=dataset.fingerprint, expected={"mu": 0.5, "block_rows": 99})
    expected = reference.cooccurrence(dataset.sequences(), NUM_ITEMS).astype(np.float32)
    cooccurrence = dense_cooccurrence(graph)
    np.testing.assert_array_equal(cooccurrence, expected)
    np.testing.assert_array_equal(cooccurrence, cooccurrence.T)
    assert not cooccurrence.diagonal().any()
    for modality in graph.modalities:
        raw = np.asarray(dataset.features(modality))
        present = (raw != 0).any(axis=1)
        injected = reference.injected(expected, raw, 0.5).astype(np.float32)
        assert (injected[~present] != 0).any() or present.all()  # injection would fill some missing rows
        ids, cosines = reference.cosine_topk(injected, 4, present=present)
        np.testing.assert_array_equal(graph.neighbors(modality), ids)
        np.testing.assert_allclose(graph.neighbor_scores(modality), cosines, rtol=1e-6)
        np.testing.assert_array_equal(graph.clusters(modality) < 0, ~present)
        nearest, _ = reference.kmeans_step(raw[present], graph.centers(modality))
        np.testing.assert_array_equal(graph.clusters(modality)[present], nearest)
        stats = graph.manifest["modalities"][modality]
        assert stats["num_present"] == present.sum()
        assert stats["kmeans_converged"]
        assert stats["certified_fraction"] == 1
    assert graph.manifest["finished"]
    assert not (built / "work").exists()


def test_layout_and_shards_leave_no_trace(dataset: SmallDataset, built: Path, tmp_path: Path) -> None:
    whole = content(built)
    for pairs_per_task, block_rows in [(1, 16), (150, 16), (10**6, 200)]:
        path = tmp_path / f"{pairs_per_task}-{block_rows}"
        options = OPTIONS.model_copy(update={"block_rows": block_rows})
        manifest = build_graph(dataset, path, options, 0, SerialExecutor(), pairs_per_task=pairs_per_task)
        assert manifest["fingerprint"] == json.loads((built / "manifest.json").read_text())["fingerprint"]
        blocked = "cooccurrence" if block_rows != 16 else "nothing"
        found = content(path)
        same = [name for name in whole if not name.startswith(blocked)]
        assert {name: found[name] for name in same} == {name: whole[name] for name in same}
        np.testing.assert_array_equal(dense_cooccurrence(Graph.open(path)), dense_cooccurrence(Graph.open(built)))


@pytest.mark.parametrize(("shift", "warns"), [(0.0, False), (30.0, True)])
def test_features_that_all_point_one_way_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shift: float, warns: bool
) -> None:
    """Adding one vector to all rows makes all cosines large; the mean is that of all pairs of two items."""
    dataset = make_dataset(tmp_path / "dataset")
    raw = np.array(dataset.features("image"))
    raw[raw.any(axis=1)] += np.float16(shift)
    np.save(dataset.feature_path("image"), raw)
    unit = raw[raw.any(axis=1)].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = (unit @ unit.T)[np.triu_indices(len(unit), 1)].mean()
    for block_rows in (7, 1000):
        rows = find_rows("image", dataset.feature_path("image"), NUM_ITEMS, block_rows, SerialExecutor())
        np.testing.assert_array_equal(rows.present, raw.any(axis=1))
        assert rows.mean_cosine == pytest.approx(expected, rel=1e-12)
    with caplog.at_level(logging.WARNING):  # whatever level a library has set before
        build_graph(dataset, tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    said = [record.getMessage() for record in caplog.records if "mean cosine" in record.getMessage()]
    assert len(said) == warns
    if warns:
        assert "'image'" in said[0]
        assert f"{expected:.3f}" in said[0]
        assert "centre" in said[0]


@pytest.mark.parametrize(
    ("rows", "expected"), [([[0, 0]], None), ([[1, 2]], None), ([[1, 0], [0, 0], [3, 3]], 0.5**0.5)]
)
def test_the_mean_cosine_of_few_items(tmp_path: Path, rows: list[list[float]], expected: float | None) -> None:
    np.save(tmp_path / "f.npy", np.array(rows, np.float32) * np.float32(1e-30))  # squares would be zero in float32
    found = find_rows("f", tmp_path / "f.npy", len(rows), 2, SerialExecutor())
    assert found.mean_cosine == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_only_training_items_are_seen(dataset: SmallDataset, built: Path, tmp_path: Path) -> None:
    # Two items that no training part holds follow each other as user 0's validation and test items.
    planted = SmallDataset(**{**vars(dataset), "items": dataset.items.copy(), "fingerprint": "planted"})
    end = planted.offsets[1]
    planted.items[end - 2 : end] = NUM_ITEMS - 2, NUM_ITEMS - 1
    build_graph(planted, tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    cooccurrence = dense_cooccurrence(Graph.open(tmp_path / "graph"))
    assert not cooccurrence[[NUM_ITEMS - 2, NUM_ITEMS - 1]].any()
    np.testing.assert_array_equal(cooccurrence, dense_cooccurrence(Graph.open(built)))


@pytest.mark.parametrize("normalization", ["row_l2", "row_l1"])
def test_rows_are_normalised_before_they_are_cut(dataset: SmallDataset, tmp_path: Path, normalization: str) -> None:
    options = GraphConfig(**{**OPTIONS.model_dump(), "normalization": normalization, "max_neighbors": 3, "window": 4})
    manifest = build_graph(dataset, tmp_path / "graph", options, 0, SerialExecutor())
    raw = reference.cooccurrence(dataset.sequences(), NUM_ITEMS, window=4).astype(np.float32).astype(np.float64)
    expected = reference.normalized_cooccurrence(raw, normalization, 3)
    found = dense_cooccurrence(Graph.open(tmp_path / "graph"))
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    stats = manifest["cooccurrence"]
    assert stats["num_pairs"] == np.count_nonzero(raw)
    assert stats["num_pairs_kept"] == np.count_nonzero(expected)
    assert stats["mass_kept"] == pytest.approx(raw[expected != 0].sum() / raw.sum())
    assert stats["max_gap"] == 4


@pytest.mark.long
def test_interrupted_build_continues(dataset: SmallDataset, built: Path, tmp_path: Path) -> None:
    complete = CountingExecutor()
    build_graph(dataset, tmp_path / "complete", OPTIONS, 0, complete)
    looked_at = 2 * 6  # the features of two modalities in six blocks are read again by every build
    for stop_at in range(looked_at + 1, complete.num_blocks, 7):
        path = tmp_path / str(stop_at)
        with pytest.raises(Interrupted):
            build_graph(dataset, path, OPTIONS, 0, CountingExecutor(stop_at))
        with pytest.raises(InputError, match=r"is unfinished; run jobs/build_graph.py again"):
            Graph.open(path)
        rest = CountingExecutor()
        build_graph(dataset, path, OPTIONS, 0, rest)
        # Labels are written in one go, so at most one block (of one here) is made twice.
        assert rest.num_blocks - looked_at - (complete.num_blocks - stop_at) in (0, 1)
        assert content(path) == content(built)


def test_other_parameters_start_afresh_and_say_why(
    dataset: SmallDataset, built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "graph"
    other = OPTIONS.model_copy(update={"mu": 2.0})
    with pytest.raises(Interrupted):
        build_graph(dataset, path, other, 0, CountingExecutor(20))
    with caplog.at_level(logging.WARNING):
        build_graph(dataset, path, OPTIONS, 0, SerialExecutor())
    assert "starting afresh: parameters.mu changed from 2.0 to 0.5" in caplog.text
    assert content(path) == content(built)
    # The same over a finished graph; and nothing at all is done when nothing changed.
    with caplog.at_level(logging.WARNING):
        build_graph(dataset, path, other, 0, SerialExecutor())
    assert "starting afresh: parameters.mu changed from 0.5 to 2.0" in caplog.text
    assert Graph.open(path, expected={"mu": 2.0}).manifest["parameters"]["mu"] == 2.0
    nothing = CountingExecutor()
    build_graph(dataset, path, other, 0, nothing)
    assert nothing.num_blocks == 0


def test_a_search_in_another_precision_is_not_continued(
    dataset: SmallDataset, built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The lists of its blocks have other error bounds: merged with these they would prove nothing.
    path = tmp_path / "graph"
    half = OPTIONS.model_copy(update={"precision": "float16"})
    complete = CountingExecutor()
    build_graph(dataset, tmp_path / "complete", half, 0, complete)
    with pytest.raises(Interrupted):
        build_graph(dataset, path, half, 0, CountingExecutor(complete.num_blocks - 10))
    with caplog.at_level(logging.WARNING):
        build_graph(dataset, path, OPTIONS, 0, SerialExecutor())
    assert "starting afresh: layout.precision changed from 'float16' to 'float32'" in caplog.text
    assert content(path) == content(built) == content(tmp_path / "complete")


def test_damaged_graph_is_built_again(
    dataset: SmallDataset, built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shutil.copytree(built, tmp_path / "graph")
    (path / "clusters/text.npy").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        build_graph(dataset, path, OPTIONS, 0, SerialExecutor())
    assert "clusters/text.npy: missing or truncated" in caplog.text
    assert content(path) == content(built)


def test_refused_input_leaves_the_graph_as_it_was(dataset: SmallDataset, built: Path, tmp_path: Path) -> None:
    path = shutil.copytree(built, tmp_path / "graph")
    too_many = OPTIONS.model_copy(update={"num_centers": 80})
    with pytest.raises(InputError, match=r"num_centers=80: only 55 of 83 items have features in modality 'image'"):
        build_graph(dataset, path, too_many, 0, SerialExecutor())
    broken = make_dataset(tmp_path / "broken", seed=1)
    rows = np.load(tmp_path / "broken/features/text.npy")
    rows[70, 1] = np.nan
    np.save(tmp_path / "broken/features/text.npy", rows)
    with pytest.raises(InputError, match=r"text.npy: row 70 .* NaN"):
        build_graph(broken, path, OPTIONS, 0, SerialExecutor())
    assert content(path) == content(built)
    Graph.open(path, dataset_fingerprint=dataset.fingerprint)


def test_folders_of_something_else_are_refused(dataset: SmallDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 'features', which no graph has"):
        build_graph(dataset, dataset.path, OPTIONS, 0, SerialExecutor())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        build_graph(dataset, tmp_path / "file", OPTIONS, 0, SerialExecutor())


def test_window_is_asked_for_when_gaps_do_not_fit(dataset: SmallDataset, tmp_path: Path) -> None:
    huge = SmallDataset(**{**vars(dataset), "num_items": 2**62})
    with pytest.raises(InputError, match=r"leave room for gaps up to 1; set a smaller window"):
        build_graph(huge, tmp_path / "graph", OPTIONS, 0, SerialExecutor())


def test_features_of_another_shape_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    for wrong in (np.ones((NUM_ITEMS - 1, 5), dtype=np.float32), np.ones((NUM_ITEMS, 5), dtype=np.int64)):
        np.save(tmp_path / "dataset/features/text.npy", wrong)
        with pytest.raises(InputError, match=r"text.npy: holds (82 rows for 83 items|int64 .* float16 or float32)"):
            build_graph(dataset, tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize("num_items", [1, 2])
def test_tiny_catalogues(tmp_path: Path, num_items: int) -> None:
    dataset = make_dataset(tmp_path / "dataset", num_items=2, num_users=3)
    dataset.num_items, dataset.modalities = num_items, ("text",)
    dataset.items[:] = 0
    np.save(tmp_path / "dataset/features/text.npy", np.ones((num_items, 2), dtype=np.float32))
    options = OPTIONS.model_copy(update={"num_centers": 1, "normalization": "row_l2"})
    build_graph(dataset, tmp_path / "graph", options, 0, SerialExecutor())
    graph = Graph.open(tmp_path / "graph")
    assert graph.neighbors("text").tolist() == [[*range(num_items), *[-1] * (4 - num_items)]] * num_items
    assert graph.cooccurrence_rows(np.arange(num_items))[0].tolist() == [0] * (num_items + 1)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_ray_builds_the_same_bytes(dataset: SmallDataset, built: Path, tmp_path: Path) -> None:
    import ray

    from graph_builder.ray_tasks import RayExecutor

    executor = RayExecutor(OPTIONS)
    build_graph(dataset, tmp_path / "graph", OPTIONS, 0, executor, pairs_per_task=100)
    assert content(tmp_path / "graph") == content(built)
    on_gpu = OPTIONS.model_copy(update={"backend": "cuda"})
    if ray.cluster_resources().get("GPU", 0) == 0:
        # A task's own error arrives as it was raised, without Ray's wrapping.
        with pytest.raises(InputError, match=r"^backend=cuda: "):
            build_graph(dataset, tmp_path / "cuda", on_gpu, 0, executor)
