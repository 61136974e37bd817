"""Batches of several domains apart: each step trains one domain, and each span is trained once in an epoch."""

import numpy as np
import pytest

from contracts.item_plan import ItemNeeds
from data.domains import Domain
from data.sampling.batches import TrainBatches
from data.sampling.item_planner import ItemPlanner
from data.sampling.masks import Masks
from data.sampling.negatives import CandidateSampler, target_counts
from data.sampling.order import steps_of_parts
from data.sampling.spans import TrainingSpans
from data.sequences import target_items
from tests.sequences import Sequences

USERS, ITEMS = (30, 0, 25, 8), (20, 5, 12, 9)  # the second domain has no user


def domains_and_data(lengths=(2, 12), users=USERS, items=ITEMS):
    rng = np.random.default_rng(1)
    first_users, first_items = np.cumsum([0, *users]), np.cumsum([0, *items])
    sizes = rng.integers(*lengths, sum(users))
    domains = [
        Domain(
            name=f"d{number}", path="", fingerprint="", first_user=int(first_users[number]), num_users=users[number],
            first_item=int(first_items[number]), num_items=items[number],
        )
        for number in range(len(users))
    ]  # fmt: skip
    owner = np.repeat(np.repeat(np.arange(len(users)), users), sizes)
    data = Sequences(
        num_items=sum(items),
        num_users=sum(users),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        items=first_items[owner] + rng.integers(0, np.array(items)[owner]),
        train_end=sizes,
        valid_end=sizes,
    )
    return domains, data


def batches_of(data, domains, *, unit="windows", rank=0, world=1, masks=None, candidates=None, batch_size=16):
    return TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit=unit, max_length=5, overlap=0.5, masks=masks),
        batch_size=batch_size,
        seed=7,
        rank=rank,
        world=world,
        planner=ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={}),
        candidates=candidates,
        domains=domains,
    )


def epoch_of(batches, epoch):
    """Return the numbers of the users and ends of all spans of each step."""
    batches.set_epoch(epoch)
    steps = [batches.spans(step)[0] for step in range(len(batches))]
    return [list(zip(spans.users.tolist(), spans.ends.tolist(), strict=True)) for spans in steps]


@pytest.mark.parametrize("masks", [None, Masks(ratio=0.4, last_share=0.1, seed=2)], ids=["", "masks"])
@pytest.mark.parametrize("unit", ["windows", "prefixes"])
def test_a_step_has_spans_of_one_domain_and_an_epoch_has_every_span_once(unit, masks):
    domains, data = domains_and_data()
    batches = batches_of(data, domains, unit=unit, masks=masks)
    every = sorted(span for step in epoch_of(batches_of(data, (), unit=unit, masks=masks), 0) for span in step)
    firsts = np.array([domain.first_user for domain in domains])
    orders = []
    for epoch in range(2):
        steps = epoch_of(batches, epoch)
        owners = [{int(np.flatnonzero(firsts <= user)[-1]) for user, _ in step} for step in steps]
        assert all(len(owner) == 1 for owner in owners)
        orders.append([owner.pop() for owner in owners])
        assert sorted(span for step in steps for span in step) == every
    assert set(orders[0]) == {0, 2, 3}
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("unit", ["windows", "prefixes"])
def test_the_steps_of_a_domain_are_those_of_the_domain_alone(unit):
    domains, data = domains_and_data()
    third = domains[2]
    users = slice(third.first_user, third.first_user + third.num_users)
    begin, end = data.offsets[users.start], data.offsets[users.stop]
    alone = Sequences(
        num_items=third.num_items,
        num_users=third.num_users,
        offsets=data.offsets[users.start : users.stop + 1] - begin,
        items=data.items[begin:end] - third.first_item,
        train_end=data.train_end[users],
        valid_end=data.valid_end[users],
    )
    for epoch in range(2):
        expected = epoch_of(batches_of(alone, (), unit=unit), epoch)
        steps = epoch_of(batches_of(data, domains, unit=unit), epoch)
        own = [step for step in steps if users.start <= step[0][0] < users.stop]
        assert [[(user - users.start, end) for user, end in step] for step in own] == expected


