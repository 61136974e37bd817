"""Exported vectors are the predictor's, and with score.json NumPy alone finds the lists of the predictor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from configs.schema import Config
from contracts.errors import InputError
from graph_builder.exports import export
from graph_builder.graph import Graph
from jobs.prepare_data import prepare
from serving.exports import ids_path, item_vectors, user_vectors, write_npy, write_parquet
from serving.loading import load
from serving.score_rule import score_rule
from storage.plain_json import json_text
from tests.serving.runs import GAINS, set_repeats, trained

K = 10


@pytest.fixture(scope="module")
def gained(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = trained(folders, tmp_path_factory.mktemp("gained") / "run", "mdsrec", *GAINS)
    set_repeats(config, -1.5, 0.5, 1.0)
    return config


@pytest.mark.parametrize("what", ["item", "user"])
def test_tables_and_arrays_hold_the_vectors_with_their_ids(gained: Config, tmp_path: Path, what: str) -> None:
    predictor = load(str(gained.run))
    dataset = predictor.ranking.scorer.inputs.dataset
    vectors = item_vectors(predictor) if what == "item" else user_vectors(predictor)
    write_parquet(vectors, tmp_path / "v.parquet")
    write_npy(vectors, tmp_path / "v.npy")
    table, array = pq.read_table(tmp_path / "v.parquet"), np.load(tmp_path / "v.npy")
    ids = pq.read_table(ids_path(tmp_path / "v.npy"))
    if what == "item":
        names, expected = dataset.item_source_ids().to_pylist(), predictor.item_vectors()
    else:
        names = dataset.user_source_ids().to_pylist()
        expected = predictor.user_vectors(predictor.histories_of(names))
    assert table.column_names == [what, "vector"]
    assert table.column(what).to_pylist() == ids.column(what).to_pylist() == names
    assert ids.column("row").to_pylist() == list(range(len(names)))
    assert array.dtype == np.float32
    assert np.array_equal(array, expected)
    assert np.array_equal(np.array(table.column("vector").to_pylist(), dtype=np.float32), expected)


def by_rule(
    rule: dict[str, Any],
    users: np.ndarray,
    items: np.ndarray,
    histories: list[list[int]],
    graph: Any,
    k: int,
    hide: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply what score.json says, in float64; a second reading of the rule, which uses none of this project's code."""
    parts = [(c["start"], c["stop"]) for c in rule["channels"]]
    of_channels = np.stack([users[:, a:b].astype(float) @ items[:, a:b].T for a, b in parts])
    if rule["fusion"] is None:
        scores = of_channels.sum(axis=0)
    else:
        fusion, first = rule["fusion"], int(rule["fusion"]["first_channel_is_ids"])
        has = np.stack([(items[:, a:b] != 0).any(axis=1) for a, b in parts])[first:, None, :]
        logits = np.where(has, fusion["weight"] * fusion["temperature"] * of_channels[first:], -np.inf)
        shares = np.exp(logits - logits.max(axis=0, where=has, initial=-1e9)) * has
        scores = (shares / np.maximum(shares.sum(axis=0), 1e-30) * of_channels[first:]).sum(axis=0)
        if first:
            scores = (of_channels[0] + len(has) * scores) / (len(has) + 1)
    related, gains = rule["gains"]["cooccurrence"], rule["gains"]
    for row, history in enumerate(histories):
        read = history[-rule["max_length"] :]
        extra = np.zeros(scores.shape[1])
        if related["weight"]:
            for age, item in enumerate(reversed(read)):
                extra += related["weight"] * related["decay"] ** age * graph[[item]].toarray()[0]
        extra[read] = gains["repeats"]
        scores[row] += extra
        if hide:
            scores[row, history] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best, np.take_along_axis(scores, best, axis=1)


@pytest.mark.parametrize("hide", [False, True], ids=["history kept", "history hidden"])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("sasrec", ()),
        ("mdsrec", GAINS),
        ("missrec", ("model.learn_repeats=true",)),
        ("unisrec", ()),
        ("popularity", ()),
    ],
)
def test_the_rule_and_the_vectors_suffice_to_recommend(
    folders: Path, tmp_path: Path, name: str, more: tuple[str, ...], hide: bool
) -> None:
    config = trained(folders, tmp_path / "run", name, *more, f"evaluation.mask_history={str(hide).lower()}")
    if "model.learn_repeats=true" in more:
        set_repeats(config, -1.5, 0.5, 1.0)
    predictor = load(str(config.run))
    rng = np.random.default_rng(2)
    histories = [rng.permutation(70)[:size].tolist() for size in rng.integers(1, 20, 50)]
    rule = json.loads(json_text(score_rule(predictor.ranking.scorer, predictor.step)))
    export(Graph.open(str(folders / "graph")), "cooccurrence", "npz", tmp_path / "o.npz")
    matrix = scipy.sparse.load_npz(tmp_path / "o.npz")
    users, items = predictor.user_vectors(histories), predictor.item_vectors()
    best, scores = by_rule(rule, users, items, histories, matrix, K, hide)
    found = predictor.recommend(histories, K, hide_history=hide)
    np.testing.assert_allclose(found.scores, scores, rtol=2e-5, atol=2e-5)
    differing = found.items != best
    assert np.abs(found.scores - scores)[differing].max(initial=0) < 1e-4
    assert differing.mean() < 0.02
    assert rule["mask_history"] == {"lists": True, "metrics": hide}
    assert rule["checkpoint_step"] == predictor.step
    assert rule["width"] == items.shape[1]


def test_a_disk_error_leaves_an_earlier_export_as_it_was(gained: Config, tmp_path: Path) -> None:
    predictor = load(str(gained.run))
    vectors = item_vectors(predictor)
    write_parquet(vectors, tmp_path / "v.parquet")
    before = (tmp_path / "v.parquet").read_bytes()

    def full(loop: Any, *_: Any) -> Any:
        yield next(iter(loop))
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_parquet(vectors, tmp_path / "v.parquet", full)
    assert (tmp_path / "v.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["v.parquet"]


def test_nothing_is_loaded_that_is_not_of_this_run(gained: Config, folders: Path, tmp_path: Path) -> None:
    prepare("synthetic", str(tmp_path / "other"), num_users=40, num_items=70, seed=9)
    with pytest.raises(InputError, match="does not belong to"):
        load(str(gained.run), dataset=str(tmp_path / "other"), graph=str(folders / "graph"))
