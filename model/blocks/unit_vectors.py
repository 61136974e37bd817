"""Scales vectors to length 1, so that their inner product is a cosine."""

from __future__ import annotations

import torch
from torch import Tensor

# A vector that is not longer than this has no direction that rounding leaves.
SHORTEST = 1e-12


def unit_vectors(vectors: Tensor) -> Tensor:
    """Return vectors [n, d] divided by their lengths, in at least float32.

    A zero vector, or one not longer than `SHORTEST`, has no direction. It becomes the zero vector, whose cosine with
    every vector is 0, and its gradient is 0. Dividing by a smallest length instead would give it a gradient of 1e12.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    is_short = lengths <= SHORTEST
    return (vectors / lengths.masked_fill(is_short, 1.0)).masked_fill(is_short, 0.0)
