"""Which rank trains what, when: pure functions of (size, batch size, rank, world, seed, epoch).

No permutation is stored: a billion spans would cost 8 GB on every rank. An epoch is a keyed bijection
of [0, size) evaluated only at the slots that are about to be trained. Global batch s is the spans in
slots [s * batch_size, (s + 1) * batch_size), whatever the world, and ranks share it out by length.
So a run resumes on another number of ranks at the same step and sees the same batches.
"""

from __future__ import annotations

import numpy as np

# Halves of one or two bits mix slowly: over 20,000 seeds, six rounds leave the 24 orders of 4 targets uneven
# (chi-square 58, 23 degrees of freedom) and eight the first target's slot among 5 (14, 4 degrees); ten neither.
_ROUNDS = 10
_WORD = 2**64 - 1


def shuffled(index: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """The targets in slots `index` of an epoch's order: a bijection of [0, size), evaluated there only.

    An alternating Feistel network over ceil(log2(size)) bits (at least 2), with cycle walking: a value
    outside [0, size) is sent through the network again, which keeps a bijection one (Black & Rogaway,
    "Ciphers with arbitrary finite domains", 2002). The domain is below 2 * size (4 for size 1), so a
    slot takes two passes at most on average.

    Args:
        index: int64, any shape, values in [0, size).
        size: number of targets, 1 to 2^62.
    Returns:
        int64, the shape of `index`. Memory O(len(index)).
    """
    assert 1 <= size <= 2**62, size
    assert index.size == 0 or (index.min() >= 0 and index.max() < size), "slot outside [0, size)"
    bits = max(2, (size - 1).bit_length())
    keys = _round_keys(seed, epoch)
    values = _network(index.astype(np.uint64).ravel(), bits, keys)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        values[outside] = _network(values[outside], bits, keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64).reshape(index.shape)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Steps of an epoch, the same on every rank: ceil(size / batch_size); the last batch may be smaller."""
    return -(-size // batch_size)


def global_batch(step: int, size: int, batch_size: int) -> np.ndarray:
    """Slots of the spans that all ranks together train at a step, int64, ascending; the last batch may be smaller."""
    assert 0 <= step < steps_per_epoch(size, batch_size), step
    return np.arange(step * batch_size, min((step + 1) * batch_size, size), dtype=np.int64)


def balanced_share(costs: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Which parts of a global batch `rank` trains: dealt out in descending order of cost, forth and back.

    The shares of all ranks are disjoint and make up the batch; they differ by at most one part, and in cost by at
    most the dearest one. A batch smaller than the world leaves some ranks an empty share: they still take the step.

    Args:
        costs: [n], what each part takes.
    Returns:
        int64, ascending indices into `costs`.
    """
    assert 0 <= rank < world, (rank, world)
    order = np.argsort(-costs, kind="stable")
    place = np.arange(len(costs))
    turn, seat = place // world, place % world
    dealt_to = np.where(turn % 2 == 0, seat, world - 1 - seat)
    return np.sort(order[dealt_to == rank])


def _network(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """A keyed bijection of [0, 2^bits): each round XORs one half with a hash of the other; uint64 [n] -> uint64 [n]."""
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = values >> low_bits, values & low_mask
    for number, key in enumerate(keys):
        if number % 2:
            low = low ^ (_splitmix(high ^ key) & low_mask)
        else:
            high = high ^ (_splitmix(low ^ key) & high_mask)
    return (high << low_bits) | low


def _round_keys(seed: int, epoch: int) -> np.ndarray:
    """Keys of the rounds, uint64 [_ROUNDS]; seed and epoch are hashed in turn, so neither cancels."""
    key = _splitmix(np.full(_ROUNDS, seed & _WORD, dtype=np.uint64))
    key = _splitmix(key ^ np.uint64(epoch & _WORD))
    return _splitmix(key ^ np.arange(_ROUNDS, dtype=np.uint64))


def _splitmix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea & Flood 2014), modulo 2^64; uint64 -> uint64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
