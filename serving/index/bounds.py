"""Bounds on scores, which prove that an item that was not looked at is not among the best.

Two programs that compute the same inner product in float32 round differently, so scores of faiss are compared with
those of the ranking only up to a bound of their difference. All bounds are computed in float64.

n: users, C: channels, D: width of a vector.
"""

from __future__ import annotations

import numpy as np

from model.blocks.score_fusion import DynamicFusion, ScoreFusion

_UNIT = 2.0**-24  # the greatest relative error of rounding to float32
_LEAST = 2.0**-126  # the least normal float32: a smaller result may become zero


def inner_product_error(width: int, user_norms: np.ndarray, max_norm: float) -> np.ndarray:
    """Return how far a float32 inner product may be from the real one, [n]; twice that is between two programs.

    In any order of additions, with or without fused multiply-adds, the error is at most
    D u / (1 - D u) * sum_j |a_j b_j| (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), where u = 2^-24.
    The sum is at most |a| |b|. The last term is for numbers too small for float32. This does not hold for
    TF32, bfloat16 or float16 products.

    Args:
        width: D.
        user_norms: lengths of the users' vectors, [n].
        max_norm: greatest length of an item's vector.
    """
    relative = width * _UNIT / (1 - width * _UNIT)
    return 1.001 * relative * user_norms * max_norm + width * _LEAST * (1 + user_norms + max_norm)


def sum_error(sizes: np.ndarray) -> np.ndarray:
    """Return how far rounding may move two float32 sums apart, if their numbers' sizes add up to at most `sizes`."""
    return 4 * _UNIT * sizes


def fused_bound(fusion: ScoreFusion, bounds: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return an upper bound of the fused score, [n], of any item whose score in each channel has a bound.

    For `DynamicFusion`: the weights of the modalities that an item has are at least 0 and add up to 1, whatever the
    learned number is. So their fused score is at most the greatest of their bounds. (An item without any modality has
    score 0 in each, and the fused score 0.) Since items may lack modalities, no smaller bound holds for all items.
    With a channel of IDs, the score is (s_id + M s) / (M + 1), which grows with both. The softmax in float32 gives
    weights that are at least 0, and whose sum is 1 up to M + 2 roundings, whatever the errors of its exponentials are;
    products and sums add less than M + 6.

    Args:
        fusion: computes fused scores.
        bounds: upper bounds of an item's channel scores, as the ranking computes them, [C, n].
        sizes: the greatest absolute value of any channel score, [C, n].

    Returns:
        [n]; infinity for a fusion without a known bound.
    """
    if type(fusion) is not DynamicFusion:
        return np.full(bounds.shape[1], np.inf)
    first = 1 if fusion.with_ids else 0
    count = len(bounds) - first
    fused = bounds[first:].max(axis=0)
    if fusion.with_ids:
        fused = (bounds[0] + count * fused) / (count + 1)
    return np.asarray(fused + (2 * count + 16) * _UNIT * sizes.max(axis=0))


def fused_error(fusion: ScoreFusion, errors: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return how far two programs' fused scores of a pair may be apart, [n].

    For `DynamicFusion`, let a be w tau and S the greatest size of a channel score. The derivative of the fused score by
    s_m is p_m (1 + a (s_m - s)), so that a change of all channel scores by at most e changes it by at most
    (1 + 2 |a| S) e; two programs' channel scores differ by at most twice their errors. Each program computes logits
    with a relative error of 3 roundings, so the weights have relative errors of 6 |a| S roundings and some more for the
    exponentials, the sum, and the products.

    Args:
        fusion: computes fused scores.
        errors: how far a channel score may be from the real inner product, [C, n].
        sizes: the greatest absolute value of any channel score, [C, n].

    Returns:
        [n]; infinity for a fusion without a known bound.
    """
    if type(fusion) is not DynamicFusion:
        return np.full(errors.shape[1], np.inf)
    slope, size = abs(float(fusion.weight.detach())) * fusion.temperature, 1.01 * sizes.max(axis=0)
    rounding = _UNIT * size * (6 * slope * size + 2 * len(errors) + 40)
    return np.asarray((1 + 2 * slope * size) * 2 * errors.max(axis=0) + 2 * rounding)
