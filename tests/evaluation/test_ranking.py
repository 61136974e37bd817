"""Blocked, sharded, streamed ranking against scoring everything and sorting. Whole numbers, so that ties are real."""

import functools

import numpy as np
import pytest
import torch

from distributed.world import world_of_one
from evaluation import block_scores, ranking
from evaluation.block_scores import WholeBlocks, merge_top, scorer_for
from evaluation.item_blocks import ItemBlocks, blocks_of_rank
from evaluation.item_groups import Grouping, ItemGroup
from evaluation.ranking import count_ranks, top_items
from evaluation.user_batches import exchange, user_batch
from tests.distributed.spawn import run_ranks
from tests.pretended_device import CUDA, pretended_device

NUM_ITEMS, WIDTH, NUM_TARGETS, USER_BATCH = 301, 3, 37, 8
HELD, STREAMED = float("inf"), 0.0


def catalogue(whole_numbers=True):
    """Vectors of items and users, targets, histories; else of real numbers and wide, so that sums round."""
    random = np.random.default_rng(0)
    draw = (
        (lambda n: random.integers(-2, 3, (n, WIDTH))) if whole_numbers else lambda n: random.standard_normal((n, 48))
    )
    items, users = (torch.from_numpy(draw(n).astype(np.float32)) for n in (NUM_ITEMS, NUM_TARGETS))
    targets = random.integers(0, NUM_ITEMS, NUM_TARGETS)
    history = random.integers(0, NUM_ITEMS, (NUM_TARGETS, 5))
    history[:, 3] = history[:, 2]  # what was had twice
    history[:4, 0] = targets[:4]  # and what will be had again
    return items, users, targets, history


GAIN = np.float32(-2)  # of what is in a history and not hidden


def some_groupings():
    """Return a grouping whose groups are mixed, and one whose groups are consecutive; group 1 of each is small."""
    labels = np.random.default_rng(3).choice(3, NUM_ITEMS, p=[0.8, 0.05, 0.15]).astype(np.int8)
    return grouping("training", labels=labels), grouping("domain", first_items=np.array([0, 130, 141]))


def grouping(name, **divided):
    groups = [ItemGroup(name=f"{n}", targets=f"target {n}", candidates=f"items {n}", size=1) for n in range(3)]
    return Grouping(name=name, groups=tuple(groups), **divided)


@functools.cache
def brute_force(mask_history):
    """Counts of rivals among all items and within groups, from float64 scores, and the best items."""
    items, users, targets, history = catalogue()
    scores = (users.double() @ items.double().T).numpy()
    labels = [np.zeros(NUM_ITEMS, dtype=int), *(one.of(np.arange(NUM_ITEMS)) for one in some_groupings())]
    for row, seen in zip(scores, history, strict=True):
        row[np.unique(seen)] += GAIN
    counts, tops = [], []
    for n, target in enumerate(targets.tolist()):
        row = scores[n].astype(float)
        seen = set(history[n].tolist()) if mask_history else set()
        found = []
        for of_items in labels:
            rivals = [i for i in range(NUM_ITEMS) if i not in {target, *seen} and of_items[i] == of_items[target]]
            found.append(
                [
                    sum(row[i] > row[target] for i in rivals),
                    sum(row[i] == row[target] for i in rivals),
                    sum(row[i] == row[target] and i < target for i in rivals),
                ]
            )
        counts.append(found)
        tops.append(sorted((i for i in range(NUM_ITEMS) if i not in seen), key=lambda i: (-row[i], i)))
    return np.array(counts).transpose(1, 2, 0), tops


def item_blocks(rank, world, item_block, held_bytes, items):
    return ItemBlocks(
        encode=lambda ids: items[ids],
        num_items=NUM_ITEMS,
        item_block=item_block,
        rank=rank,
        world=world,
        held_bytes=held_bytes,
    )


