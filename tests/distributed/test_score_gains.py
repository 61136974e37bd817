"""Gains of pairs equal a dense sum over histories; and models and runs that are ranked with co-occurrence."""

import json

import numpy as np
import pytest
from scipy.sparse import coo_array

from configs.schema import EvaluationConfig
from contracts.errors import InputError
from data.sequences import Targets, target_items
from distributed.inference import scoring
from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.inference.score_gains import GainRates, ScoreGains, _by_item
from distributed.inputs import open_inputs
from distributed.training.trainer import train
from distributed.world import world_of_one
from evaluation.user_batches import user_batch
from graph_builder.graph import Graph
from tests.distributed.runs import config_of
from tests.distributed.test_scoring import CASES, results
from tests.distributed.toy import NUM_ITEMS, ToyGraph, toy_data

LENGTH = 4
MIXED = [(-2.0, 0.0), (0.0, 1.5), (0.5, 2.0), (0.0, 0.0)]  # (gain of repeats, gain of co-occurrence) of each user


def dense(users, positions, targets, hide, rates, decay, cap):
    """Return the gains of all pairs, float64 [B, N], and which pairs are hidden."""
    data, graph = toy_data(), ToyGraph()
    whole = np.zeros((len(users), NUM_ITEMS))
    for row, (user, position) in enumerate(zip(users, positions, strict=True)):
        history = data.items[data.offsets[user] : data.offsets[user] + position]
        held = history[-LENGTH:][::-1]
        for age, item in enumerate(held):
            related = graph._o[item].astype(np.float32).astype(float)
            if cap is not None:
                related[np.argsort(-related, kind="stable")[cap:]] = 0
            whole[row] += rates.cooccurrence[row] * decay**age * related
        whole[row, held] = rates.repeats[row]
        if hide:
            whole[row, [item for item in history if item != targets[row]]] = -np.inf
    return whole


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize(("decay", "cap"), [(1.0, None), (0.6, None), (0.6, 2)])
@pytest.mark.parametrize("mixed", [MIXED, [(0.0, 1.0)], [(1.0, 0.0)], [(0.0, 0.0)]])
def test_pairs_are_those_of_a_dense_sum(hide, decay, cap, mixed):
    data = toy_data()
    users, positions = Targets(data, "test").locate(np.arange(len(Targets(data, "test"))))
    targets = target_items(data, users, positions)
    targets[::3] = data.items[data.offsets[users[::3]]]  # repeats
    repeats, cooccurrence = np.resize(np.array(mixed, dtype=np.float32), (len(users), 2)).T.copy()
    rates = GainRates(repeats=repeats, cooccurrence=cooccurrence)
    options = EvaluationConfig(cooccurrence_decay=decay, cooccurrence_cap=cap)
    pairs = ScoreGains(data=data, graph=ToyGraph(), max_length=LENGTH, options=options).pairs(
        users, positions, targets, hide, rates
    )
    batch = user_batch(None, targets, *pairs)
    found = np.zeros((len(users), NUM_ITEMS))
    found[batch.gain_users, batch.gain_items] = batch.gains
    np.testing.assert_allclose(found, dense(users, positions, targets, hide, rates, decay, cap), rtol=1e-6)
    assert (np.diff(batch.gain_items) >= 0).all()
    assert len(set(zip(batch.gain_items, batch.gain_users, strict=True))) == len(batch.gains)


@pytest.mark.parametrize("num_columns", [40, 100_000])
def test_entries_by_item_counted_or_sorted(num_columns):
    random = np.random.default_rng(0)
    rows, columns = random.integers(0, 7, 50), random.integers(0, 40, 50) * (num_columns // 40)
    matrix = coo_array((random.random(50) + 1, (rows, columns)), shape=(7, num_columns)).tocsr()
    items, users, values = _by_item(matrix)
    keys = items * 7 + users
    assert (np.diff(keys) > 0).all()
    assert len(keys) == matrix.nnz
    np.testing.assert_array_equal(values, [matrix[u, i] for u, i in zip(users, items, strict=True)])


def test_groups_of_few_pairs_change_nothing(folders, monkeypatch):
    case = next(case for case in CASES if case[0] == "itemknn")
    with world_of_one() as world:
        expected, _ = results(world, folders, case, np.inf, 65536)
        monkeypatch.setattr(scoring, "_MAX_PAIRS", 100)
        groups, count_ranks = [], scoring.count_ranks
        monkeypatch.setattr(scoring, "count_ranks", lambda given, *more: count_ranks(noted(given, groups), *more))
        found, _ = results(world, folders, case, 0, 65536)
    assert found == expected
    assert len(groups) > 2
    assert set(groups[:-1]) == {1}  # a batch has more than 100


def noted(groups, sizes):
    for users in groups:
        sizes.append(len(users))
        yield users


def test_item_knn_needs_no_training_and_ranks_by_counts_alone(folders, tmp_path):
    config = config_of(folders, tmp_path, "itemknn", "evaluation.cooccurrence_weight=1", "evaluation.mask_history=true")
    with world_of_one() as world:
        metrics = train(config, world)
    data, graph = open_inputs(config).dataset, open_inputs(config).graph
    users, positions = Targets(data, "test").locate(np.arange(len(Targets(data, "test"))))
    targets = target_items(data, users, positions)
    hits = []
    for user, position, target in zip(users, positions, targets, strict=True):
        history = data.items[data.offsets[user] : data.offsets[user] + position]
        held = history[-config.model.max_length :]
        indptr, others, values = graph.cooccurrence_rows(held.astype(np.int64))
        scores = np.zeros(data.num_items)
        decays = config.evaluation.cooccurrence_decay ** np.arange(len(held))[::-1]
        np.add.at(scores, others, np.repeat(decays, np.diff(indptr)) * values)
        scores = scores.astype(np.float32)
        scores[held] = 0
        scores[[item for item in history if item != target]] = -np.inf
        hits.append((scores >= scores[target]).sum() <= 10)
    assert 0 < np.mean(hits) < 1
    assert metrics["test"]["recall@10"] == pytest.approx(np.mean(hits))


def test_a_run_without_a_graph_can_be_ranked_with_one(folders, tmp_path):
    with world_of_one() as world:
        train(config_of(folders, tmp_path, "sasrec", "training.max_epochs=1", "graph=null"), world)
        plain = evaluate(run_config(str(tmp_path)), world, "best")
        more = ("evaluation.cooccurrence_weight=5",)
        with pytest.raises(InputError, match=r"graph: not set, and evaluation\.cooccurrence_weight needs one"):
            evaluate(run_config(str(tmp_path), more), world, "best")
        found = evaluate(run_config(str(tmp_path), (*more, f"graph={folders}/graph")), world, "best")
    assert found["checkpoint_step"] == plain["checkpoint_step"]
    assert found["test"]["ndcg@10"] > plain["test"]["ndcg@10"]
    (other,) = tmp_path.glob("evaluation-best-*.json")
    graph = Graph.open(f"{folders}/graph").fingerprint
    assert other.name == f"evaluation-best-cooccurrence_weight=5.0,graph={graph[:12]}.json"
    assert json.loads(other.read_text())["test"] == found["test"]
    own = json.loads((tmp_path / "evaluation-best.json").read_text())  # was not replaced by the other result
    assert own["test"] == plain["test"]
    assert (own["settings"]["cooccurrence_weight"], found["settings"]["cooccurrence_weight"]) == (0, 5)
    assert "ranking_graph" not in own["fingerprints"]
    assert found["fingerprints"]["ranking_graph"] == graph
