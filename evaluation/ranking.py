"""Ranks the whole catalogue exactly, with items divided over ranks, in bounded memory.

The result is that of scoring every item for every user and sorting. But each rank scores only its own share of the
items, scores exist only for one user batch and one item block at a time, and ranks are counted instead of sorted.

The limits of item blocks and user batches do not depend on the number of ranks, and each is processed as a whole. So
every matrix product has the same shape and operands for any number of ranks, and metrics are equal to the last digit
for 1 rank or 64. Users are ranked in groups of bounded size, and each group needs one or two passes over the items. The
result does not depend on the grouping, or on whether item vectors are kept between passes.

B: users of a batch, n: users, W: ranks, K: list length, G: groupings of the items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.block_scores import BlockScorer, merge_top, scorer_for
from evaluation.collectives import gather_equal, maximum_of_ranks, sum_of_ranks
from evaluation.item_blocks import ItemBlocks
from evaluation.item_groups import BlockGroups, Grouping, labels_of
from evaluation.user_batches import UserBatch


def count_ranks(
    groups: Iterable[Sequence[UserBatch]], items: ItemBlocks, groupings: Sequence[Grouping] = ()
) -> np.ndarray:
    """Count the items that compete with each target, among all items and within the target's own group. A collective.

    Each group of users takes two passes over the items. The first computes the targets' scores, and only visits the
    rounds with a target in them. The second counts the items with higher or equal scores. If users are sorted by
    target, the first pass visits fewer rounds, so that fewer matrix products are computed twice.

    Args:
        groups: the user batches in groups; the same batches in the same order on every rank.
        items: this rank's blocks.
        groupings: G groupings of the items, the same on every rank. Each takes no pass of its own.

    Returns:
        int64 [1 + G, 3, n]. For each target the number of items with a higher score, of other items with an equal
        score, and of the latter with a smaller id: first among all items, then for each grouping among the items of
        the target's group.

    Raises:
        FloatingPointError: a score is not finite.
    """
    parts = [np.zeros((0, 1 + len(groupings), 3), dtype=np.int64)]
    for users in groups:
        with scorer_for(users[0].vectors.device, items.pair_scores) as scorer:
            targets = np.concatenate([batch.targets for batch in users])
            scores = _pair_scores(users, items, scorer, np.arange(len(targets)), targets)
            counts = torch.zeros(len(scores), 1 + len(groupings), 3, dtype=torch.int64, device=scores.device)
            of_targets = labels_of(groupings, targets)
            for block in items.pass_over():
                of_items = labels_of(groupings, np.arange(block.start, block.stop)).T
                scorer.count(users, block, scores, BlockGroups(of_items=of_items, of_targets=of_targets), counts)
        parts.append(sum_of_ranks(counts).cpu().numpy())
    return np.ascontiguousarray(np.concatenate(parts).transpose(1, 2, 0))


def top_items(groups: Iterable[Sequence[UserBatch]], items: ItemBlocks, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each user batch's best items of the whole catalogue, the same on every rank. A collective.

    Each batch gives item ids int64 [B, K] and scores [B, K] with K = min(k, N), by score descending, then id ascending.
    A hidden item is in no list; an entry without an item has id -1 and score -inf. Only the lists of one group of users
    are in memory.

    Args:
        groups: the user batches in groups; the same batches in the same order on every rank.
        items: this rank's blocks.
        k: length of the lists.

    Raises:
        FloatingPointError: a score is not finite.
    """
    k = min(k, items.num_items)
    for users in groups:
        num_users, like = sum(map(len, users)), users[0].vectors
        best_scores = like.new_full((num_users, k), -torch.inf)
        best_ids = torch.full((num_users, k), -1, dtype=torch.int64, device=like.device)
        with scorer_for(like.device, items.pair_scores) as scorer:
            for block in items.pass_over():
                scorer.keep_best(users, block, best_scores, best_ids)
        for ids, scores in zip(*(x.split([len(u) for u in users]) for x in (best_ids, best_scores)), strict=True):
            ids, scores = merge_top(_gather_columns(ids), _gather_columns(scores), k)
            yield ids.masked_fill(scores == -torch.inf, -1), scores


def score_pairs(users: Sequence[UserBatch], items: ItemBlocks, rows: np.ndarray, asked: np.ndarray) -> Tensor:
    """Return the scores of some pairs of a user and an item, the same on every rank. A collective.

    A score is that of `top_items` for the same batches, to the last digit. The items' blocks are visited once.

    Args:
        users: the user batches, which hold users 0 .. n - 1 in order; the same on every rank.
        items: this rank's blocks.
        rows: the pairs' users, int64 [p].
        asked: the pairs' items, int64 [p].

    Returns:
        [p]; -inf for a hidden pair.

    Raises:
        FloatingPointError: a score is not finite.
    """
    with scorer_for(users[0].vectors.device, items.pair_scores) as scorer:
        return _pair_scores(users, items, scorer, rows, asked)


def _pair_scores(
    users: Sequence[UserBatch], items: ItemBlocks, scorer: BlockScorer, rows: np.ndarray, asked: np.ndarray
) -> Tensor:
    """Return the scores [p] of pairs, each from a product with the same operands as all other scores of the pair."""
    order = np.argsort(asked, kind="stable")
    rows, asked = rows[order], asked[order]
    found = users[0].vectors.new_full((len(asked),), -torch.inf)
    for block in items.pass_over(items.rounds_of(asked)):
        begin, end = np.searchsorted(asked, [block.start, block.stop])
        if end > begin:
            scorer.read_pairs(users, block, rows[begin:end], asked[begin:end], found[begin:end])
    found = maximum_of_ranks(found)
    scores = torch.empty_like(found)
    scores[torch.from_numpy(order).to(found.device)] = found
    return scores


def _gather_columns(mine: Tensor) -> Tensor:
    """Return every rank's columns side by side, [B, W * K]."""
    return torch.cat(gather_equal(mine), dim=1)
