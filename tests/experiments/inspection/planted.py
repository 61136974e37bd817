"""A healthy dataset, and copies of it with one thing that should surprise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.dataset import Dataset, DatasetContent, Sequences, write_dataset
from data.prepare.features import AlignedRows
from data.prepare.split import leave_one_out
from data.ragged import offsets_of

NUM_USERS, NUM_ITEMS, WIDTH = 80, 50, 8
START, DAY = 1_600_000_000, 86_400


def healthy_parts(seed: int = 0) -> dict[str, Any]:
    """Return the content of a dataset in which nothing stands out, as plain arrays and lists that may be changed."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, NUM_ITEMS + 1) ** 0.6
    lengths = random.integers(5, 15, NUM_USERS)
    chosen = [random.choice(NUM_ITEMS, length, replace=False, p=weights / weights.sum()) for length in lengths]
    gaps = [random.integers(1, 5 * DAY, length) for length in lengths]
    return {
        "histories": [one.tolist() for one in chosen],
        "times": [(START + random.integers(300 * DAY) + np.cumsum(one)).tolist() for one in gaps],
        "user_ids": [f"u{user}" for user in range(NUM_USERS)],
        "item_ids": [f"i{item}" for item in range(NUM_ITEMS)],
        "texts": [f"a thing of kind {item}" for item in range(NUM_ITEMS)],
        "features": random.standard_normal((NUM_ITEMS, WIDTH)).astype(np.float32),
        "source": {"format": "table", "path": "x.csv", "min_user_interactions": 5, "min_item_interactions": 5},
        "dropped": {"duplicates": 3, "k_core_interactions": 40},
    }


def written(folder: Path, parts: dict[str, Any]) -> Dataset:
    """Write the dataset of these parts, split by leave-one-out."""
    offsets = offsets_of(np.array([len(one) for one in parts["histories"]]))
    train_end, valid_end = leave_one_out(offsets)
    times = parts["times"]
    texts, features = parts["texts"], parts["features"]
    content = DatasetContent(
        sequences=Sequences(
            offsets=offsets,
            items=np.concatenate(parts["histories"]).astype(np.int64),
            timestamps=None if times is None else np.concatenate(times).astype(np.int64),
            train_end=train_end,
            valid_end=valid_end,
        ),
        user_source_ids=pa.array(parts["user_ids"]),
        item_source_ids=pa.array(parts["item_ids"]),
        item_texts=None if texts is None else pa.array(texts, pa.large_string()),
        features={} if features is None else {"image": AlignedRows(features, "image.npy")},
        split={"method": "leave-one-out"},
        source=parts["source"],
        dropped=parts["dropped"],
    )
    return write_dataset(str(folder), content)
