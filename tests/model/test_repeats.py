"""What an item gains where the user's input holds it: against plain sums over rows, float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.blocks import losses
from model.blocks.losses import channel_cross_entropy, sampled_cross_entropy
from model.blocks.repeats import RepeatGains, SeenItems, seen_items
from model.protocol import CatalogueInfo, Channel
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case

CHANNELS = (Channel("id", 1.0), Channel("image", 0.3))
TARGETS = [0, 6, 3, 3, 11]
SEEN = [[6, 2], [6], [3, 5, 3, 3], [0, 1, 2, 7], []]  # of a row, its own target or not, an item twice, nothing
CANDIDATES = [11, 6, 2, 0, 4, 9]


def a_case() -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Users, items and gains, leaves; targets."""
    users, items = ([torch.randn(n, d, dtype=torch.float64) for d in (3, 2)] for n in (len(TARGETS), 12))
    gains = torch.tensor([-1.5, 0.8], dtype=torch.float64, requires_grad=True)
    return [u.requires_grad_() for u in users], [i.requires_grad_() for i in items], gains, torch.tensor(TARGETS)


def seen_of(gains: Tensor) -> SeenItems:
    """`SEEN` padded with copies and with items that are not seen."""
    items = [(row + [row[0] if row else 9] * 4)[:4] for row in SEEN]
    counts = [[float(n < len(row) and row.index(row[n]) == n) for n in range(4)] for row in SEEN]
    return SeenItems(torch.tensor(items), torch.tensor(counts), gains.unbind())


def plain_loss(
    users: list[Tensor], items: list[Tensor], gains: Tensor, columns: list[int], log_weights: Tensor
) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for user, item, channel, gain in zip(users, items, CHANNELS, gains, strict=True):
        for row, (target, seen) in enumerate(zip(TARGETS, SEEN, strict=True)):
            scores = {j: user[row] @ item[j] + gain * (j in seen) for j in {*columns, target}}
            others = [(scores[j] + w).exp() for j, w in zip(columns, log_weights, strict=True) if j != target]
            total = total + channel.weight * (sum(others, scores[target].exp()).log() - scores[target])
    return total


