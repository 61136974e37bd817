"""Rows of all ranks and their gradients, against one process that holds all rows."""

from __future__ import annotations

import pytest
import torch

from distributed.gathering import rows_of_all_ranks
from distributed.world import World, world_of_one
from model.blocks.contrastive import contrastive_loss
from tests.distributed.spawn import run_ranks

WIDTH = 3


def some_rows(counts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, candidates and targets of all ranks' rows; some targets are equal."""
    torch.manual_seed(0)
    rows = torch.randn(2, sum(counts), WIDTH, dtype=torch.float64)
    return rows[0], rows[1], torch.arange(sum(counts)) % 4


def check(world: World, counts: tuple[int, ...]) -> None:
    queries, candidates, targets = (x.split(counts)[world.rank].clone() for x in some_rows(counts))
    queries.requires_grad_()
    candidates.requires_grad_()
    all_targets, all_candidates = rows_of_all_ranks(targets), rows_of_all_ranks(candidates)
    loss = contrastive_loss([(queries, candidates)], [(queries, all_candidates)], targets, all_targets)
    loss.backward()

    whole_queries, whole_candidates, whole_targets = some_rows(counts)
    whole_queries.requires_grad_()
    whole_candidates.requires_grad_()
    whole = contrastive_loss(
        [(whole_queries, whole_candidates)], [(whole_queries, whole_candidates)], whole_targets, whole_targets
    )
    whole.backward()
    assert torch.equal(all_targets, whole_targets)
    assert torch.equal(all_candidates, whole_candidates)
    assert world.sum(float(loss.detach())) == pytest.approx(float(whole.detach()), rel=1e-12)
    for own, all_of in ((queries, whole_queries), (candidates, whole_candidates)):
        torch.testing.assert_close(own.grad, all_of.grad.split(counts)[world.rank], rtol=1e-12, atol=1e-15)


def cases_of_three(world: World) -> None:
    for counts in ((3, 5, 2), (4, 0, 3), (0, 6, 0), (0, 0, 0)):
        check(world, counts)


def test_a_loss_over_the_rows_of_all_ranks_has_the_gradients_of_one_process() -> None:
    run_ranks(3, cases_of_three)


def test_a_single_rank_keeps_its_rows() -> None:
    with world_of_one() as world:
        check(world, (7,))
