"""The in-batch contrastive loss against plain sums over rows: values, gradients, chunks, rows without negatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.blocks import losses
from model.blocks.contrastive import contrastive_loss, fused_contrastive_loss
from model.blocks.score_fusion import DynamicFusion

OWN, ALL = [4, 7, 4, 2], [9, 4, 7, 4, 2, 7]  # targets of this rank's rows, and of all ranks' rows
Pairs = list[tuple[Tensor, Tensor]]


def some_pairs() -> tuple[Pairs, Pairs]:
    torch.manual_seed(0)

    def rows(count: int) -> Tensor:
        return torch.randn(count, 3, dtype=torch.float64, requires_grad=True)

    positives = [(rows(len(OWN)), rows(len(OWN))) for _ in range(2)]
    return positives, [(positives[0][0], rows(len(ALL))), (positives[1][0], rows(len(ALL))), (rows(4), rows(len(ALL)))]


def plain_loss(positives: Pairs, negatives: Pairs) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, target in enumerate(OWN):
        right = torch.stack([(query[row] @ candidate[row]).exp() for query, candidate in positives]).sum()
        wrong = [
            (query[row] @ x[other]).exp() for query, x in negatives for other, id_ in enumerate(ALL) if id_ != target
        ]
        total = total - (right / (right + torch.stack(wrong).sum())).log()
    return total


@pytest.mark.parametrize("most", [1, 40, 2**24], ids=["a row at a time", "two rows at a time", "all rows at once"])
def test_the_loss_and_its_gradients_are_those_of_plain_sums(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", most)
    positives, negatives = some_pairs()
    leaves = list({id(x): x for pair in [*positives, *negatives] for x in pair}.values())
    found = contrastive_loss(positives, negatives, torch.tensor(OWN), torch.tensor(ALL))
    expected = plain_loss(positives, negatives)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_a_row_without_negatives_costs_nothing() -> None:
    rows = torch.randn(2, 3, requires_grad=True)
    same = torch.tensor([5, 5])
    loss = contrastive_loss([(rows, rows)], [(rows, rows)], same, same)
    loss.backward()
    assert loss == 0
    assert not rows.grad.any()


def test_without_rows_everything_stays_connected() -> None:
    query, candidates = torch.zeros(0, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    no_targets = torch.tensor([], dtype=torch.int64)
    loss = contrastive_loss([(query, query)], [(query, candidates)], no_targets, torch.arange(4))
    loss.backward()
    assert loss == 0
    assert candidates.grad is not None
    assert not candidates.grad.any()


def test_close_scores_are_told_apart_under_autocast() -> None:
    query, candidates = torch.full((1, 1), 100.0), torch.tensor([[1.0], [0.999]])
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss([(query, candidates[:1])], [(query, candidates)], torch.tensor([0]), torch.arange(2))
    assert float(loss) == pytest.approx(float(torch.tensor(-0.1).exp().log1p()), rel=1e-3)


@pytest.mark.parametrize("most", [1, 40, 2**24], ids=["a row at a time", "two rows at a time", "all rows at once"])
def test_fused_scores_are_contrasted_as_plain_sums_say(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two channels, the first row's target and one candidate lack the second."""
    monkeypatch.setattr(losses, "MAX_LOGITS", most)
    torch.manual_seed(0)
    fusion = DynamicFusion(temperature=0.5, with_ids=False).double()
    torch.nn.init.constant_(fusion.weight, 0.7)

    def rows(count: int, *lacking: int) -> Tensor:
        found = torch.randn(count, 3, dtype=torch.float64)
        found[list(lacking)] = 0
        return found.requires_grad_()

    users = [rows(4), rows(4)]
    own, candidates = [rows(4), rows(4, 0)], [rows(6), rows(6, 2)]

    def score(row: int, vectors: list[Tensor], other: int) -> Tensor:
        scores = [user[row] @ vector[other] for user, vector in zip(users, vectors, strict=True)]
        if not vectors[1][other].any():
            return scores[0]
        weights = (fusion.weight * 0.5 * torch.stack(scores)).softmax(dim=0)
        return (weights * torch.stack(scores)).sum()

    expected = torch.zeros((), dtype=torch.float64)
    for row, target in enumerate(OWN):
        right = score(row, own, row).exp()
        wrong = [score(row, candidates, other).exp() for other, id_ in enumerate(ALL) if id_ != target]
        expected = expected - (right / (right + torch.stack(wrong).sum())).log()
    found = fused_contrastive_loss(fusion, users, own, candidates, torch.tensor(OWN), torch.tensor(ALL))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    leaves = [*users, *own, *candidates, fusion.weight]
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
