"""The figures on a case page equal those of `recommend` and of the evaluation, and the parts add up to scores."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from contracts.errors import InputError
from data.sampling.batches import assemble
from data.sampling.spans import spans_before
from data.sequences import Targets
from distributed.inference.scoring import Scorer
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from experiments.case_page.channel_scoring import ChannelScorer
from experiments.case_page.collect import NUM_ITEMS, NUM_USERS, case_study, find_named
from experiments.case_page.page import page
from tests.distributed.runs import REPEAT_GAINS, SAMPLED, config_of, set_repeat_gains

REPEATS = ("mdsrec", "evaluation.mask_history=false", "model.learn_repeats=true")
BOTH_GAINS = (*REPEATS, "evaluation.cooccurrence_weight=2", "evaluation.cooccurrence_decay=0.5")
CASES = [
    ("mdsrec", "evaluation.mask_history=false"),
    ("mdsrec", "evaluation.mask_history=true", "table.sharding=row_wise", *SAMPLED),
    ("sasrec", "evaluation.mask_history=true"),
    ("popularity",),
    REPEATS,
    ("sasrec", "evaluation.mask_history=true", "model.learn_repeats=true"),
    ("itemknn", "evaluation.mask_history=true", "evaluation.cooccurrence_weight=1"),
    BOTH_GAINS,
    ("mdsrec", "evaluation.mask_history=true", "evaluation.cooccurrence_weight=2", "evaluation.cooccurrence_cap=3"),
]


def scorer_of(folders, world, case, *more):
    config = config_of(folders, "unused", *case, "model.init_std=0.5", *more)
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    set_repeat_gains(sharded.system)
    return Scorer(sharded=sharded, inputs=inputs, config=config, world=world)


def located(data, split):
    targets = Targets(data, split)
    return targets.locate(np.arange(len(targets)))


def best_scores(ranking):
    """Return the scores of the best items by all channels together, as sums of their parts, [B, K]."""
    return ranking.best_parts[0].sum(axis=2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_best_are_those_of_recommend_and_their_parts_add_up(folders, case, streamed):
    with world_of_one() as world:
        scorer = scorer_of(folders, world, case)
        scorer.held_bytes = 0 if streamed else np.inf
        users, positions = located(scorer.inputs.dataset, "next")
        lists = list(scorer.recommend(10, scorer.config.evaluation.mask_history))
        ids, scores = (np.concatenate([one[part] for one in lists]) for part in (1, 2))
        found = ChannelScorer(scorer).study(users, positions, 10)
    np.testing.assert_array_equal(found.best[0], ids)
    np.testing.assert_allclose(best_scores(found), scores, atol=1e-5)
    assert (found.targets == -1).all()
    assert (found.target_parts == 0).all()
    if len(found.best) == 2:  # with one channel, both rankings are the same
        np.testing.assert_array_equal(found.best[0], found.best[1])


@pytest.mark.parametrize("case", CASES)
def test_ranks_are_those_of_the_evaluation(folders, case):
    with world_of_one() as world:
        scorer = scorer_of(folders, world, case)
        ranked = scorer.rank("test")
        found = ChannelScorer(scorer).study(ranked.users, ranked.positions, 10)
    np.testing.assert_array_equal(found.ranks[0], ranked.ranks)
    np.testing.assert_array_equal(found.targets, ranked.items)
    for row in range(len(found.users)):
        place = found.best[0, row].tolist().index(found.targets[row]) if ranked.ranks[row] <= 10 else None
        if place is not None:
            assert place <= ranked.ranks[row] - 1  # ties rank above the target
            np.testing.assert_allclose(found.best_parts[0, row, place], found.target_parts[row], atol=1e-12)


@pytest.mark.parametrize("case", [CASES[0], REPEATS, BOTH_GAINS])
def test_each_channel_alone_is_its_own_inner_product_and_gains(folders, case):
    with world_of_one() as world:
        scorer = scorer_of(folders, world, case)
        data, system = scorer.inputs.dataset, scorer.system
        users, positions = located(data, "test")
        found = ChannelScorer(scorer).study(users, positions, 10)
        system.eval()
        with torch.no_grad():
            items = system.item_rows(scorer.encoder.planner.catalogue())
            spans = spans_before(users, positions, scorer.config.model.max_length)
            batch = assemble(data, spans, len(users), lambda ids: ids)
            channels = system.recommender.channels
            pairs = zip(
                system.recommender.user_vectors(items, batch), system.recommender.item_vectors(items), strict=True
            )
            scores = [c.weight * (u.double() @ i.double().T) for c, (u, i) in zip(channels, pairs, strict=True)]
    scores = np.stack([s.numpy() for s in scores])
    related = np.zeros((1, len(users), data.num_items))
    if case != CASES[0]:
        offsets, others, values = scorer.inputs.graph.cooccurrence_rows(np.arange(data.num_items))
        counts = csr_array((values, others, offsets), shape=(data.num_items, data.num_items)).toarray()
        for row, (user, position) in enumerate(zip(users, positions, strict=True)):
            first = data.offsets[user] + max(0, position - scorer.config.model.max_length)
            seen = data.items[first : data.offsets[user] + position]
            related[0, row] = 2 * 0.5 ** np.arange(len(seen))[::-1] @ counts[seen]
            related[0, row, seen] = 0
            weights = [channel.weight for channel in channels]
            scores[:, row, np.unique(seen)] += np.multiply(weights, REPEAT_GAINS)[:, None]
    assert [channel.name for channel in channels] == ["id", "image", "text"]
    if case == BOTH_GAINS:
        assert (related > 0).any()
        scores = np.concatenate([scores, related])
    rows = np.arange(len(users))
    np.testing.assert_allclose(found.target_parts, scores[:, rows, found.targets].T, atol=1e-5)
    for view, own in enumerate([scores.sum(0), *scores]):
        parts = scores[:, rows[:, None], found.best[view]].transpose(1, 2, 0)
        np.testing.assert_allclose(found.best_parts[view], parts, atol=1e-5)
        target = own[rows, found.targets]
        assert (found.ranks[view] >= 1 + (own > target[:, None] + 1e-5).sum(1)).all()
        assert (found.ranks[view] <= (own >= target[:, None] - 1e-5).sum(1)).all()
        top = np.sort(own, axis=1)[:, ::-1][:, :10]
        np.testing.assert_allclose(np.take_along_axis(own, found.best[view], 1), top, atol=1e-5)


@pytest.fixture(scope="module")
def runs(folders, tmp_path_factory):
    """Configs of small trained runs, by model."""
    root = tmp_path_factory.mktemp("case-runs")
    configs = {m: config_of(folders, root / m, m, "training.max_epochs=1") for m in ("mdsrec", "sasrec")}
    for config in configs.values():
        with world_of_one() as world:
            train(config, world)
    return configs


def studied(config, items=(), users=(), seed=0):
    with world_of_one() as world:
        return case_study(config, world, "best", items, users, seed)


def test_picks_are_the_seeds_and_follow_their_rules(runs):
    study = studied(runs["mdsrec"])
    assert study == studied(runs["mdsrec"])
    assert page(study) == page(studied(runs["mdsrec"]))
    other = studied(runs["mdsrec"], seed=1)
    assert [case.user for case in study.users] != [case.user for case in other.users]
    assert len(study.items) == NUM_ITEMS
    assert len(study.users) == NUM_USERS
    data = open_inputs(runs["mdsrec"]).dataset
    names, popularity = data.item_source_ids().to_pylist(), data.popularity()
    for case in study.items:
        assert case.popularity == popularity[names.index(case.item.id)]
        assert all(found.relatives and not found.is_lacking for found in case.lists)
    owners = data.user_source_ids().to_pylist()
    for case in study.users:
        user = owners.index(case.user)
        whole = [names[i] for i in data.items[data.offsets[user] : data.offsets[user + 1]]]
        assert 4 <= len(whole) - 1 <= 8
        assert [item.id for item in case.history] == whole[:-1]
        assert case.next_offer.item.id == whole[-1]
        assert len(case.best) == 10
        assert [len(own) for own in case.alone] == [5, 5, 5]


def test_named_items_and_users_are_shown_in_their_order(runs):
    data = open_inputs(runs["mdsrec"]).dataset
    names, owners = data.item_source_ids().to_pylist(), data.user_source_ids().to_pylist()
    without = int(np.flatnonzero(~data.presence("image"))[0])
    study = studied(runs["mdsrec"], [names[9], names[without], names[9]], [owners[100], owners[2]])
    assert [case.item.id for case in study.items] == [names[9], names[without]]
    assert [case.user for case in study.users] == [owners[100], owners[2]]
    assert study.items[1].lists[0].is_lacking
    assert "This item has no image." in page(study)


def test_a_model_without_a_graph_shows_its_users_alone(runs):
    study = studied(runs["sasrec"])
    assert study.relations == ()
    assert study.items == ()
    assert len(study.users) == NUM_USERS
    text = page(study)
    assert "reads no relations between items" in text
    assert "Items, and the items related to them" not in text
    with pytest.raises(InputError, match="reads no item graph"):
        find_named(open_inputs(runs["sasrec"]), ["i1"], [])


def test_unknown_names_are_said_with_a_near_one(runs):
    inputs = open_inputs(runs["mdsrec"])
    known = inputs.dataset.item_source_ids()[12].as_py()
    with pytest.raises(InputError, match=rf"--items {known}x: no such item among the 70 .* such as {known}$"):
        find_named(inputs, [known, f"{known}x"], [])
    with pytest.raises(InputError, match="no such user among the 120"):
        find_named(inputs, [], ["☃"])
    with pytest.raises(InputError, match="51 are named"):
        find_named(inputs, [], ["u"] * 51)
