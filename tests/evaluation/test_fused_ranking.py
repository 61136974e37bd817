"""Ranking by scores that are no inner product: each is a function of two, here their maximum. Whole numbers, so that
ties are real and every sum is exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from distributed.world import World, world_of_one
from evaluation import ranking
from evaluation.block_scores import BlockScorer, WholeBlocks, scorer_for
from evaluation.item_blocks import ItemBlocks
from evaluation.item_groups import Grouping, ItemGroup
from evaluation.ranking import count_ranks, top_items
from evaluation.user_batches import UserBatch, user_batch
from tests.distributed.spawn import run_ranks

NUM_ITEMS, NUM_USERS, WIDTH, K = 211, 23, 3, 12
RANDOM = np.random.default_rng(1)
ITEMS = torch.from_numpy(RANDOM.integers(-3, 4, (NUM_ITEMS, 2 * WIDTH)).astype(np.float32))
USERS = torch.from_numpy(RANDOM.integers(-3, 4, (NUM_USERS, 2 * WIDTH)).astype(np.float32))
TARGETS = RANDOM.integers(0, NUM_ITEMS, NUM_USERS)
HAD = RANDOM.integers(0, NUM_ITEMS, NUM_USERS)  # an item of each user, which gets a gain
GAIN = np.float32(4)
LABELS = RANDOM.choice(2, NUM_ITEMS, p=[0.8, 0.2])
GROUPING = Grouping(
    name="training",
    groups=tuple(ItemGroup(name=name, targets=name, candidates=name, size=1) for name in "ab"),
    labels=LABELS.astype(np.int8),
)
WEIGHT = torch.nn.Parameter(torch.ones(()))  # a parameter, as of a learned fusion


def larger_product(users: Tensor, items: Tensor) -> Tensor:
    parts = zip(users.chunk(2, dim=1), items.chunk(2, dim=1), strict=True)
    return torch.stack([user @ item.T for user, item in parts]).max(dim=0).values * WEIGHT


def batches() -> list[UserBatch]:
    found = []
    for part in np.array_split(np.arange(NUM_USERS), 4):
        gains = np.full(len(part), GAIN, dtype=np.float32)
        found.append(user_batch(USERS[part], TARGETS[part], HAD[part], np.arange(len(part)), gains))
    return found


def own_items(batch: UserBatch, blocks: ItemBlocks) -> UserBatch:
    own = blocks.owns(batch.gain_items)
    return user_batch(batch.vectors, batch.targets, batch.gain_items[own], batch.gain_users[own], batch.gains[own])


def results(rank: int, world: int) -> list[np.ndarray]:
    """Counts of rivals, among all items and within groups, and the best items with their scores."""
    blocks = ItemBlocks(
        encode=lambda ids: ITEMS[ids],
        num_items=NUM_ITEMS,
        item_block=40,
        rank=rank,
        world=world,
        held_bytes=float("inf"),
        pair_scores=larger_product,
    )
    groups = [[own_items(batch, blocks) for batch in group] for group in (batches()[:3], batches()[3:])]
    lists = list(top_items(groups, blocks, K))
    return [count_ranks(groups, blocks, (GROUPING,)), *(torch.cat(part).numpy() for part in zip(*lists, strict=True))]


def brute_force() -> list[np.ndarray]:
    scores = larger_product(USERS, ITEMS).detach().numpy().copy()
    scores[np.arange(NUM_USERS), HAD] += GAIN
    own = scores[np.arange(NUM_USERS), TARGETS][:, None]
    ties = (scores == own) & (np.arange(NUM_ITEMS) != TARGETS[:, None])
    before = ties & (np.arange(NUM_ITEMS) < TARGETS[:, None])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    same = LABELS[TARGETS][:, None] == LABELS
    rivals = (scores > own, ties, before)
    counts = np.stack([[(x & which).sum(axis=1) for x in rivals] for which in (np.ones_like(same), same)])
    return [counts, order, np.take_along_axis(scores, order, axis=1)]


@contextmanager
def as_on_a_gpu(*_: object) -> Iterator[BlockScorer]:
    yield WholeBlocks(larger_product)


@pytest.mark.parametrize("scorer", [scorer_for, as_on_a_gpu], ids=["tiles", "whole blocks"])
def test_ranks_and_lists_equal_brute_force(monkeypatch: pytest.MonkeyPatch, scorer: object) -> None:
    monkeypatch.setattr(ranking, "scorer_for", scorer)
    with world_of_one():
        for found, wanted in zip(results(0, 1), brute_force(), strict=True):
            np.testing.assert_array_equal(found, wanted)


def on_rank(world: World) -> None:
    for found, wanted in zip(results(world.rank, world.size), brute_force(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_and_lists_do_not_depend_on_the_number_of_ranks(world: int) -> None:
    run_ranks(world, on_rank)
