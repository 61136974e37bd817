"""Steps of sampled training: their own plans, candidates shared by all ranks, centres that are right on average."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.batch import Step
from contracts.item_plan import ItemNeeds
from data.sampling.batches import TrainBatches, same_sequence_of
from data.sampling.item_planner import ItemPlanner
from data.sampling.negatives import CandidateSampler, target_counts
from data.sampling.spans import TrainingSpans
from data.sequences import target_items
from tests.data.packed_layout import contexts, real_places
from tests.data.test_batches import FakeGraph, dense, planner_of, random_graph, sequences
from tests.sequences import Sequences


def sampled_batches(data: Sequences, rank: int, world: int, draws: int = 20, in_batch: bool = True) -> TrainBatches:
    planner = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={})
    sampler = CandidateSampler(
        counts=target_counts(data, data.popularity()),
        num_draws=draws,
        popularity_share=0.5,
        popularity_power=0.75,
        in_batch=in_batch,
        seed=9,
    )
    return TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5),
        batch_size=16,
        seed=3,
        rank=rank,
        world=world,
        planner=planner,
        candidates=sampler,
    )


def ids_of(step: Step, positions: torch.Tensor) -> torch.Tensor:
    assert step.plan is not None
    assert not len(positions) or int(positions.max()) < step.plan.num_roles
    return step.plan.union_ids[positions]


@pytest.mark.parametrize("world", [1, 3, 20])
def test_ranks_train_the_same_targets_against_the_same_candidates_in_any_world(world: int) -> None:
    data = sequences(30, 5000, 1)
    full, ranks = full_batches(data), [sampled_batches(data, rank, world) for rank in range(world)]
    for step in range(len(full)):
        parts = [batches[step] for batches in ranks]
        expected = full[step].batch
        joined = torch.cat([ids_of(part, part.batch.targets) for part in parts])
        assert torch.equal(joined.sort().values, expected.targets.sort().values)
        for part in parts:
            assert part.plan is not None
            assert part.batch.candidates is not None
            assert part.batch.num_global_targets == len(expected.targets)
            real = torch.from_numpy(real_places(part.batch))
            needed = [part.batch.history[real], part.batch.targets, part.batch.candidates]
            named = torch.cat([ids_of(part, positions) for positions in needed])
            assert set(named.tolist()) == set(part.plan.union_ids.tolist()), "nobody else is looked up"
            assert torch.equal(ids_of(part, part.batch.candidates), ids_of(parts[0], parts[0].batch.candidates))
            assert torch.equal(part.batch.log_weights, parts[0].batch.log_weights)
            assert set(expected.targets.tolist()) <= set(ids_of(part, part.batch.candidates).tolist())


def full_batches(data: Sequences, rank: int = 0, world: int = 1, step_plans: bool = False) -> TrainBatches:
    planner = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={})
    return TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5),
        batch_size=16,
        seed=3,
        rank=rank,
        world=world,
        planner=planner,
        step_plans=step_plans,
    )


@pytest.mark.parametrize("world", [1, 2, 9])
def test_a_step_without_candidates_may_have_a_plan_of_its_histories_and_targets(world: int) -> None:
    data = sequences(30, 5000, 1)
    ranks = [full_batches(data, rank, world, step_plans=True) for rank in range(world)]
    assert all(batches.plan is None for batches in ranks)
    for number in range(len(ranks[0])):
        parts = [batches[number] for batches in ranks]
        whole = full_batches(data)[number].batch
        targets: list[int] = []
        for part in parts:
            assert part.batch.candidates is None
            assert part.batch.num_global_targets == len(whole.targets)
            needed = [part.batch.history[torch.from_numpy(real_places(part.batch))], part.batch.targets]
            named = torch.cat([ids_of(part, positions) for positions in needed])
            assert set(named.tolist()) == set(part.plan.union_ids.tolist()), "nobody else is looked up"
            targets += ids_of(part, part.batch.targets).tolist()
        assert sorted(targets) == sorted(whole.targets.tolist())
        assert world < 9 or any(not len(part.batch.targets) for part in parts), "no rank has an empty share"


def test_histories_of_a_sampled_step_are_those_of_the_full_one() -> None:
    data = sequences(30, 5000, 1)
    full, sampled = full_batches(data), sampled_batches(data, 0, 1)
    for step in range(len(full)):
        one, other = full[step].batch, sampled[step]
        seen = [ids_of(other, torch.tensor(places)).tolist() for places in contexts(other.batch)]
        assert seen == contexts(one)
    assert sampled.plan is None


def test_candidates_change_with_the_step_and_the_epoch() -> None:
    data = sequences(30, 5000, 1)
    batches = sampled_batches(data, 0, 1, in_batch=False)
    seen = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        seen += [tuple(ids_of(batches[step], batches[step].batch.candidates).tolist()) for step in (0, 1)]
    assert len(set(seen)) == 4


@pytest.mark.parametrize("huge", [2**24 + 1, 2**31 + 1])
def test_ids_that_float32_and_int32_cannot_hold_travel_exactly(huge: int) -> None:
    # The catalogue is as large as its largest id; nothing of its size is made.
    data = sequences(12, 50, 2, first_item=huge)
    sampler = CandidateSampler(
        counts=None,
        num_draws=30,
        popularity_share=0.0,
        popularity_power=1.0,
        in_batch=False,
        seed=1,
        num_items=data.num_items,
    )
    planner = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={})
    batches = TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5),
        batch_size=16,
        seed=3,
        rank=0,
        world=1,
        planner=planner,
        candidates=sampler,
    )
    step = batches[0]
    ids = ids_of(step, step.batch.targets)
    assert int(ids.min()) >= huge
    full = full_batches(data)[0].batch if huge < 2**25 else None
    if full is not None:
        assert torch.equal(ids, full.targets)
    assert int(step.plan.union_ids.max()) < data.num_items
    assert (step.plan.union_ids % 2).unique().numel() == 2, "odd ids above 2^24 are not float32 numbers"


@pytest.mark.parametrize("cap", [1, 2, 4, 30])
@pytest.mark.parametrize("few", [True, False])
def test_a_cap_keeps_the_strongest_cooccurrences_of_a_row(cap: int, few: bool) -> None:
    graph = random_graph(25, 3, 4)  # whole weights up to 8: many ties
    graph.weights[7] = 0
    graph.weights[9, :] = 1e-30 * (np.arange(25) != 9)
    roles = np.array([0, 3, 7, 9, 24]) if few else np.arange(25)
    plan = planner_of(graph, cooccurrence=True, cooccurrence_cap=cap).plan(roles)
    rows = plan.cooccurrence
    assert rows is not None
    union = plan.union_ids.numpy()
    for row, item in enumerate(roles):
        begin, end = rows.indptr[row : row + 2].tolist()
        best = sorted(np.flatnonzero(graph.weights[item]), key=lambda column: (-graph.weights[item, column], column))
        assert union[rows.indices[begin:end].numpy()].tolist() == sorted(best[:cap]), item
        expected = graph.weights[item, union[rows.indices[begin:end].numpy()]].astype(np.float32)
        assert rows.values[begin:end].tolist() == expected.tolist()
    linked = union[rows.indices.numpy()]
    assert set(union.tolist()) == set(roles.tolist()) | set(linked.tolist()), "nobody else is looked up"


def test_hard_negatives_are_the_same_on_all_ranks() -> None:
    data = sequences(30, 5000, 1)
    links = [np.random.default_rng(m).integers(-1, 5000, (5000, 4)) for m in range(2)]
    counts = target_counts(data, data.popularity())
    planner = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={})
    spans = TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5)
    seen: list[tuple[list[int], list[float]]] = []
    near: set[int] = set()
    for rank, world in [(0, 1), (0, 3), (2, 3)]:
        sampler = CandidateSampler(
            counts=counts,
            num_draws=20,
            popularity_share=0.5,
            popularity_power=0.75,
            in_batch=True,
            seed=9,
            hard_share=0.5,
            neighbors=links,
        )
        step = TrainBatches(
            data=data, spans=spans, batch_size=16, seed=3, rank=rank, world=world, planner=planner, candidates=sampler
        )[1]
        ids = ids_of(step, step.batch.candidates)
        seen.append((ids.tolist(), step.batch.log_weights.tolist()))
        if world == 1:
            near = {int(item) for modal in links for item in modal[ids_of(step, step.batch.targets).numpy()].ravel()}
    assert seen[0] == seen[1] == seen[2]
    assert len(near & set(seen[0][0])) >= 5, "about ten of the draws are neighbours"


@pytest.mark.parametrize("scale", ["mean", "sum"])
def test_sampled_centres_are_the_exact_ones_on_average(scale: str) -> None:
    graph = random_graph(25, 3, 4)
    exact = planner_of(graph, views=("image",), centers=("image",), view_scale=scale).plan(np.arange(25))
    expected = dense(exact.centers["image"]) @ dense(exact.views["image"])  # [k, N], every item a role
    planner = planner_of(graph, views=("image",), centers=("image",), view_scale=scale, center_samples=6)
    total, rounds = torch.zeros_like(expected), 3000
    for seed in range(rounds):
        plan = planner.plan(np.array([2, 7]), np.random.default_rng(seed))
        rows = plan.sampled_centers["image"]
        assert not plan.centers
        assert plan.num_roles == 2
        assert rows.indptr.diff().tolist() == [6, 6, 0]  # centre 2 is empty
        total.index_add_(1, plan.union_ids, dense(rows))
    # Each entry is a mean of 18,000 draws of at most 3: a standard error of .011 at the most.
    assert (total / rounds - expected).abs().max() < 0.06
    assert expected.abs().max() > 0.1


def test_same_sequence_holds_the_targets_of_the_same_span() -> None:
    assert same_sequence_of(np.array([2, 1, 3])).tolist() == [
        [0, 1, 0],
        [0, 1, 1],
        [2, 2, 2],
        [3, 4, 5],
        [3, 4, 5],
        [3, 4, 5],
    ]
    assert same_sequence_of(np.empty(0, np.int64)).shape == (0, 1)
    data = sequences(30, 5000, 1)
    for rank in range(3):
        batch = sampled_batches(data, rank, 3)[0].batch
        assert batch.same_sequence is not None
        for row, others in enumerate(batch.same_sequence.tolist()):
            same = [n for n, user in enumerate(batch.users) if user == batch.users[row]]
            assert set(others) == set(same), "every user of this batch has one span in it"
    assert sampled_batches(data, 0, 1, in_batch=False)[0].batch.same_sequence is None


def test_only_items_of_a_history_bring_their_cooccurrences() -> None:
    graph = random_graph(25, 3, 4)
    planner = planner_of(graph, cooccurrence=True)
    roles, seen = np.array([0, 3, 7, 9, 24]), np.array([9, 3, 9])
    some, every = planner.plan(roles, seen=seen).cooccurrence, planner.plan(roles).cooccurrence
    assert some is not None
    assert every is not None
    assert torch.equal(some.indptr.diff() > 0, torch.tensor([False, True, False, True, False]))
    expected = np.where(np.isin(roles, seen)[:, None], graph.weights[roles], 0)
    found = np.zeros_like(expected)
    found[:, planner.plan(roles, seen=seen).union_ids.numpy()] = dense(some).numpy()
    np.testing.assert_allclose(found, expected)


def test_weights_of_in_batch_candidates_follow_from_the_spans_of_the_global_batch() -> None:
    """The chance of another span to be in the batch is (S - 1) / (S_all - 1), in the smaller last batch too."""
    data = sequences(40, 5000, 6)
    spans = TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5)
    sampler = CandidateSampler(
        counts=target_counts(data, data.popularity()),
        num_draws=20,
        popularity_share=0.5,
        popularity_power=0.75,
        in_batch=True,
        seed=9,
    )
    batches = sampled_batches(data, 0, 1)
    sizes = []
    for step in (0, len(batches) - 1):
        global_batch, _ = batches.spans(step)
        sizes.append(len(global_batch))
        targets = target_items(data, *global_batch.targets())
        ids, log_weights = sampler.sample(0, step, targets, (sizes[-1] - 1) / (len(spans) - 1))
        for rank in range(3):
            found = sampled_batches(data, rank, 3)[step]
            assert ids_of(found, found.batch.candidates).tolist() == ids.tolist()
            assert found.batch.log_weights.tolist() == log_weights.tolist()
    assert 1 < sizes[1] < sizes[0] < len(spans)


def batches_with_a_graph(seed: int = 3, rank: int = 0, world: int = 1, **needs: object) -> TrainBatches:
    data = sequences(30, 40, 1)
    planner = planner_of(random_graph(40, 3, 4), **needs)
    sampler = CandidateSampler(
        counts=None, num_draws=5, popularity_share=0.0, popularity_power=1.0, in_batch=False, seed=9, num_items=40
    )
    return TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5),
        batch_size=16,
        seed=seed,
        rank=rank,
        world=world,
        planner=planner,
        candidates=sampler,
    )


def center_draws(batches: TrainBatches, step: int) -> list[int]:
    plan = batches[step].plan
    assert plan is not None
    return plan.union_ids[plan.sampled_centers["image"].indices].tolist()


def test_draws_of_centres_change_with_seed_epoch_and_step_and_not_with_the_rank() -> None:
    seen = []
    for seed, epoch, step in [(3, 0, 0), (4, 0, 0), (3, 1, 0), (3, 0, 1)]:
        ranks = [(0, 1), (0, 2), (1, 2)]
        draws = []
        for rank, world in ranks:
            batches = batches_with_a_graph(seed, rank, world, views=("image",), centers=("image",), center_samples=6)
            batches.set_epoch(epoch)
            draws.append(center_draws(batches, step))
        assert draws[0] == draws[1] == draws[2]
        seen.append(tuple(draws[0]))
    assert len(set(seen)) == 4


def test_a_step_looks_up_the_cooccurrences_of_its_histories_only() -> None:
    for rank in range(2):
        step = batches_with_a_graph(3, rank, 2, cooccurrence=True)[0]
        assert step.plan is not None
        assert step.plan.cooccurrence is not None
        history = step.batch.history[torch.from_numpy(real_places(step.batch))]
        rows = np.flatnonzero(step.plan.cooccurrence.indptr.diff().numpy())
        assert len(rows)
        assert set(rows.tolist()) <= set(history.tolist()) < set(range(step.plan.num_roles))


def test_random_streams_of_a_step_have_keys_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy pads keys with zeros, so [1, 2] and [1, 2, 0] are one stream: keys must differ without their zeros."""
    keys: list[tuple[int, ...]] = []
    original = np.random.default_rng

    def remembering(key: list[int]) -> np.random.Generator:
        keys.append(tuple(key))
        return original(key)

    batches = batches_with_a_graph(views=("image",), centers=("image",), center_samples=6)
    monkeypatch.setattr(np.random, "default_rng", remembering)
    batches[0]
    assert len(keys) == len(set(keys)) == 2
    assert all(key[-1] != 0 and len(key) == 4 for key in keys)


