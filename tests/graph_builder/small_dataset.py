"""A dataset as the graph builder sees it, small and made of whole numbers; and executors that watch or fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import GraphConfig
from graph_builder.executor import SerialExecutor

NUM_ITEMS = 83
OPTIONS = GraphConfig(
    normalization="none", num_neighbors=4, num_centers=3, block_rows=16, rows_per_task=16, backend="cpu", mu=0.5
)


@dataclass
class SmallDataset:
    """Stands in for data.dataset.Dataset."""

    path: str
    fingerprint: str
    num_items: int
    modalities: tuple[str, ...]
    items: np.ndarray
    offsets: np.ndarray
    train_end: np.ndarray

    def sequences(self) -> list[list[int]]:
        """The training parts."""
        return [
            self.items[begin : begin + end].tolist()
            for begin, end in zip(self.offsets[:-1], self.train_end, strict=True)
        ]

    def feature_path(self, modality: str) -> Path:
        return Path(self.path) / "features" / f"{modality}.npy"

    def features(self, modality: str) -> np.ndarray:
        return np.load(self.feature_path(modality), mmap_mode="r")


def make_dataset(
    folder: Path, seed: int = 0, num_items: int = NUM_ITEMS, num_users: int = 40, keep: bool = False
) -> SmallDataset:
    """Two modalities (image is missing for a third of the items), two held-out items per user.

    `keep`: the folder is there already, of the same arguments.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 14, num_users)
    features = {
        "image": rng.integers(-4, 5, (num_items, 6)).astype(np.float16),
        "text": rng.integers(-4, 5, (num_items, 5)).astype(np.float32),
    }
    features["image"][::3] = 0
    if not keep:
        (folder / "features").mkdir(parents=True)
        for name, rows in features.items():
            np.save(folder / "features" / f"{name}.npy", rows)
    return SmallDataset(
        path=str(folder),
        fingerprint=f"dataset-{seed}",
        num_items=num_items,
        modalities=("image", "text"),
        items=rng.integers(0, num_items // 2, lengths.sum()),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        train_end=lengths - 2,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a graph but its manifest, which says where the dataset lies."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Interrupted(Exception):
    """The machine went away."""


class CountingExecutor(SerialExecutor):
    """Counts the blocks it runs, and is interrupted before the block number `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.num_blocks = 0
        self.stop_at = stop_at

    def run_blocks(
        self, function: Callable[[Any], Any], blocks: Sequence[Any], *, label: str | None = None, on_gpu: bool = False
    ) -> Iterator[Any]:
        def counted(block: Any) -> Any:
            if self.num_blocks == self.stop_at:
                raise Interrupted
            self.num_blocks += 1
            return function(block)

        return super().run_blocks(counted, blocks, label=label, on_gpu=on_gpu)
