"""The channel loss, popularity, length groups, dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.item_plan import ItemPlan
from model.blocks import losses
from model.blocks.losses import channel_cross_entropy, sampled_cross_entropy
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case


def test_channel_loss_is_the_weighted_sum_of_softmaxes() -> None:
    users = [torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)]
    items = [torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)]
    targets = torch.tensor([0, 6, 3, 3])
    loss = channel_cross_entropy(users, items, (Channel("a", 1.0), Channel("b", 0.3)), targets, 10)
    expected = 0.0
    for user, item, weight in zip(users, items, (1.0, 0.3), strict=True):
        for row, target in zip((user @ item.T).numpy(), targets.tolist(), strict=True):
            expected += weight * (np.log(np.exp(row).sum()) - row[target])
    np.testing.assert_allclose(loss.item(), expected / 10, rtol=1e-12)


def test_logits_are_float32_under_autocast_and_for_half_vectors() -> None:
    user, item = torch.randn(5, 64), torch.randn(9, 64)
    targets, channels = torch.arange(5), (Channel("a", 1.0),)
    exact = channel_cross_entropy([user], [item], channels, targets, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(channel_cross_entropy([user], [item], channels, targets, 5), exact)
    assert channel_cross_entropy([user.bfloat16()], [item.bfloat16()], channels, targets, 5).dtype == torch.float32


@pytest.mark.parametrize("num_items", [0, 9])
def test_no_targets_give_a_connected_zero(num_items: int) -> None:
    user, item = torch.randn(0, 3, requires_grad=True), torch.randn(num_items, 3, requires_grad=True)
    loss = channel_cross_entropy([user], [item], (Channel("a", 1.0),), torch.zeros(0, dtype=torch.int64), 0)
    loss.backward()
    assert loss.item() == 0
    assert user.grad is not None
    assert item.grad is not None
    assert not item.grad.any()


def test_popularity_ranks_by_count() -> None:
    model = build_model(case.config("popularity"), CatalogueInfo(num_items=4))
    system = RecommenderSystem(None, model)
    assert not list(system.parameters())
    assert model.needs.popularity
    assert not model.needs.features
    assert not model.needs.id_rows
    counts = torch.tensor([[3.0], [0.0], [7.0], [5.0]])
    plan = ItemPlan(union_ids=torch.arange(4), num_roles=4, popularity=counts, is_catalogue=True)
    batch = case.batch([[3], [0]], [0, 1])
    items = system.item_rows(plan)
    scores = system.encode_users(items, batch) @ system.encode_items(items).T
    assert scores.argsort(dim=1, descending=True).tolist() == [[2, 3, 0, 1]] * 2
    assert case.loss(system, plan, batch).isfinite()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_the_rate(rate: float) -> None:
    x = torch.ones(1001, 333, requires_grad=True)
    dropped = dropout(x, rate, training=True)
    kept = dropped != 0
    deviation = (rate * (1 - rate) / x.numel()) ** 0.5
    assert abs(kept.double().mean().item() - (1 - rate)) < 5 * deviation
    assert torch.allclose(dropped[kept], torch.tensor(1 / (1 - rate)), rtol=1e-3)
    # No bit of the random words is stuck: neighbours, and elements of one word, are independent.
    flat = kept.flatten().double() - (1 - rate)
    for lag in (1, 2, 3, 4):
        assert abs((flat[lag:] * flat[:-lag]).mean().item()) < 5 * rate * (1 - rate) / x.numel() ** 0.5
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)
    torch.manual_seed(3)
    again = dropout(x, rate, training=True)
    torch.manual_seed(3)
    assert torch.equal(again, dropout(x, rate, training=True))
    assert dropout(x, rate, training=False) is x


@pytest.mark.parametrize("max_logits", [2**24, 7])
def test_the_parts_are_each_channels_own_cross_entropy(monkeypatch: pytest.MonkeyPatch, max_logits: int) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    torch.manual_seed(0)
    users = [torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    items = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    channels = (Channel("id", 1.0), Channel("text", 0.3, is_modality=True))
    targets = torch.tensor([0, 3, 3, 1, 2])
    expected = [
        torch.nn.functional.cross_entropy(user @ item.T, targets, reduction="sum").item()
        for user, item in zip(users, items, strict=True)
    ]
    full, sampled = list[Tensor](), list[Tensor]()
    loss = channel_cross_entropy(users, items, channels, targets, 10, parts=full)
    everything = torch.arange(4), torch.zeros(4, dtype=torch.float64)
    estimate = sampled_cross_entropy(users, items, channels, targets, *everything, 10, parts=sampled)
    for total, parts in ((loss, full), (estimate, sampled)):
        assert [part.item() for part in parts] == pytest.approx(expected, rel=1e-12)
        assert not any(part.requires_grad for part in parts)
        assert total.item() == pytest.approx((parts[0] + 0.3 * parts[1]).item() / 10, rel=1e-12)
    assert torch.equal(loss, channel_cross_entropy(users, items, channels, targets, 10))
