"""Two stages with a flat index give the lists of the exact ranking, and an approximate index never claims to."""

import numpy as np
import pytest
import torch

from contracts.errors import InputError
from model.blocks.score_fusion import DynamicFusion, fused_scores
from serving.index.two_stage import TwoStages
from tests.serving.index_cases import SYSTEMS, built, exact_lists, items_of, system_users, users_of

K = 6


def random_users(generator, num_users, width, num_items):
    """Return users with gains of all signs, and a few hidden items each."""
    gains = []
    for user in range(num_users):
        chosen = generator.choice(num_items, size=9, replace=False)
        values = [-np.inf, -np.inf, -np.inf, -2.0, -0.5, 0.3, 1.0, 4.0, 9.0]
        gains += [(user, item, value) for item, value in zip(chosen, values, strict=True)]
    return users_of(generator.standard_normal((num_users, width)).astype(np.float32), gains)


@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("system", SYSTEMS)
def test_lists_of_systems_are_those_of_the_exact_ranking(folders, tmp_path, system, hide):
    with system_users(folders, system, tmp_path, hide) as (users, items, fusion, index):
        ids, scores = exact_lists(users, items, K)
        found = TwoStages(index=index, items=items, fusion=fusion, margin=4, deepest_share=1.0).top(users, K)
        assert found.proven.all()
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.scores, scores)
        assert (found.depths < items.num_items).mean() > 0.5  # so the index found them, not the exact ranking
        alone = TwoStages(
            index=index,
            items=items,
            fusion=fusion,
            margin=4,
            deepest_share=1.0,
            vectors_of=lambda ids: torch.from_numpy(index.vectors_of(ids)),
        ).top(users, K)
        assert alone.proven.all()
        np.testing.assert_array_equal(alone.ids, ids)
        np.testing.assert_allclose(alone.scores, scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(alone.depths, found.depths)


@pytest.mark.parametrize("alone", [True, False])
def test_gains_of_all_signs(tmp_path, alone):
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((500, 12)).astype(np.float32)
    users, items = random_users(generator, 40, 12, 500), items_of(vectors)
    index = built(vectors, tmp_path / "index", shard_items=130)
    vectors_of = (lambda ids: torch.from_numpy(vectors[ids])) if alone else None
    found = TwoStages(index=index, items=items, vectors_of=vectors_of, margin=1).top([users], K)
    ids, scores = exact_lists([users], items, K)
    assert found.proven.all()
    assert (found.depths < 500).all()
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-5)


def test_items_with_negative_gains_leave_the_list_and_one_search_is_enough(tmp_path):
    vectors = np.linspace(1, 0, 400, dtype=np.float32)[:, None]
    users = users_of(np.ones((1, 1), np.float32), [(0, item, -0.5) for item in range(20)])
    index, items = built(vectors, tmp_path / "index"), items_of(vectors)
    found = TwoStages(index=index, items=items, margin=1).top([users], K)
    np.testing.assert_array_equal(found.ids, [np.arange(20, 20 + K)])
    assert found.proven.all()
    assert found.depths == [K + 20 + 1]


@pytest.mark.parametrize("alone", [True, False])
def test_ties_go_to_the_smaller_id(tmp_path, alone):
    generator = np.random.default_rng(2)
    vectors = generator.integers(-2, 3, (300, 4)).astype(np.float32)  # exact products, and many equal ones
    users = users_of(generator.integers(-2, 3, (30, 4)).astype(np.float32), [(3, 250, 0.5), (4, 7, -np.inf)])
    items = items_of(vectors)
    vectors_of = (lambda ids: torch.from_numpy(vectors[ids])) if alone else None
    index = built(vectors, tmp_path / "index", shard_items=64)
    found = TwoStages(index=index, items=items, vectors_of=vectors_of, deepest_share=1.0).top([users], K)
    ids, scores = exact_lists([users], items, K)
    assert found.proven.all()
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.scores, scores)
    assert (found.depths < 300).any()


def test_a_tie_with_an_item_that_was_not_found_is_not_proven(tmp_path):
    vectors = np.ones((200, 3), dtype=np.float32)
    users, items = users_of(np.ones((1, 3), np.float32)), items_of(vectors)
    index = built(vectors, tmp_path / "index")
    assert not TwoStages(index=index, items=items, prove=False).top([users], K).proven.any()
    found = TwoStages(index=index, items=items).top([users], K)
    np.testing.assert_array_equal(found.ids, [np.arange(K)])
    assert found.depths == [200]


def test_scores_closer_than_rounding_are_computed_as_the_ranking_does(tmp_path):
    vectors = np.repeat(np.eye(8, dtype=np.float32), 40, axis=0)
    vectors[:, 0] *= 1 + 2e-7 * np.arange(len(vectors), dtype=np.float32)  # neighbours a digit or two apart
    users, items = users_of(np.full((1, 8), 1 / 3, np.float32)), items_of(vectors)
    index = built(vectors, tmp_path / "index")
    calls = []

    def vectors_of(ids):
        calls.append(len(ids))
        return torch.from_numpy(vectors[ids])

    stages = {"index": index, "items": items, "vectors_of": vectors_of, "margin": 100, "deepest_share": 1.0}
    found = TwoStages(**stages).top([users], K)
    ids, scores = exact_lists([users], items, K)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.scores, scores)
    assert found.proven.all()
    assert calls
    assert not TwoStages(**stages, prove=False).top([users], K).proven.any()


