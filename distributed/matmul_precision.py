"""Chooses how float32 matrix products are computed on a GPU: with TensorFloat-32 in training, exactly in ranking.

TensorFloat-32 rounds the factors to 11 significant bits and adds in float32. An H200 computes such products seven times
as fast as exact ones. Training is as noisy as its batches, so it takes them. Ranking compares scores that may be close,
and its metrics should not depend on the machine, so it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_exact_products(device: torch.device) -> None:
    """Compute float32 products exactly on a GPU from now on, those of cuDNN too. On other devices nothing changes."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


@contextmanager
def training_matmul_precision(device: torch.device) -> Iterator[None]:
    """Let float32 products use TensorFloat-32 on a GPU, inside the context. On other devices nothing changes.

    Recurrent layers and convolutions are cuDNN's, for which PyTorch allows TensorFloat-32 by default. After the
    context all products are exact.
    """
    if device.type != "cuda":
        yield
        return
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        use_exact_products(device)
