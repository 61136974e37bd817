"""Clusters vectors by mini-batch k-means (Sculley, WWW 2010), in blocks of bounded memory.

Shapes: n vectors, K centres, d width, b vectors of a mini-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_DISTANCES = 2**24  # distances of a block: 64 MiB of float32
_LEAST_BATCH = 2048


def minibatch_kmeans(vectors_nd: Tensor, num_centers: int, steps: int) -> tuple[Tensor, Tensor]:
    """Return the centres [K, d], and for each vector the nearest of them, int64 [n].

    The first centres are vectors drawn without replacement. Each step draws a mini-batch and moves every centre
    towards the mean of the vectors that are nearest to it, by the share that they are of all vectors that it got so
    far. A mini-batch has at least 1.1 times as many vectors as there are centres. Random numbers are torch's.

    Args:
        vectors_nd: the vectors, n >= K.
        num_centers: K.
        steps: number of mini-batches.
    """
    count = len(vectors_nd)
    assert 0 < num_centers <= count, (num_centers, count)
    centers_Kd = vectors_nd[_drawn(count, num_centers, vectors_nd)].clone()
    totals_K = vectors_nd.new_zeros(num_centers)
    size = min(count, max(_LEAST_BATCH, int(1.1 * num_centers)))
    for _ in range(steps):
        batch_bd = vectors_nd[_drawn(count, size, vectors_nd)]
        nearest_b = nearest_centers(batch_bd, centers_Kd)
        counts_K = cluster_sizes(nearest_b, num_centers, vectors_nd.dtype)
        totals_K = totals_K + counts_K
        moves_Kd = torch.zeros_like(centers_Kd).index_add_(0, nearest_b, batch_bd - centers_Kd[nearest_b])
        centers_Kd = centers_Kd + moves_Kd / totals_K.clamp(min=1)[:, None]
    return centers_Kd, nearest_centers(vectors_nd, centers_Kd)


def cluster_sizes(of_n: Tensor, num_centers: int, dtype: torch.dtype) -> Tensor:
    """Return how many vectors each cluster has, [K] in `dtype`; the host would wait for torch.bincount on a GPU."""
    ones_n = torch.ones(len(of_n), dtype=dtype, device=of_n.device)
    return torch.zeros(num_centers, dtype=dtype, device=of_n.device).index_add_(0, of_n, ones_n)


def nearest_centers(vectors_nd: Tensor, centers_Kd: Tensor) -> Tensor:
    """Return the centre with the least Euclidean distance to each vector, int64 [n]; of equal ones the lowest."""
    lengths_K = (centers_Kd * centers_Kd).sum(dim=1)
    size = max(1, _MAX_DISTANCES // len(centers_Kd))
    nearest = [torch.addmm(lengths_K, block, centers_Kd.T, alpha=-2).argmin(dim=1) for block in vectors_nd.split(size)]
    return torch.cat(nearest) if nearest else torch.zeros(0, dtype=torch.int64, device=vectors_nd.device)


def _drawn(count: int, size: int, like: Tensor) -> Tensor:
    """Return `size` of the numbers below `count`, int64, without repetition, in random order."""
    return torch.randperm(count, device=like.device)[:size]