def test_what_is_closer_than_rounding_is_not_proven(tmp_path):
    vectors = np.zeros((320, 8), dtype=np.float32)
    vectors[:, 0] = 1 + 1.2e-7 * np.arange(320, dtype=np.float32)  # each score is a digit above the one before it
    users, items = users_of(np.full((1, 8), 1 / 3, np.float32)), items_of(vectors)
    stages = {"index": built(vectors, tmp_path / "index"), "items": items, "margin": 1}
    assert not TwoStages(**stages, prove=False).top([users], K).proven.any()
    found = TwoStages(**stages, deepest_share=1.0).top([users], K)
    assert found.proven.all()
    assert K + 1 < found.depths[0] < 320
    # Scores of candidates alone that are off, but by less than what rounding may do, prove no more than that.
    off = TwoStages(**stages, vectors_of=lambda ids: torch.from_numpy(vectors[ids] * np.float32(1 + 4e-6)))
    assert off.top([users], K).depths == found.depths


def test_a_list_longer_than_the_items_that_are_left(tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    users = users_of(np.ones((2, 2), np.float32), [(0, 5, -np.inf), (0, 1, -np.inf)])
    found = TwoStages(index=built(vectors, tmp_path / "index"), items=items_of(vectors)).top([users], 10)
    np.testing.assert_array_equal(found.ids, [[4, 3, 2, 0, -1, -1], [5, 4, 3, 2, 1, 0]])
    assert found.proven.all()


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat", "ivfpq"])
def test_an_approximate_index_proves_nothing_and_its_scores_are_exact(tmp_path, kind):
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((600, 8)).astype(np.float32)
    users, items = random_users(generator, 10, 8, 600), items_of(vectors)
    index = built(vectors, tmp_path / "index", kind=kind, nbits=4)
    found = TwoStages(index=index, items=items, effort=64).top([users], K)
    assert not found.proven.any()
    ids, _ = exact_lists([users], items, K)
    every = users.vectors.numpy() @ vectors.T
    every[users.gain_users, users.gain_items] += users.gains
    np.testing.assert_allclose(found.scores, np.take_along_axis(every, found.ids, 1), rtol=1e-5)
    assert (found.ids == ids).mean() > (0.2 if kind == "ivfpq" else 0.8)


@pytest.mark.parametrize("weight", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_fusion_is_searched_by_channel_until_a_bound_proves_the_list(tmp_path, weight, with_ids, alone):
    generator = np.random.default_rng(4)
    channels = [generator.standard_normal((400, 5)).astype(np.float32) for _ in range(3)]
    channels = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in channels]
    for x in channels[1:]:
        x[generator.random(400) < 0.3] = 0  # items that lack a modality
    fusion = DynamicFusion(temperature=0.1, with_ids=with_ids)
    fusion.weight.data.fill_(weight)
    vectors = np.concatenate(channels, axis=1)

    def pair_scores(users, items):
        return fused_scores(fusion, users.chunk(3, dim=1), items.chunk(3, dim=1)).detach()

    items = items_of(vectors, pair_scores=pair_scores)
    users = users_of(10 * vectors[generator.choice(400, 20)], [(0, 3, -np.inf), (1, 4, 5.0), (2, 5, -5.0)])
    index = built(vectors, tmp_path / "index", widths=[5, 5, 5], shard_items=150)
    stages = {"index": index, "items": items, "fusion": fusion, "margin": 0}
    stages["vectors_of"] = (lambda ids: torch.from_numpy(vectors[ids])) if alone else None
    found = TwoStages(**stages, deepest_share=1.0).top([users], K)
    ids, scores = exact_lists([users], items, K)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores, rtol=2e-6 if alone else 0)
    assert found.proven.all()
    once = TwoStages(**stages, prove=False).top([users], K)
    assert not once.proven.all()  # so that the search had to go deeper
    np.testing.assert_array_equal(once.ids[once.proven], ids[once.proven])


def test_a_fusion_without_a_known_bound_is_ranked_exactly(tmp_path):
    vectors = np.random.default_rng(5).standard_normal((90, 4)).astype(np.float32)

    def fusion(scores, present):  # noqa: ARG001
        return -scores[0] - scores[1]

    def pair_scores(users, items):
        return fusion([u @ i.T for u, i in zip(users.chunk(2, 1), items.chunk(2, 1), strict=True)], [])

    items = items_of(vectors, pair_scores=pair_scores)
    index, users = built(vectors, tmp_path / "index", widths=[2, 2]), users_of(vectors[:3])
    found = TwoStages(index=index, items=items, fusion=fusion).top([users], K)
    assert (found.depths == 90).all()
    np.testing.assert_array_equal(found.ids, exact_lists([users], items, K)[0])


def test_an_index_of_other_vectors_is_noticed(tmp_path):
    vectors = np.random.default_rng(6).standard_normal((200, 4)).astype(np.float32)
    index, users = built(vectors, tmp_path / "index"), users_of(vectors[:3])
    with pytest.raises(InputError, match="built from another run or checkpoint"):
        TwoStages(index=index, items=items_of(vectors * np.float32(1.001))).top([users], K)
    with pytest.raises(InputError, match="holds 200 items, the model ranks 100"):
        TwoStages(index=index, items=items_of(vectors[:100]))
    parts = built(vectors, tmp_path / "parts", widths=[2, 2])
    with pytest.raises(InputError, match="has 2 parts"):
        TwoStages(index=parts, items=items_of(vectors))