def test_any_number_of_ranks_shares_the_same_batches():
    domains, data = domains_and_data()
    whole = batches_of(data, domains)
    for world in (2, 3):
        ranks = [batches_of(data, domains, rank=rank, world=world) for rank in range(world)]
        assert {len(rank) for rank in ranks} == {len(whole)}
        for step in reversed(range(len(whole))):  # in any order, as after a resume
            spans, _ = whole.spans(step)
            shares = [rank.spans(step) for rank in ranks]
            assert all(np.array_equal(theirs.users, spans.users) for theirs, _ in shares)
            assert np.array_equal(np.sort(np.concatenate([own for _, own in shares])), np.arange(len(spans)))


def test_one_domain_or_none_is_today_s_order():
    _, data = domains_and_data()
    one = Domain(name="", path="", fingerprint="", first_user=0, num_users=63, first_item=0, num_items=46)
    assert epoch_of(batches_of(data, [one]), 3) == epoch_of(batches_of(data, ()), 3)


def test_a_step_has_the_batch_size_on_average_also_where_sequences_are_long():
    (short, _, long, _), data = domains_and_data(users=(400, 0, 400, 0))
    first = data.offsets[long.first_user]
    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.full(400, 2), np.full(400, 40)])
    data = Sequences(
        num_items=data.num_items, num_users=800, offsets=np.concatenate([[0], np.cumsum(sizes)]),
        items=np.concatenate([rng.integers(0, 20, 800), long.first_item + rng.integers(0, 12, 16000)]),
        train_end=sizes, valid_end=sizes,
    )  # fmt: skip
    assert first > 0
    batches = batches_of(data, [short, long], batch_size=64)
    targets = {True: [], False: []}
    for step in range(len(batches)):
        spans, _ = batches.spans(step)
        targets[bool(spans.users[0] >= 400)].append(int(spans.num_targets.sum()))
    for counts in targets.values():
        assert np.mean(sorted(counts)[1:]) == pytest.approx(64, rel=0.1)  # without the last one, which is smaller


def test_steps_of_parts_keep_their_order_and_every_order_of_parts_is_as_likely():
    parts, numbers = steps_of_parts([3, 0, 5, 1], seed=4, epoch=2)
    for part, count in enumerate([3, 0, 5, 1]):
        assert numbers[parts == part].tolist() == list(range(count))
    lone = np.sum([steps_of_parts([1, 3], seed, epoch)[0] == 0 for seed in range(500) for epoch in range(4)], axis=0)
    assert (abs(lone - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75)).all()


@pytest.mark.long
def test_sampled_losses_are_unbiased_for_each_domain():
    """On average, an item that is not a row's target counts once in the row, of whichever domain it is."""
    domains, data = domains_and_data(lengths=(3, 4), users=(16, 20), items=(5, 7))
    sampler = CandidateSampler(
        counts=target_counts(data, data.popularity()),
        num_draws=6,
        popularity_share=0.5,
        popularity_power=0.75,
        in_batch=True,
        seed=3,
    )
    batches = batches_of(data, domains, unit="prefixes", candidates=sampler, batch_size=8)
    sums, squares, counts = (np.zeros((2, 12)) for _ in range(3))
    for epoch in range(120):
        batches.set_epoch(epoch)
        for number in range(len(batches)):
            step = batches[number]
            assert step.plan is not None
            assert step.batch.candidates is not None
            assert step.batch.log_weights is not None
            weights = np.zeros(12)
            weights[step.plan.union_ids[step.batch.candidates].numpy()] = step.batch.log_weights.exp().numpy()
            targets = target_items(data, step.batch.users.numpy(), step.batch.positions.numpy())
            rows = np.bincount(targets, minlength=12)
            others = len(targets) - rows
            domain = int(targets[0] >= 5)
            # All rows of a step share the weights, so a step is one observation of each item, weighted by its rows.
            sums[domain] += others * weights
            squares[domain] += (others * (weights - 1)) ** 2
            counts[domain] += others
    trained = target_counts(data, data.popularity()) > 0
    assert trained.all()
    errors = (sums - counts) / np.sqrt(squares)
    assert (abs(errors) < 4.5).all(), errors
    assert (counts > 300).all()
