"""Divides items into blocks over ranks, and provides each rank's item vectors, kept in memory if they fit.

N: items, W: ranks, D: width of a concatenated vector, b: items of a block. Block number k holds items k * b to
k * b + b - 1 and belongs to rank k % W, in round k // W.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass
class ItemBlock:
    """The vectors [n, D] of the consecutive items start .. start + n - 1."""

    start: int
    vectors: Tensor

    @property
    def stop(self) -> int:
        return self.start + len(self.vectors)


def blocks_of_rank(num_items: int, item_block: int, rank: int, world: int) -> tuple[list[tuple[int, int]], int]:
    """Return this rank's (start, stop) blocks, dealt round robin, and the largest number of blocks of any rank."""
    blocks = [(start, min(start + item_block, num_items)) for start in range(0, num_items, item_block)]
    return blocks[rank::world], -(-len(blocks) // world)


class ItemBlocks:
    """This rank's item blocks. The constructor and every pass are collectives.

    Args:
        encode: returns the vectors [n, D] of item ids, int64 [n], where n may be 0. It may be a collective: every rank
            calls it the same number of times.
        num_items: N.
        item_block: b.
        rank: rank of this process.
        world: W.
        held_bytes: vectors are kept between passes if the largest share of any rank takes at most these bytes, so that
            all ranks decide alike; otherwise a rank holds one block of b * D numbers at a time.
        on_round: called in every round of a pass, even if the round is skipped.
        pair_scores: computes the scores of users [B, D] and items [n, D]; None: inner products.
    """

    def __init__(
        self,
        *,
        encode: Callable[[np.ndarray], Tensor],
        num_items: int,
        item_block: int,
        rank: int,
        world: int,
        held_bytes: float,
        on_round: Callable[[], None] = lambda: None,
        pair_scores: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.num_items, self.pair_scores = num_items, pair_scores
        self._encode, self._on_round = encode, on_round
        self._item_block, self._rank, self._world = item_block, rank, world
        self._own, self.rounds = blocks_of_rank(num_items, item_block, rank, world)
        nothing = encode(np.zeros(0, dtype=np.int64))
        share = self.rounds * min(item_block, num_items) * nothing.shape[1] * nothing.element_size()
        self._held: dict[int, ItemBlock] | None = {} if share <= held_bytes else None

    def owns(self, items: np.ndarray) -> np.ndarray:
        """Return which of the items this rank scores, bool."""
        return items // self._item_block % self._world == self._rank

    def rounds_of(self, items: np.ndarray) -> set[int]:
        """Return the rounds in which the block of any rank contains one of the items."""
        return set(np.unique(items // (self._item_block * self._world)).tolist())

    def pass_over(self, rounds: Collection[int] | None = None) -> Iterator[ItemBlock]:
        """Yield this rank's blocks of the rounds (None: all) by ascending item. All ranks must name the same rounds."""
        for number in range(self.rounds):
            self._on_round()
            if rounds is None or number in rounds:
                block = self._block(number)
                if block.stop > block.start:
                    yield block

    def _block(self, number: int) -> ItemBlock:
        if self._held is not None and number in self._held:
            return self._held[number]
        start, stop = self._own[number] if number < len(self._own) else (0, 0)
        block = ItemBlock(start, self._encode(np.arange(start, stop, dtype=np.int64)))
        if self._held is not None:
            self._held[number] = block
        return block
