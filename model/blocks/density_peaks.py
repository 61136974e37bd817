"""Clusters vectors by density peaks with k nearest neighbours (DPC-kNN; Du et al. 2016), in blocks of bounded memory.

The time grows with the square of the number of vectors. `clustering.minibatch_kmeans` scales further.

Shapes: n vectors, K centres, d width, b vectors of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from model.blocks.clustering import cluster_sizes

_MAX_DISTANCES = 2**24  # distances of a block: 64 MiB of float32


def density_peaks(vectors_nd: Tensor, num_centers: int, num_neighbors: int) -> tuple[Tensor, Tensor]:
    """Return the centres [K, d], and for each vector the number of its cluster, int64 [n].

    A vector's density is exp(-mean of the squared distances to its `num_neighbors` nearest vectors), of which it is
    one itself. Its separation is the distance to the nearest vector that is denser; for the densest vector it is
    the largest distance of all. Of equally dense vectors, such as copies, the one with the lower number counts as
    denser. The K vectors with the largest products of density and separation are the peaks. Every vector joins the
    nearest peak, and a centre is the mean of its vectors. Distances are divided by sqrt(d).

    Args:
        vectors_nd: the vectors, n >= K.
        num_centers: K.
        num_neighbors: number of nearest vectors that decide the density, at most n.
    """
    count, width = vectors_nd.shape
    assert 0 < num_centers <= count, (num_centers, count)
    assert 0 < num_neighbors <= count, (num_neighbors, count)
    near, largest = [], vectors_nd.new_zeros(())
    for distances_bn in _distances(vectors_nd, vectors_nd):
        nearest = distances_bn.topk(num_neighbors, dim=1, largest=False).values
        near.append((nearest * nearest).mean(dim=1))
        largest = torch.maximum(largest, distances_bn.max())
    density_n = torch.cat(near).neg().exp()
    numbers_n = torch.arange(count, device=vectors_nd.device)
    separations, first = [], 0
    for distances_bn in _distances(vectors_nd, vectors_nd):
        place_b1 = numbers_n[first : first + len(distances_bn), None]
        own_b1 = density_n[place_b1]
        is_denser_bn = (density_n > own_b1) | ((density_n == own_b1) & (numbers_n < place_b1))
        separations.append(distances_bn.where(is_denser_bn, largest).min(dim=1).values)
        first += len(distances_bn)
    peaks = (density_n * torch.cat(separations)).topk(num_centers).indices
    of_n = torch.cat([distances.argmin(dim=1) for distances in _distances(vectors_nd, vectors_nd[peaks])])
    of_n[peaks] = torch.arange(num_centers, device=of_n.device)  # also if another peak is a copy of the same vector
    sums = vectors_nd.new_zeros(num_centers, width).index_add_(0, of_n, vectors_nd)
    return sums / cluster_sizes(of_n, num_centers, sums.dtype)[:, None], of_n


def _distances(vectors_nd: Tensor, others_md: Tensor) -> Iterator[Tensor]:
    """Yield the distances of a block of vectors to all others, divided by sqrt(d): [b, m] each."""
    size = max(1, _MAX_DISTANCES // max(1, len(others_md)))
    for block_bd in vectors_nd.split(size):
        yield torch.cdist(block_bd, others_md) / vectors_nd.shape[1] ** 0.5
