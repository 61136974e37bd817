"""The rounds in which pairs of row ranges are searched: the blocks of the upper triangle of an S x S square.

A block (i, j), with i <= j, compares the rows of range i with those of range j and adds candidates to the lists of
both. A round is one or more whole diagonals of the square. After each round, the candidates of every range are merged,
and the next round adds only items that reach the thresholds so far. So a range's candidates grow with the logarithm of
the number of rounds rather than with S. The rounds depend on S alone, so a build can continue on another cluster with
the same blocks.
"""

from __future__ import annotations

# A round has at least this many blocks (except the last), which keeps a few hundred workers busy.
BLOCKS_PER_ROUND = 256

Block = tuple[int, int]


def block_rounds(num_ranges: int, blocks_per_round: int = BLOCKS_PER_ROUND) -> list[list[Block]]:
    """Return all blocks i <= j < S by rounds. In every diagonal, each range is compared with two others."""
    rounds: list[list[Block]] = [[]]
    for shift in range(num_ranges // 2 + 1):
        # For an even S, the second half of the last diagonal repeats the first half.
        starts = num_ranges // 2 if 2 * shift == num_ranges else num_ranges
        pairs = ((start, (start + shift) % num_ranges) for start in range(starts))
        if len(rounds[-1]) >= blocks_per_round:
            rounds.append([])
        rounds[-1] += [(min(pair), max(pair)) for pair in pairs]
    return [sorted(round_blocks) for round_blocks in rounds if round_blocks]


def blocks_of(round_blocks: list[Block], row_range: int) -> list[Block]:
    """Return the blocks of a round that a range belongs to."""
    return [block for block in round_blocks if row_range in block]
