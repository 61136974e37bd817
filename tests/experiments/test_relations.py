"""Lists, overlaps and choices equal those of plain loops over a small graph of whole-number features and counts."""

from itertools import combinations

import numpy as np
import pytest

from experiments.case_page import relations as relations_module
from experiments.case_page.relations import COOCCURRENCE, Relations, jaccard, pick_items, survey
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from tests.graph_builder.small_dataset import NUM_ITEMS, OPTIONS, make_dataset

ALL = np.arange(NUM_ITEMS)


def unwatched(loop, _total, _label):
    return loop


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A dataset, its relations, and O as a dense float64 matrix."""
    root = tmp_path_factory.mktemp("relations")
    dataset = make_dataset(root / "dataset")
    build_graph(dataset, str(root / "graph"), OPTIONS, 0, SerialExecutor())
    graph = Graph.open(root / "graph")
    indptr, items, weights = graph.cooccurrence_rows(ALL)
    dense = np.zeros((NUM_ITEMS, NUM_ITEMS))
    dense[np.repeat(ALL, np.diff(indptr)), items] = weights
    return dataset, Relations(graph), dense


@pytest.mark.parametrize("modality", ["image", "text"])
def test_neighbours_are_the_graphs_and_their_cosines_those_of_float64(small, modality):
    dataset, relations, weights = small
    raw = np.asarray(dataset.features(modality), dtype=np.float64)
    injected = OPTIONS.mu * weights @ raw + raw
    found = relations.lists(ALL)[modality]
    assert found.ids.shape == (NUM_ITEMS, OPTIONS.num_neighbors - 1)
    has = (raw != 0).any(axis=1)
    np.testing.assert_array_equal(relations.lacking(modality, ALL), ~has)
    with np.errstate(invalid="ignore"):
        unit = injected / np.linalg.norm(injected, axis=1, keepdims=True)
    for item in range(NUM_ITEMS):
        ids, values = found.ids[item], found.values[item]
        if not has[item]:
            assert (ids == -1).all()
            continue
        assert ids.tolist() == [i for i in relations.graph.neighbors(modality)[item] if i not in (item, -1)]
        np.testing.assert_allclose(values, unit[ids] @ unit[item], atol=2e-7)
        others = [i for i in range(NUM_ITEMS) if has[i] and i != item and i not in ids]
        assert (unit[others] @ unit[item]).max() <= values.min() + 1e-6


def test_what_was_bought_together_comes_by_weight_then_id(small):
    _, relations, weights = small
    some = np.array([5, 3, 80, 3])
    found = relations.lists(some)[COOCCURRENCE]
    for row, item in enumerate(some):
        expected = sorted(np.flatnonzero(weights[item]), key=lambda i: (-weights[item, i], i))[: relations.length]
        assert [i for i in found.ids[row] if i >= 0] == expected
        np.testing.assert_array_equal(found.values[row][: len(expected)], weights[item, expected].astype(np.float32))


def literal(relations):
    """Return every list as a set, by relation."""
    lists = relations.lists(ALL)
    return {name: [{i for i in row if i >= 0} for row in lists[name].ids.tolist()] for name in relations.names}


@pytest.mark.parametrize("comparisons", [1, 100, 1 << 18])
def test_overlaps_are_those_of_a_loop(small, monkeypatch, comparisons):
    _, relations, _ = small
    monkeypatch.setattr(relations_module, "_COMPARISONS", comparisons)
    overlaps, means = survey(relations, unwatched)
    sets = literal(relations)
    assert [(o.first, o.second) for o in overlaps] == list(combinations(("image", "text", COOCCURRENCE), 2))
    for overlap in overlaps:
        pairs = [(a, b) for a, b in zip(sets[overlap.first], sets[overlap.second], strict=True) if a and b]
        assert overlap.num_items == len(pairs)
        assert overlap.jaccard == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]))
        assert 0 < overlap.jaccard < 1
    for item in range(NUM_ITEMS):
        own = [sets[name][item] for name in relations.names]
        if not all(own):
            assert np.isnan(means[item])
            continue
        shares = [len(a & b) / len(a | b) for a, b in combinations(own, 2)]
        assert means[item] == pytest.approx(np.mean(shares), abs=1e-6)


def test_an_empty_list_has_no_overlap():
    first, second = np.array([[1, 2, -1], [-1, -1, -1], [4, -1, -1]]), np.array([[2, 3, 1], [1, 2, 3], [-1, -1, -1]])
    found = jaccard(first, second)
    assert found[0] == 2 / 3
    assert np.isnan(found[1:]).all()


def test_picks_follow_their_rule_and_their_seed():
    random = np.random.default_rng(0)
    means = random.integers(0, 3, 400) / 10
    means[::7] = np.nan
    popularity = random.integers(0, 50, 400)
    items, least = pick_items(means, popularity, 4, 3)
    able = np.flatnonzero(np.isfinite(means))
    assert 0.15 < (popularity[able] >= least).mean() <= 0.3
    assert (popularity[items] >= least).all()
    known = able[popularity[able] >= least]
    assert sorted(means[items]) == sorted(means[known])[:4]
    assert len(set(items.tolist())) == 4
    assert items.tolist() == pick_items(means, popularity, 4, 3)[0].tolist()
    assert items.tolist() != pick_items(means, popularity, 4, 4)[0].tolist()
    assert not len(pick_items(np.full(3, np.nan), popularity[:3], 4, 0)[0])
