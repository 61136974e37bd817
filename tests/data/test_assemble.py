"""A batch unpacked by its documented layout holds literal slices of the sequences."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from data.sampling.batches import assemble, span_items
from data.sampling.item_planner import ItemPlanner, positions_of
from data.sampling.spans import Spans, TrainingSpans, spans_before
from data.sequences import Targets
from tests.data.packed_layout import contexts, real_places
from tests.data.test_batches import sequences
from tests.sequences import Sequences


def spans_of(rows: list[tuple[int, int, int, int]]) -> Spans:
    users, starts, ends, num_targets = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return Spans(users=users, starts=starts, ends=ends, num_targets=num_targets)


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    return [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Sequences, list[tuple[int, int, int, int]]]:
    """Sequences of up to 40 items from 5 on, so that a pad is no item; spans of any kind, in any order, some twice."""
    lengths = draw(st.lists(st.one_of(st.integers(1, 9), st.integers(30, 40)), min_size=1, max_size=5))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = 5 + np.random.default_rng(draw(st.integers(0, 1000))).integers(0, 90, offsets[-1])
    data = Sequences(95, len(lengths), offsets, items, np.array(lengths), np.array(lengths))
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        user = draw(st.integers(0, len(lengths) - 1))
        end = draw(st.integers(1, lengths[user]))
        start = draw(st.integers(0, end - 1))
        num_targets = draw(st.one_of(st.just(end - start), st.just(1), st.integers(1, end - start)))
        rows.append((user, start, end, num_targets))
    return data, rows


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_batch_holds_what_its_spans_see_and_predict(case: tuple[Sequences, list[tuple[int, int, int, int]]]) -> None:
    data, rows = case
    expected = []
    for user, start, end, num_targets in rows:
        sequence = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
        for position in range(end - num_targets + 1, end + 1):
            target = sequence[position] if position < len(sequence) else -1
            expected.append((user, position, target, sequence[start:position]))

    def to_position(ids: np.ndarray) -> np.ndarray:
        assert ids.dtype == np.int64
        assert (ids >= 5).all(), "a pad, or a target that is not there, was looked up"
        return ids + 1000

    batch = assemble(data, spans_of(rows), 77, to_position)
    found = [[item - 1000 for item in items] for items in contexts(batch)]
    targets = [target - 1000 if target >= 0 else target for target in batch.targets.tolist()]
    assert list(zip(batch.users.tolist(), batch.positions.tolist(), targets, found, strict=True)) == expected
    assert len(batch.lengths) == len(rows)
    assert batch.num_global_targets == 77
    assert {tensor.dtype for tensor in tensors_of(batch)} == {torch.int64}
    assert real_places(batch).tolist() == (batch.history > 0).tolist()


def test_a_batch_by_hand() -> None:
    data = Sequences(100, 2, np.array([0, 6, 9]), np.arange(10, 19), np.array([6, 3]), np.array([6, 3]))
    batch = assemble(data, spans_of([(0, 2, 5, 2), (1, 0, 3, 3), (0, 0, 2, 2)]), 7, lambda ids: ids)
    # Whole sequences first, the shorter before the longer: the third span, the second, and in a group apart the first.
    assert [(group.count, group.length, group.states) for group in batch.groups] == [(2, 3, 3), (1, 3, 2)]
    assert batch.history.tolist() == [10, 11, 0, 16, 17, 18, 12, 13, 14]
    assert (batch.lengths.tolist(), batch.num_states.tolist()) == ([2, 3, 3], [2, 3, 2])
    assert batch.states.tolist() == [6, 7, 3, 4, 5, 0, 1]
    assert batch.targets.tolist() == [14, 15, 17, 18, -1, 11, 12]
    assert batch.positions.tolist() == [4, 5, 1, 2, 3, 1, 2]
    assert batch.users.tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert contexts(batch)[:3] == [[12, 13], [12, 13, 14], [16]]


@pytest.mark.parametrize("split", ["valid", "test", "next"])
def test_targets_to_be_ranked_come_in_their_order_with_the_latest_items(split: str) -> None:
    data = sequences(30, 50, 4)
    targets = Targets(data, split)  # type: ignore[arg-type]
    users, positions = targets.locate(np.arange(len(targets)))
    batch = assemble(data, spans_before(users, positions, 5), len(users), lambda ids: ids)
    assert (batch.users.tolist(), batch.positions.tolist()) == (users.tolist(), positions.tolist())
    assert (batch.targets < 0).all() == (split == "next")
    assert (batch.num_states == 1).all()
    for user, position, target, seen in zip(users, positions, batch.targets.tolist(), contexts(batch), strict=True):
        sequence = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
        assert seen == sequence[max(0, position - 5) : position]
        assert target == (-1 if split == "next" else sequence[position])


@pytest.mark.parametrize("unit", ["windows", "prefixes"])
def test_indices_are_positions_of_the_plan(unit: str) -> None:
    first_item = 2**33 - 60
    data = sequences(30, 50, 6, first_item)
    spans = TrainingSpans(data=data, unit=unit, max_length=4, overlap=0.5).locate(np.arange(20))  # type: ignore[arg-type]
    plain = assemble(data, spans, 20, lambda ids: ids)
    assert int(plain.targets.min()) >= first_item
    roles = np.unique(np.concatenate([span_items(data, spans), plain.targets.numpy()]))
    plan = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={}).plan(roles)
    batch = assemble(data, spans, 20, partial(positions_of, plan))
    union = plan.union_ids.tolist()
    assert [[union[place] for place in seen] for seen in contexts(batch)] == contexts(plain)
    assert torch.equal(plan.union_ids[batch.targets], plain.targets)
    real = torch.from_numpy(real_places(batch))
    assert torch.equal(plan.union_ids[batch.history[real]], plain.history[real])


def test_an_empty_share_is_an_empty_batch() -> None:
    data = sequences(30, 50, 6)
    plan = ItemPlanner(needs=ItemNeeds(), num_items=data.num_items, graph=None, features={}).plan(
        np.empty(0, dtype=np.int64)
    )
    batch = assemble(data, spans_of([]), 3, partial(positions_of, plan))
    assert contexts(batch) == []
    assert (batch.groups, batch.num_global_targets) == ((), 3)
    assert {(tensor.dtype, tensor.shape) for tensor in tensors_of(batch)} == {(torch.int64, (0,))}


def test_a_moved_batch_is_the_same_batch() -> None:
    data = sequences(30, 50, 6)
    batch = assemble(
        data,
        TrainingSpans(data=data, unit="windows", max_length=4, overlap=0.5).locate(np.arange(9)),
        20,
        lambda ids: ids,
    )
    moved: Batch = batch.map(lambda tensor: tensor.clone())
    assert (moved.groups, moved.num_global_targets, moved.candidates) == (batch.groups, 20, None)
    assert contexts(moved) == contexts(batch)
    assert moved.history is not batch.history
