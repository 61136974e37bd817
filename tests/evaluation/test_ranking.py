"""Blocked, sharded ranking against scoring everything and sorting. Integer vectors, so ties are real and sums exact."""

import numpy as np
import pytest
import torch

from distributed.world import world_of_one
from evaluation.ranking import (
    ItemBlock,
    UserBatch,
    blocks_of_rank,
    count_ranks,
    encode_blocks,
    exchange,
    merge_top,
    top_items,
)
from tests.distributed.spawn import run_ranks

NUM_ITEMS, WIDTH, NUM_TARGETS, USER_BATCH = 101, 3, 37, 8


def catalogue():
    random = np.random.default_rng(0)
    items = torch.from_numpy(random.integers(-2, 3, (NUM_ITEMS, WIDTH)).astype(np.float32))
    users = torch.from_numpy(random.integers(-2, 3, (NUM_TARGETS, WIDTH)).astype(np.float32))
    targets = torch.from_numpy(random.integers(0, NUM_ITEMS, NUM_TARGETS))
    history = torch.from_numpy(random.integers(-1, NUM_ITEMS, (NUM_TARGETS, 5)))
    return items, users, targets, history


def brute_force(mask_history):
    items, users, targets, history = catalogue()
    scores = (users @ items.T).numpy()
    counts, tops = [], []
    for n, target in enumerate(targets.tolist()):
        row = scores[n].astype(float)
        seen = {i for i in history[n].tolist() if i >= 0} if mask_history else set()
        rivals = [i for i in range(NUM_ITEMS) if i != target and i not in seen]
        counts.append(
            [
                sum(row[i] > row[target] for i in rivals),
                sum(row[i] == row[target] for i in rivals),
                sum(row[i] == row[target] and i < target for i in rivals),
            ]
        )
        order = sorted((i for i in range(NUM_ITEMS) if i not in seen), key=lambda i: (-row[i], i))
        tops.append(order)
    return np.array(counts).T, tops


def own_batches(world_rank, world_size):
    _, users, targets, history = catalogue()
    rounds = -(-NUM_TARGETS // (USER_BATCH * world_size))
    batches = (
        UserBatch(*(x[n * USER_BATCH : (n + 1) * USER_BATCH] for x in (users, targets, history)))
        for n in range(world_rank, rounds * world_size, world_size)
    )
    return exchange(batches, USER_BATCH)


def check(rank, size, item_block):
    items = catalogue()[0]
    blocks = encode_blocks(lambda ids: items[ids], NUM_ITEMS, item_block, rank, size)
    for mask in (False, True):
        counts, tops = brute_force(mask)
        assert np.array_equal(np.stack(count_ranks(own_batches(rank, size), blocks, mask)), counts)
        for k in (1, 7, 150):
            lists = list(top_items(own_batches(rank, size), blocks, k, mask))
            ids = np.concatenate([ids.numpy() for ids, _ in lists])
            for found, expected in zip(ids, tops, strict=True):
                assert found[found >= 0].tolist() == expected[:k]


@pytest.mark.parametrize("item_block", [1, 10, 101, 1000])
def test_one_rank_equals_brute_force(item_block):
    with world_of_one():
        check(0, 1, item_block)


def on_rank(world):
    for item_block in (10, 60):
        check(world.rank, world.size, item_block)


def test_three_ranks_equal_brute_force():
    run_ranks(3, on_rank)


@pytest.mark.parametrize("world", [1, 2, 3, 64])
def test_blocks_are_dealt_out_once(world):
    dealt = [blocks_of_rank(1000, 64, rank, world) for rank in range(world)]
    ids = sorted(i for blocks, _ in dealt for start, stop in blocks for i in range(start, stop))
    assert ids == list(range(1000))
    assert {rounds for _, rounds in dealt} == {max(len(blocks) for blocks, _ in dealt)}


def test_scores_that_are_no_numbers_are_refused():
    vectors = torch.tensor([[1.0], [float("nan")]])
    users = UserBatch(torch.ones(1, 1), torch.tensor([0]), torch.zeros(1, 0, dtype=torch.int64))
    with world_of_one(), pytest.raises(FloatingPointError, match="diverged"):
        count_ranks(iter([users]), [ItemBlock(0, vectors)], mask_history=False)


def test_merge_orders_by_score_then_id_and_drops_padding():
    ids, scores = merge_top(torch.tensor([[9, 2, -1, 4]]), torch.tensor([[1.0, 1.0, 5.0, 3.0]]), 3)
    assert ids.tolist() == [[4, 2, 9]]
    assert scores.tolist() == [[3.0, 1.0, 1.0]]
