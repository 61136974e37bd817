"""k-means: deterministic, spherical, and with centres that lose their points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.schema import GraphConfig
from graph_builder.executor import SerialExecutor
from graph_builder.stages import clusters
from graph_builder.stages.clusters import build_clusters
from graph_builder.stages.injection import FeatureSpec, find_rows
from graph_builder.work_folder import WorkFolder
from storage.array_file import save_array


def cluster(
    folder: Path, features: np.ndarray, seed: int = 0, **options: object
) -> tuple[np.ndarray, np.ndarray, dict]:
    folder.mkdir()
    np.save(folder / "text.npy", features)
    work = WorkFolder.start(folder / "graph", {})
    spec = FeatureSpec(
        modality="text", features=folder / "text.npy", work=work, num_items=len(features), block_rows=16, backend="cpu"
    )
    save_array(spec.present, find_rows("text", spec.features, len(features), 16, SerialExecutor()).present)
    stats = build_clusters(spec, GraphConfig.model_validate(options), seed, SerialExecutor())
    written = folder / "graph" / "clusters"
    return np.load(written / "text.npy"), np.load(written / "text.centers.npy"), stats


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    blob = rng.integers(0, 4, 90)
    return (np.eye(4)[blob] * 50 + rng.standard_normal((90, 4))).astype(np.float32), blob


@pytest.mark.parametrize("spherical", [False, True])
def test_finds_blobs_and_leaves_missing_out(tmp_path: Path, spherical: bool) -> None:
    features, blob = blobs()
    features[::9] = 0
    labels, centers, stats = cluster(tmp_path / "a", features, num_centers=4, spherical=spherical)
    present = (features != 0).any(axis=1)
    assert (labels[~present] == -1).all()
    assert len(set(zip(labels[present], blob[present], strict=True))) == 4
    assert stats["kmeans_converged"]
    assert stats["empty_centers"] == 0
    if spherical:
        np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, rtol=1e-6)
    else:
        for c in range(4):
            np.testing.assert_allclose(centers[c], features[labels == c].mean(axis=0), rtol=1e-5)


def test_seed_decides(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    runs = [cluster(tmp_path / str(n), features, seed=s, num_centers=7) for n, s in enumerate([0, 0, 1])]
    assert runs[0][1].tobytes() == runs[1][1].tobytes()
    assert runs[0][1].tobytes() != runs[2][1].tobytes()


def test_iterations_lower_the_inertia(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    short, long = (cluster(tmp_path / str(n), features, num_centers=9, kmeans_iterations=n)[2] for n in (1, 50))
    assert long["inertia"] < short["inertia"]
    assert short["kmeans_iterations"] == 1
    assert not short["kmeans_converged"]


def test_fewer_distinct_items_than_centers_is_stated(tmp_path: Path) -> None:
    features = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    labels, _, stats = cluster(tmp_path / "a", features, num_centers=5)
    assert stats["empty_centers"] == 3
    assert stats["inertia"] == 0
    assert len(set(labels.tolist())) == 2


def test_center_without_points_moves_to_the_furthest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = blobs()
    far = np.full((3, 4), 1e6)
    monkeypatch.setattr(clusters, "initial_centers", lambda *_: np.concatenate([features[:1].astype(np.float64), far]))
    labels, _, stats = cluster(tmp_path / "a", features, num_centers=4)
    assert stats["empty_centers"] == 0
    assert np.bincount(labels, minlength=4).min() > 0