def check(
    loss: Tensor, expected: Tensor, leaves: tuple[list[Tensor], list[Tensor], Tensor], tolerance: float = 1e-12
) -> None:
    every = [*leaves[0], *leaves[1], leaves[2]]
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    found, wanted = torch.autograd.grad(loss, every), torch.autograd.grad(expected, every)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("max_logits", [2**24, 25, 1])
def test_the_full_softmax_gains(max_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    *leaves, targets = a_case()
    loss = channel_cross_entropy(*leaves[:2], CHANNELS, targets, 1, seen_of(leaves[2]))
    check(loss, plain_loss(*leaves, list(range(12)), torch.zeros(12)), tuple(leaves))


@pytest.mark.parametrize("max_logits", [2**24, 15, 1])
def test_the_sampled_softmax_gains(max_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    *leaves, targets = a_case()
    weights = torch.randn(len(CANDIDATES), dtype=torch.float64)
    loss = sampled_cross_entropy(
        *leaves[:2], CHANNELS, targets, torch.tensor(CANDIDATES), weights, 1, seen=seen_of(leaves[2])
    )
    check(loss, plain_loss(*leaves, CANDIDATES, weights), tuple(leaves))


def test_sampled_with_every_item_it_is_the_full_softmax() -> None:
    *leaves, targets = a_case()
    seen = seen_of(leaves[2])
    full = channel_cross_entropy(*leaves[:2], CHANNELS, targets, 1, seen)
    sampled = sampled_cross_entropy(*leaves[:2], CHANNELS, targets, torch.randperm(12), torch.zeros(12), 1, None, seen)
    check(sampled, full, tuple(leaves))


@pytest.mark.parametrize("pad", [0, 3])
def test_what_was_seen_is_the_prefix_of_each_target(pad: int) -> None:
    rng = np.random.default_rng(2)
    sequences = [[int(i) for i in rng.integers(0, 4, n)] for n in (6, 5, 6, 6, 4, 3)]
    targets = [[int(i) for i in rng.integers(0, 4, n)] for n in (6, 5, 2, 3, 1, 1)]
    batch = case.windows(sequences, targets, pad, group_sizes=[2, 2, 2])
    batch.states = batch.states[order := torch.randperm(len(batch.states))]
    found = seen_items(batch, torch.ones(2))
    expected = case.prefixes_of(sequences, targets)[0]
    for number, items, counts in zip(order.tolist(), found.items, found.counts, strict=True):
        held = [int(i) for i, count in zip(items, counts, strict=True) if count]
        assert sorted(held) == sorted(set(expected[number]))
    asked = torch.randint(4, (len(order),))
    holds = [float(int(item) in expected[n]) for item, n in zip(asked, order.tolist(), strict=True)]
    assert found.holds(asked).tolist() == holds


def systems() -> list[Callable[[], RecommenderSystem]]:
    def sasrec() -> RecommenderSystem:
        table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
        model = build_model(case.config("sasrec", learn_repeats=True), CatalogueInfo(num_items=case.NUM_ITEMS)).double()
        return RecommenderSystem(case.Rows(table), case.shaken(model))

    def mdsrec() -> RecommenderSystem:
        cat = case.catalogue(2)
        model = build_model(case.config(mdsrec={"gumbel_noise": False}, learn_repeats=True), cat.info).double()
        table = np.random.default_rng(0).normal(size=(case.NUM_ITEMS, case.DIM))
        return RecommenderSystem(case.Rows(table), case.shaken(model))

    return [sasrec, mdsrec]


@pytest.mark.parametrize("make", systems())
def test_a_system_learns_them_and_ranks_by_them(make: Callable[[], RecommenderSystem]) -> None:
    system = make()
    repeats = system.recommender.repeats
    assert repeats is not None
    with torch.no_grad():
        repeats.weight.mul_(9)
    plan = case.plan(case.catalogue(2), system.recommender.needs)
    histories, targets = case.histories()
    targets[:3] = [history[-1] for history in histories[:3]]
    batch = case.batch(histories, targets)
    loss = case.loss(system, plan, batch)
    loss.backward()
    channels, gains = system.recommender.channels, repeats.weight.detach().numpy()
    items = system.item_rows(plan)
    with torch.no_grad():
        pairs = zip(system.recommender.user_vectors(items, batch), system.recommender.item_vectors(items), strict=True)
        scores = [(u @ i.T).numpy() for u, i in pairs]
    held = np.array([[i in history for i in range(case.NUM_ITEMS)] for history in histories])

    def expected(gains: Any) -> float:
        total = 0.0
        for score, gain, channel in zip(scores, gains, channels, strict=True):
            y = score + gain * held
            total += channel.weight * (np.log(np.exp(y).sum(1)) - y[np.arange(len(targets)), targets]).mean()
        return total

    assert loss.item() == pytest.approx(expected(gains), rel=1e-6)
    for number in range(len(gains)):
        along = np.eye(len(gains))[number]
        slope = case.slope(lambda h, along=along: expected(gains + h * along))
        assert repeats.weight.grad is not None
        assert float(repeats.weight.grad[number]) == pytest.approx(slope, rel=1e-4)
    weights = np.array([channel.weight for channel in channels])
    np.testing.assert_allclose(system.recommender.repeat_gains().numpy(), weights * gains, rtol=1e-6)


def test_an_empty_share_still_reaches_the_gains() -> None:
    gains = RepeatGains(1)
    batch = case.windows([], [])
    user, item = torch.zeros(0, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    channel_cross_entropy([user], [item], CHANNELS[:1], batch.targets, 1, seen_items(batch, gains.weight)).backward()
    assert gains.weight.grad is not None
    assert not gains.weight.grad.any()


def test_without_them_nothing_is_gained() -> None:
    model = build_model(case.config("sasrec"), CatalogueInfo(num_items=case.NUM_ITEMS))
    assert model.repeats is None
    assert model.repeat_gains().tolist() == [0.0]
    assert not any("repeats" in name for name in model.state_dict())
