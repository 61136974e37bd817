"""BERT4Rec: what a mask sees, that it sees the same in training as in a ranking, padding, and the output bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import Batch
from model.blocks.repeats import seen_items
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case

ENDS = ["oldest", "latest"]


def system_of(dropout: float = 0.0, learn_repeats: bool = False, **knobs: Any) -> RecommenderSystem:
    config = ModelConfig(
        name="bert4rec", dim=case.DIM, num_heads=2, max_length=case.MAX_LENGTH, dropout=dropout, init_std=0.4,
        learn_repeats=learn_repeats, bert4rec=knobs,
    )  # fmt: skip
    torch.manual_seed(0)
    model = case.shaken(build_model(config, case.catalogue(2).info).double())
    return RecommenderSystem(case.Rows(np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))), model)


def users_of(system: RecommenderSystem, batch: Batch) -> Tensor:
    items = system.item_rows(case.plan(case.catalogue(2), system.recommender.needs))
    return system.encode_users(items, batch)


def some_rows() -> tuple[list[list[int]], list[list[int]]]:
    """Rows of 1 to max_length + 1 items, and their masked places: one, several, all."""
    sequences, targets = case.histories()
    rows = [[*sequence, target] for sequence, target in zip(sequences, targets, strict=True)]
    rng = np.random.default_rng(5)
    masks = [sorted(rng.choice(len(row), rng.integers(1, len(row) + 1), replace=False).tolist()) for row in rows]
    masks[0] = list(range(len(rows[0])))
    return [[3], *rows], [[0], *masks]


@pytest.mark.parametrize("zero", ENDS)
def test_neither_padding_nor_the_grouping_changes_a_state(zero: str) -> None:
    system = system_of(position_zero=zero)
    rows, masks = some_rows()
    alone = [users_of(system, case.masked([row], [places])) for row, places in zip(rows, masks, strict=True)]
    for sizes, pad in (([len(rows)], 0), ([len(rows)], 7), ([5, 4, 4], 3)):
        together = users_of(system, case.masked(rows, masks, pad, group_sizes=sizes))
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)
    sequences, targets = case.histories()
    alone = [users_of(system, case.batch([s], [t])) for s, t in zip(sequences, targets, strict=True)]
    for pad in (0, 7):
        together = users_of(system, case.batch(sequences, targets, pad))
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("zero", ENDS)
def test_a_mask_at_the_end_of_a_row_is_what_follows_an_input_in_a_ranking(zero: str) -> None:
    system = system_of(position_zero=zero)
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    sequences, targets = case.histories()
    rows = [[*sequence, target] for sequence, target in zip(sequences, targets, strict=True)]
    trained, ranked = case.masked(rows, [[len(s)] for s in sequences]), case.batch(sequences, targets)
    torch.testing.assert_close(users_of(system, trained), users_of(system, ranked), rtol=1e-12, atol=1e-14)
    losses = [case.loss(system, plan, batch) for batch in (trained, ranked)]
    gradients = [torch.autograd.grad(loss, list(system.parameters())) for loss in losses]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_mask_sees_both_sides_and_not_what_it_hides() -> None:
    system = system_of()
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    base = users_of(system, case.masked([[1, 2, 3, 4]], [[1]]))
    for other in ([9, 2, 3, 4], [1, 2, 9, 4], [1, 2, 3, 9], [1, 2, 4, 3]):
        assert not torch.allclose(users_of(system, case.masked([other], [[1]])), base), other
    torch.testing.assert_close(users_of(system, case.masked([[1, 9, 3, 4]], [[1]])), base, rtol=0, atol=0)
    # Nor through the item's row: only the unmasked items' rows enter a state.
    users_of(system, case.masked([[1, 2, 3, 4]], [[1]])).sum().backward()
    weight = system.table.weight.grad  # type: ignore[union-attr]
    assert weight is not None
    assert weight.any(dim=1).nonzero().flatten().tolist() == [1, 3, 4]
    assert plan.num_roles == case.NUM_ITEMS


def test_positions_from_the_latest_item_are_those_of_the_way_back() -> None:
    """Only positions tell items apart in a bidirectional tower, so that reversing a row exchanges the two ends."""
    rows, masks = some_rows()
    latest = users_of(system_of(position_zero="latest"), case.masked(rows, masks))
    back = [row[::-1] for row in rows]
    places = [[len(row) - 1 - place for place in chosen][::-1] for row, chosen in zip(rows, masks, strict=True)]
    order = np.concatenate([n - 1 - np.arange(n) for n in map(len, masks)])
    order += np.repeat(np.cumsum([0, *map(len, masks)])[:-1], [len(chosen) for chosen in masks])
    oldest = users_of(system_of(position_zero="oldest"), case.masked(back, places))[order]
    torch.testing.assert_close(latest, oldest, rtol=1e-9, atol=1e-12)


def test_windows_are_no_rows_of_it() -> None:
    with pytest.raises(AssertionError, match="one state only"):
        users_of(system_of(), case.windows([[1, 2, 3]], [[2, 3, 4]]))


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_output_bias_is_added_to_scores(has_bias: bool) -> None:
    system = system_of(output_bias=has_bias)
    model = system.recommender
    items = system.item_rows(case.plan(case.catalogue(2), model.needs))
    users, vectors = users_of(system, case.batch(*case.histories())), system.encode_items(items)
    width = case.DIM + has_bias
    assert (users.shape[1], vectors.shape[1]) == (width, width)
    table = system.table.weight  # type: ignore[union-attr]
    bias = model.output_bias if has_bias else torch.zeros(case.NUM_ITEMS)
    expected = users[:, : case.DIM] @ table.T + bias
    torch.testing.assert_close(users @ vectors.T, expected, rtol=1e-12, atol=1e-14)
    assert sum(p.numel() == case.NUM_ITEMS for p in model.parameters()) == has_bias


def test_a_sampled_step_reads_the_biases_of_its_items_only() -> None:
    rows, masks = [[1, 2, 3], [4, 1]], [[1], [0, 1]]
    found = []
    for roles in (None, [0, 1, 2, 3, 4, 6, 8]):
        system = system_of()
        plan = case.plan(case.catalogue(2), system.recommender.needs, roles)
        batch = case.masked(rows, masks, item_plan=plan)
        ids = torch.tensor([0, 2, 6, 8])
        batch.candidates = torch.searchsorted(plan.union_ids, ids)
        batch.log_weights = torch.tensor([0.3, -0.2, 0.1, 0.9])
        loss = case.loss(system, plan, batch)
        gradients = torch.autograd.grad(loss, list(system.parameters()))
        found.append([loss, *gradients])
        names = [name for name, _ in system.named_parameters()]
        bias = gradients[names.index("recommender.output_bias")]
        assert bias.nonzero().flatten().tolist() == [0, 1, 2, 4, 6, 8]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_sampled_with_every_item_it_is_the_full_softmax() -> None:
    system = system_of()
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    batch = case.masked(*some_rows())
    full = torch.autograd.grad(case.loss(system, plan, batch), list(system.parameters()))
    batch.candidates, batch.log_weights = torch.arange(case.NUM_ITEMS), torch.zeros(case.NUM_ITEMS)
    sampled = torch.autograd.grad(case.loss(system, plan, batch), list(system.parameters()))
    for one, other in zip(full, sampled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_a_mask_has_seen_are_the_unmasked_items_of_its_row() -> None:
    rows, masks = some_rows()
    batch = case.masked(rows, masks, pad=9, group_sizes=[5, 4, 4])
    found = seen_items(batch, torch.ones(1))
    expected = [
        sorted({item for place, item in enumerate(row) if place not in places})
        for row, places in zip(rows, masks, strict=True)
        for _ in places
    ]
    held = [
        sorted(int(item) for item, count in zip(items, counts, strict=True) if count)
        for items, counts in zip(found.items, found.counts, strict=True)
    ]
    assert held == expected
    assert [] in held, "a row of which every item is masked"


@pytest.mark.parametrize("make", [case.masked, case.windows])
def test_an_empty_batch_keeps_every_parameter_connected(make: Any) -> None:
    system = system_of(dropout=0.3, learn_repeats=True).train()
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    case.loss(system, plan, make([], [])).backward()
    assert all(p.grad is not None and not p.grad.any() for p in system.parameters())


@pytest.mark.parametrize("zero", ENDS)
def test_every_parameter_has_a_gradient(zero: str) -> None:
    system = system_of(learn_repeats=True, position_zero=zero)
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    case.loss(system, plan, case.masked(*some_rows())).backward()
    assert all(p.grad is not None and p.grad.any() for p in system.parameters())