def passes(rank, world, blocks, per_pass, mask, with_target=True, whole_numbers=True):
    """Lists of `per_pass` batches; only rank w's own batches w, w + W, ... are read from `users` here."""
    _, users, targets, history = catalogue(whole_numbers)
    targets = targets if with_target else np.full_like(targets, -1)
    rounds = -(-NUM_TARGETS // (USER_BATCH * world))
    numbers = range(rank, rounds * world, world)
    vectors = exchange((users[n * USER_BATCH : (n + 1) * USER_BATCH] for n in numbers), NUM_TARGETS, USER_BATCH)
    found = []
    for number, encoded in enumerate(vectors):
        part = slice(number * USER_BATCH, (number + 1) * USER_BATCH)
        seen = history[part]
        rows = np.repeat(np.arange(len(encoded)), seen.shape[1])
        gains = np.where(mask & (seen != targets[part, None]), -np.inf, GAIN).astype(np.float32).ravel()
        own = blocks.owns(seen.ravel())
        found.append(user_batch(encoded, targets[part], seen.ravel()[own], rows[own], gains[own]))
    return [found[first : first + per_pass] for first in range(0, len(found), per_pass)]


def check(rank, world, item_block, held_bytes, per_pass):
    blocks = item_blocks(rank, world, item_block, held_bytes, catalogue()[0])
    for mask in (False, True):
        counts, tops = brute_force(mask)
        for groupings in (some_groupings(), ()):
            found = count_ranks(passes(rank, world, blocks, per_pass, mask), blocks, groupings)
            assert np.array_equal(found, counts[: 1 + len(groupings)])
        for k in (1, 7, 350):
            users = passes(rank, world, blocks, per_pass, mask, with_target=False)
            ids = np.concatenate([ids.numpy() for ids, _ in top_items(users, blocks, k)])
            assert ids.shape == (NUM_TARGETS, min(k, NUM_ITEMS))
            for found, expected in zip(ids, tops, strict=True):
                assert found[found >= 0].tolist() == expected[:k]


@pytest.mark.parametrize("held_bytes", [HELD, STREAMED])
@pytest.mark.parametrize(("item_block", "per_pass"), [(1, 5), (10, 1), (200, 2), (301, 1), (1000, 9)])
def test_one_rank_equals_brute_force(item_block, per_pass, held_bytes, monkeypatch):
    monkeypatch.setattr(block_scores, "TILE_SCORES", 64 * USER_BATCH)  # several tiles a block
    with world_of_one():
        check(0, 1, item_block, held_bytes, per_pass)


def test_whole_blocks_with_torch_equal_brute_force(monkeypatch):
    monkeypatch.setattr(ranking, "scorer_for", lambda *_: as_on_a_gpu())
    with world_of_one():
        check(0, 1, 40, STREAMED, 2)


@pytest.mark.parametrize("groupings", [(), some_groupings()], ids=["all items", "groups"])
def test_a_ranking_on_a_gpu_waits_for_it_once_a_block_and_ranks_the_same(groupings):
    items = catalogue()[0]
    num_blocks = 4
    with world_of_one(), pretended_device(may_wait=None) as device:
        blocks = ItemBlocks(
            encode=lambda ids: items[ids].to(CUDA),
            num_items=NUM_ITEMS,
            item_block=100,
            rank=0,
            world=1,
            held_bytes=0,
        )
        (users,) = passes(0, 1, blocks, 99, True)
        for batch in users:
            batch.vectors = batch.vectors.to(CUDA)
        device.counts.restart()
        found = count_ranks([users], blocks, groupings)
    assert np.array_equal(found, brute_force(True)[0][: 1 + len(groupings)])
    waits = sum(number for place, number in device.counts.waits.items() if "block_scores.py count:" in place)
    assert waits == num_blocks, device.counts.waits


class as_on_a_gpu:
    def __enter__(self):
        return WholeBlocks()

    def __exit__(self, *_):
        pass


def real_results(rank, world, held_bytes, per_pass):
    """Counts, and lists with scores, of real numbers, whose sums round."""
    items = catalogue(whole_numbers=False)[0]
    blocks = item_blocks(rank, world, 30, held_bytes, items)
    counts = count_ranks(passes(rank, world, blocks, per_pass, True, True, False), blocks, some_groupings())
    lists = list(top_items(passes(rank, world, blocks, per_pass, True, False, False), blocks, 20))
    return [counts, *(torch.cat(part).numpy() for part in zip(*lists, strict=True))]


def on_rank(world, expected):
    for item_block, held_bytes, per_pass in ((10, HELD, 2), (120, STREAMED, 3)):
        check(world.rank, world.size, item_block, held_bytes, per_pass)
    for held_bytes, per_pass in ((HELD, 5), (STREAMED, 1), (STREAMED, 3)):
        for found, wanted in zip(real_results(world.rank, world.size, held_bytes, per_pass), expected, strict=True):
            assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_equal_brute_force_and_one_rank_to_the_last_bit(world):
    with world_of_one():
        expected = real_results(0, 1, HELD, 5)
        for again in (real_results(0, 1, STREAMED, 2), real_results(0, 1, HELD, 1)):
            assert [x.tobytes() for x in again] == [x.tobytes() for x in expected]
    run_ranks(world, on_rank, expected)


def test_threads_change_nothing():
    before, found = torch.get_num_threads(), []
    with world_of_one():
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([x.tobytes() for x in real_results(0, 1, HELD, 5)])
            assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize("world", [1, 2, 3, 64])
def test_blocks_are_dealt_out_once(world):
    dealt = [blocks_of_rank(1000, 64, rank, world) for rank in range(world)]
    ids = sorted(i for blocks, _ in dealt for start, stop in blocks for i in range(start, stop))
    assert ids == list(range(1000))
    assert {rounds for _, rounds in dealt} == {max(len(blocks) for blocks, _ in dealt)}
    items = np.arange(1000)
    for rank, (blocks, _) in enumerate(dealt):
        owns = ItemBlocks(
            encode=lambda ids: torch.ones(len(ids), 1),
            num_items=1000,
            item_block=64,
            rank=rank,
            world=world,
            held_bytes=HELD,
        ).owns(items)
        assert items[owns].tolist() == [i for start, stop in blocks for i in range(start, stop)]


def test_every_rank_encodes_equally_often_and_only_rounds_with_a_target_twice():
    """The targets lie in two of ten blocks: a held block is encoded once, a streamed one in each pass."""
    targets = np.array([35, 36, 92])
    for held_bytes, rounds_encoded in ((HELD, 4), (STREAMED, 4 + 2)):
        for rank in range(3):
            calls = []
            blocks = ItemBlocks(
                encode=lambda ids, calls=calls: calls.append(ids) or torch.ones(len(ids), 2),
                num_items=100,
                item_block=10,
                rank=rank,
                world=3,
                held_bytes=held_bytes,
            )
            assert blocks.rounds_of(targets) == {1, 3}
            for found in (blocks.pass_over(blocks.rounds_of(targets)), blocks.pass_over()):
                starts = [block.start for block in found]
                assert starts == sorted(starts)
            assert len(calls) == 1 + rounds_encoded  # one for the width
            assert max(map(len, calls)) == 10


def test_items_are_held_only_if_the_largest_share_fits():
    for held_bytes, expected in ((3 * 10 * 2 * 4, True), (3 * 10 * 2 * 4 - 1, False)):
        for rank in range(4):  # rank 3 has two blocks, the others three
            blocks = ItemBlocks(
                encode=lambda ids: torch.ones(len(ids), 2),
                num_items=110,
                item_block=10,
                rank=rank,
                world=4,
                held_bytes=held_bytes,
            )
            first, second = ([id(b.vectors) for b in list(blocks.pass_over())] for _ in range(2))
            assert (blocks._held is not None) == expected
            assert (first == second) >= expected


@pytest.mark.parametrize("scorer", [scorer_for, lambda *_: as_on_a_gpu()])
@pytest.mark.parametrize(("bad", "target"), [(1, 0), (0, 0), (150, 150), (299, 5)])
def test_scores_that_are_no_numbers_are_refused(bad, target, scorer, monkeypatch):
    monkeypatch.setattr(ranking, "scorer_for", scorer)
    vectors = torch.ones(NUM_ITEMS, 1)
    vectors[bad] = float("nan")
    nothing = np.zeros(0, dtype=np.int64)
    users = [user_batch(torch.ones(1, 1), np.array([target]), nothing, nothing, nothing.astype(np.float32))]
    with world_of_one():
        blocks = item_blocks(0, 1, 100, HELD, vectors)
        first = bad // 100 * 100
        with pytest.raises(FloatingPointError, match=rf"items {first}\.\.\d+ are not finite: the model diverged"):
            count_ranks([users], blocks)
        with pytest.raises(FloatingPointError, match="diverged"):
            list(top_items([users], blocks, 3))


def test_no_users_give_no_ranks():
    with world_of_one():
        blocks = item_blocks(0, 1, 100, HELD, catalogue()[0])
        assert count_ranks([], blocks).shape == (1, 3, 0)
        assert list(top_items([], blocks, 5)) == []


def test_merge_orders_by_score_then_id_and_drops_padding():
    ids, scores = merge_top(torch.tensor([[9, 2, -1, 4]]), torch.tensor([[1.0, 1.0, 5.0, 3.0]]), 3)
    assert ids.tolist() == [[4, 2, 9]]
    assert scores.tolist() == [[3.0, 1.0, 1.0]]
