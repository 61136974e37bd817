"""Small source folders and datasets for the tests of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data.dataset import Dataset, DatasetContent, Sequences, write_dataset
from data.prepare.features import AlignedRows
from data.ragged import offsets_of

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token"


def write_rows(file: Path, rows: list[tuple[object, list[int], int]], ending: str = "\n") -> None:
    lines = [HEADER, *(f"{user}\t{' '.join(map(str, history))}\t{target}" for user, history, target in rows)]
    file.write_text(ending.join(lines) + ending, newline="")


def write_unisrec(
    folder: Path, sequences: list[list[int]], max_length: int | None = None, train: bool = True, ascending: bool = False
) -> Path:
    """A UniSRec folder named Toy of these sequences, histories cut to the most recent `max_length`."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = -(max_length or 10**6)
    for name, end in (("valid", 2), ("test", 1)):
        write_rows(folder / f"Toy.{name}.inter", [(u, s[:-end][cut:], s[-end]) for u, s in enumerate(sequences)])
    if train:
        rows = []
        for user, sequence in enumerate(sequences):
            ends = range(1, len(sequence) - 2) if ascending else range(len(sequence) - 3, 0, -1)
            rows += [(user, sequence[:end][cut:], sequence[end]) for end in ends]
        write_rows(folder / "Toy.train.inter", rows)
    return folder


def write_index(folder: Path, num_users: int, num_items: int) -> None:
    for kind, count in (("user", num_users), ("item", num_items)):
        (folder / f"Toy.{kind}2index").write_text("".join(f"{kind}{i}\t{i}\n" for i in range(count)))


def sequences_of(dataset: Dataset) -> list[list[int]]:
    bounds = zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    return [dataset.items[start:stop].tolist() for start, stop in bounds]


def small_content(histories: list[list[int]] | None = None, num_items: int = 6) -> DatasetContent:
    """Four users, six items, timestamps, an image that items 2 and 5 lack, texts."""
    histories = histories or [[0, 1, 2, 3], [3, 2, 1], [4, 0, 4, 0, 1], [5, 1]]
    lengths = np.array([len(history) for history in histories])
    items = np.array([item for history in histories for item in history], np.int64)
    offsets = offsets_of(lengths)
    times = np.arange(len(items)) - np.repeat(offsets[:-1], lengths) + 100
    features = np.random.default_rng(0).standard_normal((num_items, 4)).astype(np.float32)
    features[[2, 5]] = 0
    return DatasetContent(
        sequences=Sequences(
            offsets=offsets,
            items=items,
            timestamps=times,
            train_end=np.maximum(lengths - 2, 1),
            valid_end=np.maximum(lengths - 1, 1),
        ),
        user_source_ids=pa.array([f"u{i}" for i in range(len(histories))]),
        item_source_ids=pa.array([f"i{i}" for i in range(num_items)]),
        item_texts=pa.array([f"text {i}" if i else None for i in range(num_items)]),
        features={"image": AlignedRows(features, "image.npy")},
        dropped={"duplicates": 3},
    )


def small_dataset(path: Path) -> Dataset:
    return write_dataset(str(path), small_content())