@pytest.mark.parametrize("scale", ["mean", "sum"])
def test_small_clusters_and_items_without_neighbours_count_in_sampled_centres(scale: str) -> None:
    """One cluster of three members: one has two neighbours, one has one, one has none. Twelve draws each."""
    links = np.array([[3, 4], [-1, 5], [-1, -1], *[[-1, -1]] * 3])
    graph = FakeGraph(6, np.zeros((6, 6)), {"image": links}, {"image": np.array([0, 0, 0, -1, -1, -1])}, centers=1)
    planner = planner_of(graph, views=("image",), centers=("image",), view_scale=scale, center_samples=12)
    total, rounds = np.zeros(6), 500
    for seed in range(rounds):
        plan = planner.plan(np.array([0]), np.random.default_rng(seed))
        rows = plan.sampled_centers["image"]
        assert rows.indptr.tolist() == [0, 12]
        np.add.at(total, plan.union_ids[rows.indices].numpy(), rows.values.numpy())
    expected = np.array([0, 0, 0, 1 / 6, 1 / 6, 1 / 3]) * (1 if scale == "mean" else np.array([1, 1, 1, 2, 2, 1]))
    np.testing.assert_allclose(total / rounds, expected, atol=0.03)  # a standard error of .006 at the most
    assert not total[:3].any(), "the member without neighbours has a view of zeros"
