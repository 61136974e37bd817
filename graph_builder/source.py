"""What a graph is built from: the part of a dataset that the stages read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from configs.errors import InputError
from graph_builder.work import load_array


class GraphSource(Protocol):
    """A dataset as the graph builder sees it (implemented by `data.dataset.Dataset`)."""

    @property
    def path(self) -> str:
        """The folder; features lie at `<path>/features/<modality>.npy`."""
        ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def num_items(self) -> int: ...

    @property
    def modalities(self) -> Sequence[str]: ...

    @property
    def items(self) -> np.ndarray:
        """int64 [interactions], every user's sequence, oldest first."""
        ...

    @property
    def offsets(self) -> np.ndarray:
        """int64 [users+1], where each user's sequence begins in `items`."""
        ...

    @property
    def train_end(self) -> np.ndarray:
        """int64 [users], how many items of each sequence, from its start, are for training."""
        ...


def feature_path(source: GraphSource, modality: str) -> Path:
    """Where the raw features [N, d_m] of a modality lie.

    Raises:
        InputError: no such file, or not float16/32 of N rows.
    """
    path = Path(source.path).absolute() / "features" / f"{modality}.npy"
    try:
        features = load_array(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); prepare the dataset again") from None
    if features.ndim != 2 or len(features) != source.num_items or features.dtype not in (np.float16, np.float32):
        raise InputError(
            f"{path}: holds {features.dtype} {list(features.shape)}, expected float16 or float32 "
            f"[{source.num_items}, width]; prepare the dataset again"
        )
    return path
