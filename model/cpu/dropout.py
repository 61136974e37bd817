"""Dropout that is fast on CPU.

On CPU, torch draws random numbers one at a time. This takes 28 ms for [8192, 256] on two cores, compared with 0.3 ms
for a GELU of that size. Sixteen random bits per element take 4 ms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 2**16


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Apply dropout as `torch.nn.functional.dropout` does, on CPU with another stream of random numbers.

    On CPU, the rate is rounded to a multiple of 2^-16. The kept elements are scaled by the rounded rate, so that the
    mean stays exact. The random numbers depend on `torch.manual_seed`, and not on the number of threads.
    """
    kept = round((1 - rate) * _LEVELS)
    if not training or kept == _LEVELS:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    return x * (bits < kept - _LEVELS // 2).to(x.dtype).mul_(_LEVELS / max(kept, 1))
