"""Exact ranking of the whole catalogue, sharded over ranks, in bounded memory.

Equivalent to scoring every item for every user and sorting, with these differences: each rank
holds the vectors of its own share of the items only, scores are made a (user batch, item block) at a
time and thrown away, and ranks are counted, not sorted.

Blocks are cut on fixed item ids and user batches on fixed target numbers, and ranks deal them
out whole. So every matrix product has the same shape and operands for any number of ranks, and
metrics agree to the last digit from 1 rank or 64.

B: users of a batch, D: width of a concatenated vector, n: targets, W: ranks, K: list length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class UserBatch:
    """Encoded users of one batch: vectors [B, D], targets int64 [B], history item ids int64 [B, L] padded with -1."""

    vectors: Tensor
    targets: Tensor
    history: Tensor


@dataclass
class ItemBlock:
    """Vectors [n, D] of the consecutive items start .. start + n - 1."""

    start: int
    vectors: Tensor

    @property
    def stop(self) -> int:
        return self.start + len(self.vectors)


def blocks_of_rank(num_items: int, item_block: int, rank: int, world: int) -> tuple[list[tuple[int, int]], int]:
    """This rank's (start, stop) item blocks, dealt out round robin, and the largest number any rank has."""
    blocks = [(start, min(start + item_block, num_items)) for start in range(0, num_items, item_block)]
    return blocks[rank::world], -(-len(blocks) // world)


def encode_blocks(
    encode: Callable[[np.ndarray], Tensor], num_items: int, item_block: int, rank: int, world: int
) -> list[ItemBlock]:
    """This rank's item vectors. `encode(ids)` may be a collective: every rank calls it equally often."""
    blocks, rounds = blocks_of_rank(num_items, item_block, rank, world)
    encoded = []
    for index in range(rounds):
        start, stop = blocks[index] if index < len(blocks) else (0, 0)
        vectors = encode(np.arange(start, stop, dtype=np.int64))
        if stop > start:
            encoded.append(ItemBlock(start, vectors))
    return encoded


def count_ranks(
    user_batches: Iterator[UserBatch], items: list[ItemBlock], mask_history: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per target: items scored higher, items tied, and tied items with a smaller id; int64 [n] each.

    Args:
        user_batches: every user batch in the same order on every rank (see `exchange`).
        items: this rank's blocks.
        mask_history: leave a user's history out of the count (never the target itself).

    Raises:
        FloatingPointError: a score is not a number, so no rank would mean anything.
    """
    parts: list[Tensor] = []
    for users in user_batches:
        target_scores = _target_scores(users, items)
        counts = torch.zeros(3, len(users.targets), dtype=torch.int64, device=users.vectors.device)
        for block in items:
            scores = _scores(users, block, mask_history)
            above = _row_counts(scores > target_scores[:, None])
            counts[0] += above
            # Rows with an item beside the target that ties with it are few: only these are looked at item by item.
            inside = (users.targets >= block.start) & (users.targets < block.stop)
            tied_rows = _row_counts(scores >= target_scores[:, None]) - above > inside
            rows = tied_rows.nonzero().squeeze(1)
            if len(rows):
                tied = scores[rows] == target_scores[rows, None]
                ids = torch.arange(block.start, block.stop, device=scores.device)
                tied &= ids[None, :] != users.targets[rows, None]
                counts[1, rows] += tied.sum(1)
                counts[2, rows] += (tied & (ids[None, :] < users.targets[rows, None])).sum(1)
        parts.append(counts)
    total = torch.cat(parts, dim=1) if parts else torch.zeros(3, 0, dtype=torch.int64)
    dist.all_reduce(total)
    higher, tied_all, before = total.cpu().numpy()
    return higher, tied_all, before


def top_items(
    user_batches: Iterator[UserBatch], items: list[ItemBlock], k: int, mask_history: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per user batch: item ids int64 [B, K] and scores [B, K], by score descending, then id ascending.

    K = min(k, items ranked); a masked history item never appears (its slot holds id -1, score -inf).
    Every rank yields the merged lists of the whole catalogue.
    """
    for users in user_batches:
        width = len(users.targets)
        best_ids = torch.full((width, 0), -1, dtype=torch.int64, device=users.vectors.device)
        best_scores = users.vectors.new_zeros(width, 0)
        for block in items:
            ids, scores = _block_top(_scores(users, block, mask_history, keep_target=False), block.start, k)
            best_ids, best_scores = merge_top(torch.cat([best_ids, ids], 1), torch.cat([best_scores, scores], 1), k)
        all_ids, all_scores = _gather_columns(best_ids, -1, k), _gather_columns(best_scores, -torch.inf, k)
        ids, scores = merge_top(all_ids, all_scores, k)
        yield ids.masked_fill(scores == -torch.inf, -1), scores


def merge_top(ids: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best k of each row by score descending, then id ascending; ids -1 (padding) come last."""
    scores = scores.masked_fill(ids < 0, -torch.inf)
    by_id = ids.argsort(dim=1, stable=True)
    by_score = scores.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    order = by_id.gather(1, by_score)[:, :k]
    return ids.gather(1, order), scores.gather(1, order)


def exchange(batches: Iterable[UserBatch], max_batch: int) -> Iterator[UserBatch]:
    """Every rank's batches, in global order: round r yields batches r*W .. r*W + W - 1 to everyone.

    Rank w encodes global batch r*W + w; every rank brings equally many, empty where it has none. Moves
    W * max_batch * (D + L) numbers per rank and round.
    """
    for mine in batches:
        for vectors, targets, history in zip(
            *(_gather_rows(x, max_batch) for x in (mine.vectors, mine.targets)),
            _gather_rows(_widen(mine.history), max_batch),
            strict=True,
        ):
            if len(targets):
                yield UserBatch(vectors, targets, history)


def _row_counts(marked: Tensor) -> Tensor:
    """How many of each row of bool [B, n] are marked, int64 [B]: a product with ones, as torch sums bools as int64."""
    assert marked.shape[1] < 1 << 24  # whole numbers up to there are exact in float32
    return (marked.float() @ torch.ones(marked.shape[1], device=marked.device)).long()


def _scores(users: UserBatch, block: ItemBlock, mask_history: bool, keep_target: bool = True) -> Tensor:
    """Scores [B, n] of a block; masked history is -inf, except (keep_target) the target itself."""
    scores = users.vectors @ block.vectors.T
    if not torch.isfinite(scores).all():
        raise FloatingPointError(
            f"scores of items {block.start}..{block.stop - 1} are not finite: the model diverged; "
            "use an earlier checkpoint or a smaller learning rate"
        )
    if mask_history and users.history.shape[1]:
        inside = (users.history >= block.start) & (users.history < block.stop)
        if keep_target:
            inside &= users.history != users.targets[:, None]
        rows, columns = inside.nonzero(as_tuple=True)
        scores[rows, users.history[rows, columns] - block.start] = -torch.inf
    return scores


def _target_scores(users: UserBatch, items: list[ItemBlock]) -> Tensor:
    """Each target's score [B], read from the very product in which its rivals are counted.

    A separate dot product would round differently, and a target could then outrank itself.
    """
    found = torch.full((len(users.targets),), -torch.inf, dtype=users.vectors.dtype, device=users.vectors.device)
    for block in items:
        inside = (users.targets >= block.start) & (users.targets < block.stop)
        if inside.any():
            scores = _scores(users, block, mask_history=False)
            rows = inside.nonzero().squeeze(1)
            found[rows] = scores[rows, users.targets[rows] - block.start]
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return found


def _block_top(scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """Best min(k, n) of one block; torch.topk breaks ties at will, so rows tied at the cut are sorted."""
    k = min(k, scores.shape[1])
    values, columns = scores.topk(k, dim=1)
    cut = values[:, -1:]
    ambiguous = ((scores == cut).sum(1) > (values == cut).sum(1)).nonzero().squeeze(1)
    if len(ambiguous):
        order = scores[ambiguous].argsort(dim=1, descending=True, stable=True)[:, :k]
        columns[ambiguous] = order
        values[ambiguous] = scores[ambiguous].gather(1, order)
    return columns + start, values


def _gather_rows(mine: Tensor, max_rows: int) -> list[Tensor]:
    """Every rank's rows (at most max_rows), as a list by rank; one all-gather of equal, padded pieces."""
    world = dist.get_world_size()
    if world == 1:
        return [mine]
    counts = torch.zeros(world, dtype=torch.int64, device=mine.device)
    counts[dist.get_rank()] = len(mine)
    dist.all_reduce(counts)
    padded = mine.new_zeros(max_rows, *mine.shape[1:])
    padded[: len(mine)] = mine
    pieces = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(pieces, padded)
    return [piece[:count] for piece, count in zip(pieces, counts.tolist(), strict=True)]


def _widen(history: Tensor) -> Tensor:
    """History padded with -1 to the widest of all ranks, so that pieces have one shape."""
    width = torch.tensor([history.shape[1]], device=history.device)
    dist.all_reduce(width, op=dist.ReduceOp.MAX)
    return torch.nn.functional.pad(history, (0, int(width) - history.shape[1]), value=-1)


def _gather_columns(mine: Tensor, fill: float, k: int) -> Tensor:
    """[B, W * k]: every rank's candidate columns side by side, padded with `fill`."""
    padded = torch.nn.functional.pad(mine, (0, k - mine.shape[1]), value=fill)
    pieces = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, padded)
    return torch.cat(pieces, dim=1)
