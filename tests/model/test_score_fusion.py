"""Fused scores and their losses against the formulas, pair by pair, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.blocks import losses
from model.blocks.fused_loss import SampledColumns
from model.blocks.fused_loss import fused_loss as loss_of
from model.blocks.gbce import GBCE
from model.blocks.losses import RowLossOf, SoftmaxRows
from model.blocks.repeats import SeenItems
from model.blocks.score_fusion import DynamicFusion, fused_scores

NUM_ITEMS, WIDTH, TEMPERATURE = 13, 4, 0.2


def vectors(rows: int, channels: int = 3) -> list[Tensor]:
    """Per channel [rows, WIDTH], leaves; items 1 and 5 lack the last channel, item 5 all but the first."""
    found = [torch.randn(rows, WIDTH, dtype=torch.float64) for _ in range(channels)]
    if rows == NUM_ITEMS:
        found[-1][[1, 5]] = 0
        found[-2][5] = 0
    return [x.requires_grad_() for x in found]


def fusion(with_ids: bool = True, weight: float = 0.7) -> DynamicFusion:
    made = DynamicFusion(temperature=TEMPERATURE, with_ids=with_ids).double()
    torch.nn.init.constant_(made.weight, weight)
    return made


def one_score(users: list[Tensor], items: list[Tensor], user: int, item: int, weight: Tensor, with_ids: bool) -> Tensor:
    """The score of one pair, as the docstring of `DynamicFusion` has it."""
    scores = [u[user] @ v[item] for u, v in zip(users, items, strict=True)]
    has = [bool((v[item] != 0).any()) for v in items]
    first = 1 if with_ids else 0
    there = [s for s, is_there in zip(scores[first:], has[first:], strict=True) if is_there]
    exponentials = [(weight * TEMPERATURE * s).exp() for s in there]
    fused = sum(e * s for e, s in zip(exponentials, there, strict=True)) / sum(exponentials) if there else 0 * scores[0]
    count = len(scores) - first
    return (scores[0] + count * fused) / (count + 1) if with_ids else fused


def every_score(users: list[Tensor], items: list[Tensor], weight: Tensor, with_ids: bool = True) -> Tensor:
    rows = range(len(users[0]))
    return torch.stack(
        [torch.stack([one_score(users, items, b, i, weight, with_ids) for i in range(len(items[0]))]) for b in rows]
    )


@pytest.mark.parametrize("with_ids", [True, False])
def test_each_score_is_that_of_the_formula(with_ids: bool) -> None:
    users, items, made = vectors(5), vectors(NUM_ITEMS), fusion(with_ids)
    found = fused_scores(made, users, items)
    expected = every_score(users, items, made.weight, with_ids)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inputs = [*users, *items, made.weight]
    cotangent = torch.randn_like(found)
    for actual, wanted in zip(
        torch.autograd.grad(found, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-12)


def test_the_score_of_a_pair_does_not_depend_on_other_items() -> None:
    users, items, made = vectors(3), vectors(NUM_ITEMS), fusion()
    whole = fused_scores(made, users, items)
    alone = fused_scores(made, users, [item[4:7] for item in items])
    torch.testing.assert_close(alone, whole[:, 4:7], rtol=1e-13, atol=1e-13)


TARGETS = torch.tensor([3, 1, 5, 3, 12, 0])
# Items that each row has seen; row 0 has seen its target, and the second entry of row 1 is padding.
SEEN = torch.tensor([[3, 4], [2, 2], [0, 12], [9, 5], [1, 3], [6, 8]])
COUNTS = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
SAME = torch.tensor([[0, 1], [1, 0], [2, 2], [3, 4], [4, 3], [5, 5]])


CALIBRATED = GBCE(num_items=NUM_ITEMS, draws=5, calibration=0.6)


def naive_loss(
    users: list[Tensor], items: list[Tensor], weight: Tensor, gain: Tensor, sampled: Any, is_gbce: bool
) -> Tensor:
    """The sum over rows, term by term."""
    scores = every_score(users, items, weight)
    gains = torch.zeros_like(scores).scatter_add(1, SEEN, gain * COUNTS.double())
    scores = scores + gains
    total = torch.zeros((), dtype=torch.float64)
    for row, target in enumerate(TARGETS.tolist()):
        weights = dict.fromkeys(range(NUM_ITEMS), torch.ones((), dtype=torch.float64))
        if sampled is not None:
            weights = dict(zip(sampled.candidates.tolist(), sampled.log_weights.exp(), strict=True))
            near = {int(TARGETS[other]) for other in SAME[row].tolist()}
            weights |= dict.fromkeys(near, torch.ones((), dtype=torch.float64))
        weights.pop(target, None)
        positive = scores[row, target]
        if is_gbce:
            negatives = sum(w * torch.sigmoid(-scores[row, j]).log() for j, w in weights.items())
            total = total - (CALIBRATED.beta * torch.sigmoid(positive).log() + CALIBRATED.alpha * negatives) / 6
        else:
            others = sum(w * scores[row, j].exp() for j, w in weights.items())
            total = total + (positive.exp() + others).log() - positive
    return total / 7


@pytest.mark.parametrize("max_logits", [2**24, 40], ids=["at once", "in chunks"])
@pytest.mark.parametrize("is_sampled", [False, True], ids=["full", "sampled"])
@pytest.mark.parametrize("is_gbce", [False, True], ids=["softmax", "gBCE"])
def test_the_loss_is_that_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, is_gbce: bool, is_sampled: bool, max_logits: int
) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    users, items, made = vectors(len(TARGETS)), vectors(NUM_ITEMS), fusion()
    gain = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    sampled = None
    if is_sampled:
        log_weights = torch.tensor([0.3, -1.0, 0.0, 2.0, -0.5, 0.9], dtype=torch.float64)
        sampled = SampledColumns(
            candidates=torch.tensor([12, 3, 1, 7, 5, 0]), log_weights=log_weights, same_sequence=SAME
        )
    parts: list[Tensor] = []
    seen = SeenItems(SEEN, COUNTS, [gain])
    row_loss: RowLossOf = CALIBRATED.row_loss if is_gbce else SoftmaxRows
    found = loss_of(row_loss, users, items, made, TARGETS, 7, sampled, seen, parts)
    expected = naive_loss(users, items, made.weight, gain, sampled, is_gbce)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts[0], 7 * expected.detach(), rtol=1e-12, atol=0)
    inputs = [*users, *items, made.weight, gain]
    for actual, wanted in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-12)


def test_with_every_item_as_candidate_it_is_the_full_softmax() -> None:
    users, items, made = vectors(len(TARGETS)), vectors(NUM_ITEMS), fusion()
    everything = SampledColumns(
        candidates=torch.randperm(NUM_ITEMS), log_weights=torch.zeros(NUM_ITEMS, dtype=torch.float64)
    )
    full = loss_of(SoftmaxRows, users, items, made, TARGETS, 6)
    sampled = loss_of(SoftmaxRows, users, items, made, TARGETS, 6, everything)
    torch.testing.assert_close(sampled, full, rtol=1e-13, atol=0)


@pytest.mark.parametrize("is_sampled", [False, True], ids=["full", "sampled"])
def test_without_targets_the_loss_is_zero_and_connected(is_sampled: bool) -> None:
    users, items, made = vectors(0), vectors(NUM_ITEMS), fusion()
    sampled = SampledColumns(candidates=torch.tensor([2, 4]), log_weights=torch.zeros(2)) if is_sampled else None
    loss = loss_of(SoftmaxRows, users, items, made, torch.zeros(0, dtype=torch.int64), 3, sampled)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, [*items, made.weight]):
        assert not gradient.any()
