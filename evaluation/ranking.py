"""Exact ranking of the whole catalogue, sharded over ranks, in bounded memory.

Equivalent to scoring every item for every user and sorting, with these differences: each rank scores its own share of
the items only, scores are made a (user batch, item block) at a time and thrown away, and ranks are counted, not sorted.

Blocks are cut on fixed item ids and user batches on fixed users, and ranks deal them out whole. So every matrix product
has the same shape and operands for any number of ranks, and metrics agree to the last digit from 1 rank or 64. Users
are taken in passes of a bounded number, each a sweep or two over the items; which batches share a pass, and whether
item vectors are held between sweeps, makes no difference to the result.

B: users of a batch, n: users, W: ranks, K: list length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from evaluation.block_scores import BlockScorer, merge_top, scorer_for
from evaluation.item_blocks import ItemBlocks
from evaluation.user_batches import UserBatch


def count_ranks(passes: Iterable[Sequence[UserBatch]], items: ItemBlocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per target: items scored higher, items tied, and tied items with a smaller id; int64 [n] each. A collective.

    Two sweeps a pass: one for the targets' scores, over the rounds that hold a target, and one to count their rivals.
    If users come by ascending target, fewer rounds hold one, and fewer products are made twice.

    Args:
        passes: the same user batches, in the same order, on every rank.
        items: this rank's blocks.

    Raises:
        FloatingPointError: a score is not a number, so no rank would mean anything.
    """
    parts = [np.zeros((0, 3), dtype=np.int64)]
    for users in passes:
        with scorer_for(users[0].vectors.device) as scorer:
            lines = _target_scores(users, items, scorer)
            counts = torch.zeros(len(lines), 3, dtype=torch.int64, device=lines.device)
            for block in items.sweep():
                scorer.count(users, block, lines, counts)
        dist.all_reduce(counts)
        parts.append(counts.cpu().numpy())
    higher, tied, before = np.ascontiguousarray(np.concatenate(parts).T)
    return higher, tied, before


def top_items(passes: Iterable[Sequence[UserBatch]], items: ItemBlocks, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Per user batch: item ids int64 [B, K] and scores [B, K], by score descending, then id ascending. A collective.

    K = min(k, N); a hidden item never appears (its slot holds id -1, score -inf). Every rank yields the merged lists of
    the whole catalogue. Memory: the lists of a pass.

    Raises:
        FloatingPointError: a score is not a number.
    """
    k = min(k, items.num_items)
    for users in passes:
        num_users, like = sum(map(len, users)), users[0].vectors
        best_scores = like.new_full((num_users, k), -torch.inf)
        best_ids = torch.full((num_users, k), -1, dtype=torch.int64, device=like.device)
        with scorer_for(like.device) as scorer:
            for block in items.sweep():
                scorer.keep_best(users, block, best_scores, best_ids)
        for ids, scores in zip(*(x.split([len(u) for u in users]) for x in (best_ids, best_scores)), strict=True):
            ids, scores = merge_top(_gather_columns(ids), _gather_columns(scores), k)
            yield ids.masked_fill(scores == -torch.inf, -1), scores


def _target_scores(users: Sequence[UserBatch], items: ItemBlocks, scorer: BlockScorer) -> Tensor:
    """Each target's score [n], read from the very product in which its rivals are counted."""
    targets = np.concatenate([batch.targets for batch in users])
    found = users[0].vectors.new_full((len(targets),), -torch.inf)
    for block in items.sweep(items.rounds_of(targets)):
        scorer.read_targets(users, block, found)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return found


def _gather_columns(mine: Tensor) -> Tensor:
    """[B, W * K]: every rank's columns side by side."""
    mine = mine.contiguous()
    pieces = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, mine)
    return torch.cat(pieces, dim=1)
