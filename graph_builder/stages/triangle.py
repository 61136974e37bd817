"""Which pairs of row ranges meet when: the upper triangle of an S x S square, in waves.

A block (i, j) is the product of ranges i <= j and serves the candidate lists of both. Waves go along the
diagonals: after each, what every range has found is merged, and the next wave lets through only what beats
it. What a range collects then grows with the logarithm of the number of waves, not with S. The waves depend
on S alone, not on the cluster, so a build that is continued elsewhere finds its blocks.
"""

from __future__ import annotations

# Blocks of a wave, at least, where there are as many: enough to keep a few hundred workers busy.
BLOCKS_PER_WAVE = 256

Block = tuple[int, int]


def triangle_waves(num_ranges: int, blocks_per_wave: int = BLOCKS_PER_WAVE) -> list[list[Block]]:
    """All blocks i <= j < S, each in one wave; in every diagonal each range meets two others."""
    waves: list[list[Block]] = [[]]
    for shift in range(num_ranges // 2 + 1):
        # The last diagonal of an even S meets itself half-way round.
        starts = num_ranges // 2 if 2 * shift == num_ranges else num_ranges
        pairs = ((start, (start + shift) % num_ranges) for start in range(starts))
        if len(waves[-1]) >= blocks_per_wave:
            waves.append([])
        waves[-1] += [(min(pair), max(pair)) for pair in pairs]
    return [sorted(wave) for wave in waves if wave]


def blocks_of(wave: list[Block], row_range: int) -> list[Block]:
    """The blocks of a wave that a range takes part in."""
    return [block for block in wave if row_range in block]
