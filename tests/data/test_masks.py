"""Masked items: who is masked how often, the same in every world, and what a batch of masked rows holds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from contracts.item_plan import ItemNeeds
from data.sampling.batches import TrainBatches, assemble, span_items
from data.sampling.item_planner import ItemPlanner, positions_of
from data.sampling.masks import Masks
from data.sampling.negatives import CandidateSampler
from data.sampling.spans import Spans, TrainingSpans, Unit
from tests.data.packed_layout import real_places
from tests.data.test_batches import sequences
from tests.data.test_spans import data_of
from tests.sequences import Sequences

ROWS: list[Unit] = ["prefixes", "windows"]


def masks_of(ratio: float = 0.3, last_share: float = 0.4, seed: int = 3) -> Masks:
    return Masks(ratio=ratio, last_share=last_share, seed=seed)


def drawn(masks: Masks, length: int, count: int = 20_000, epoch: int = 0) -> np.ndarray:
    """The masks of many spans of one length, bool [count, length]."""
    return masks.draw(np.arange(count), np.full(count, length), epoch).reshape(count, length)


@pytest.mark.parametrize(("ratio", "last_share"), [(0.2, 0.5), (0.0, 0.0), (0.6, 0.0), (0.3, 1.0), (0.05, 0.3)])
@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_items_are_masked_as_often_as_the_rule_says(ratio: float, last_share: float, length: int) -> None:
    masks = masks_of(ratio, last_share)
    found = drawn(masks, length)
    assert found.any(axis=1).all()
    none, once = (1 - ratio) ** length, (1 - last_share) * (ratio + (1 - ratio) ** length / length)
    expected = np.full(length, once)
    expected[-1] += last_share
    assert found.mean(axis=0) == pytest.approx(expected, abs=0.017)  # about 4.5 standard errors
    assert found.sum(axis=1).mean() == pytest.approx(float(masks.expected(np.array([length]))[0]), abs=0.06)
    only_last = found[:, -1] & (found.sum(axis=1) == 1)
    chance = ratio * (1 - ratio) ** (length - 1) + none / length
    assert only_last.mean() == pytest.approx(last_share + (1 - last_share) * chance, abs=0.017)


def test_masks_of_two_places_two_spans_and_two_epochs_are_unrelated() -> None:
    masks = masks_of(0.5, 0.0)
    found = drawn(masks, 6)
    for one, other in ((found[:, 0], found[:, 1]), (found[:, 2], found[:, 5]), (found[:-1, 3], found[1:, 3])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    for other in (drawn(masks, 6, epoch=1), drawn(masks_of(0.5, 0.0, seed=4), 6)):
        assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < 0.02
    # Seed and epoch are no sum: seed 1 in epoch 2 is not seed 2 in epoch 1.
    assert (drawn(masks_of(seed=1), 6, epoch=2) != drawn(masks_of(seed=2), 6, epoch=1)).any()


def test_a_spans_masks_depend_on_its_number_and_length_alone() -> None:
    rng = np.random.default_rng(0)
    numbers, lengths = rng.integers(0, 2**40, 50), rng.integers(1, 9, 50)
    together = np.split(masks_of().draw(numbers, lengths, 7), np.cumsum(lengths)[:-1])
    for number, length, expected in zip(numbers, lengths, together, strict=True):
        assert masks_of().draw(np.array([number]), np.array([length]), 7).tolist() == expected.tolist()
    assert masks_of().draw(np.empty(0, np.int64), np.empty(0, np.int64), 0).shape == (0,)


@pytest.mark.parametrize("unit", ROWS)
@pytest.mark.parametrize("max_length", [1, 4, 10])
def test_rows_with_masks_are_the_rows_without_and_their_last_target(unit: Unit, max_length: int) -> None:
    data = data_of([1, 32, 0, 11, 12, 2])
    plain = TrainingSpans(data=data, unit=unit, max_length=max_length, overlap=0.5)
    masked = TrainingSpans(data=data, unit=unit, max_length=max_length, overlap=0.5, masks=masks_of())
    assert len(masked) == len(plain)
    numbers = np.arange(len(plain))
    rows, expected = masked.locate(numbers, 5), plain.locate(numbers)
    for name in ("users", "starts"):
        assert getattr(rows, name).tolist() == getattr(expected, name).tolist()
    assert rows.ends.tolist() == (expected.ends + 1).tolist()
    assert rows.lengths.max() == max_length + 1
    assert (rows.ends <= data.train_end[rows.users]).all(), "an item for validation or test"
    assert masked.num_targets == pytest.approx(masks_of().expected(rows.lengths).sum())
    assert rows.masked is not None
    users, positions = rows.targets()
    listed = [
        (user, start + place)
        for user, start, flags in zip(
            rows.users, rows.starts, np.split(rows.masked, np.cumsum(rows.lengths)[:-1]), strict=True
        )
        for place in np.flatnonzero(flags)
    ]
    assert list(zip(users.tolist(), positions.tolist(), strict=True)) == listed
    some = np.array([3, 0, 3])
    assert rows[some].masked.tolist() == masked.locate(some, 5).masked.tolist()
    assert rows[some].num_targets.tolist() == masked.locate(some, 5).num_targets.tolist()
    nobody = rows[np.empty(0, dtype=np.int64)]
    assert [array.shape for array in (*nobody.targets(), nobody.masked)] == [(0,)] * 3
    assert len(masked.locate(np.empty(0, dtype=np.int64), 1)) == 0


def test_first_and_last_training_items_are_targets_too() -> None:
    data = data_of([4])
    spans = TrainingSpans(data=data, unit="windows", max_length=5, overlap=0.5, masks=masks_of())
    positions = {int(p) for epoch in range(50) for p in spans.locate(np.arange(1), epoch).targets()[1]}
    assert positions == {0, 1, 2, 3}


def test_a_batch_with_masks_by_hand() -> None:
    data = Sequences(100, 2, np.array([0, 6, 9]), np.arange(10, 19), np.array([6, 3]), np.array([6, 3]))
    flags = [[False, True, True], [True, False], [False, False, False, True]]
    spans = Spans(
        users=np.array([0, 1, 0]),
        starts=np.array([2, 0, 0]),
        ends=np.array([5, 2, 4]),
        num_targets=np.array([2, 1, 1]),
        masked=np.concatenate(flags),
    )
    batch = assemble(data, spans, 4, lambda ids: ids)
    # One group: masks do not divide it. The second span is the shortest.
    assert [(group.count, group.length, group.states) for group in batch.groups] == [(3, 4, 2)]
    assert batch.history.tolist() == [0, 17, 0, 0, 12, 0, 0, 0, 10, 11, 12, 0]
    assert batch.masked is not None
    assert batch.masked.int().tolist() == [1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1]
    assert (batch.lengths.tolist(), batch.num_states.tolist()) == ([2, 3, 4], [1, 2, 1])
    assert batch.states.tolist() == [2, 3, 0, 4]
    assert batch.targets.tolist() == [13, 14, 16, 13]
    assert (batch.users.tolist(), batch.positions.tolist()) == ([0, 0, 1, 0], [3, 4, 0, 3])


def batches_of(
    data: Sequences, rank: int, world: int, unit: Unit = "prefixes", sampler: CandidateSampler | None = None
) -> TrainBatches:
    return TrainBatches(
        data=data,
        spans=TrainingSpans(data=data, unit=unit, max_length=5, overlap=0.5, masks=masks_of()),
        batch_size=16,
        seed=3,
        rank=rank,
        world=world,
        planner=ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={}),
        candidates=sampler,
    )


def rows_of(batches: TrainBatches, step: int) -> list[tuple[int, int, int]]:
    """User, position and item of every target of a step."""
    made = batches[step]
    ids = made.batch.targets if made.plan is None else made.plan.union_ids[made.batch.targets]
    return list(zip(made.batch.users.tolist(), made.batch.positions.tolist(), ids.tolist(), strict=True))


@pytest.mark.parametrize("unit", ROWS)
@pytest.mark.parametrize("world", [3, 64])
def test_masks_are_the_same_in_every_world_and_change_with_the_epoch(world: int, unit: Unit) -> None:
    data = sequences(30, 50, 6)
    alone, ranks = batches_of(data, 0, 1, unit), [batches_of(data, rank, world, unit) for rank in range(world)]
    for epoch in (0, 1):
        for batches in (alone, *ranks):
            batches.set_epoch(epoch)
        whole = [rows_of(alone, step) for step in range(len(alone))]
        for step, expected in enumerate(whole):
            assert sorted(row for batches in ranks for row in rows_of(batches, step)) == sorted(expected)
            assert {batches[step].batch.num_global_targets for batches in ranks} == {len(expected)}
        assert all(item == data.items[data.offsets[user] + position] for row in whole for user, position, item in row)
        if epoch == 0:
            before = whole
    assert sorted(row for step in before for row in step) != sorted(row for step in whole for row in step)


@pytest.mark.parametrize("unit", ROWS)
def test_a_step_with_masks_has_the_batch_size_of_targets_on_average(unit: Unit) -> None:
    data = sequences(400, 50, 3)
    batches = batches_of(data, 0, 1, unit)
    sizes = []
    for epoch in range(5):
        batches.set_epoch(epoch)
        sizes += [len(rows_of(batches, step)) for step in range(len(batches) - 1)]
    assert np.mean(sizes) == pytest.approx(16, abs=0.8)


def test_no_masked_item_can_be_read() -> None:
    data = sequences(30, 50, 6, first_item=5)
    spans = TrainingSpans(data=data, unit="prefixes", max_length=5, overlap=0.5, masks=masks_of(0.5, 0.2))
    rows = spans.locate(np.arange(40))
    plan = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={}).plan(
        np.unique(np.concatenate([[0], span_items(data, rows)]))
    )
    batch = assemble(data, rows, 20, partial(positions_of, plan))
    real = torch.from_numpy(real_places(batch))
    assert batch.masked is not None
    assert (batch.history[batch.masked] == 0).all()
    assert not batch.masked[~real].any()
    assert (plan.union_ids[batch.history[real & ~batch.masked]] >= 5).all()


def test_weights_of_candidates_are_one_on_average() -> None:
    """Without in-batch candidates no weight depends on the batch, so masks leave every estimate of a sum unbiased."""
    data = sequences(20, 30, 6)
    sampler = CandidateSampler(
        counts=data.popularity().astype(np.int64),
        num_draws=12,
        popularity_share=0.5,
        popularity_power=0.75,
        in_batch=False,
        seed=9,
    )
    batches = batches_of(data, 0, 1, sampler=sampler)
    weights, steps = np.zeros(data.num_items), 0
    for epoch in range(150):
        batches.set_epoch(epoch)
        for step in range(len(batches)):
            made = batches[step]
            assert made.plan is not None
            assert made.batch.candidates is not None
            assert made.batch.log_weights is not None
            assert made.batch.same_sequence is None
            np.add.at(weights, made.plan.union_ids[made.batch.candidates].numpy(), made.batch.log_weights.exp().numpy())
            steps += 1
    # A weight of a rare item is about 1 / (12 / 60) if it is drawn: its standard error is 2.2 / sqrt(steps).
    assert weights / steps == pytest.approx(np.ones(data.num_items), abs=5 * 2.2 / np.sqrt(steps))
