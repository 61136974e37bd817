"""Reads the features of a modality once, block by block, and a sample of their rows for what needs pairs of rows.

N items, d_m width of modality m. Memory: one block, the presence of items, and the sample.
"""

from __future__ import annotations

import numpy as np

from data.dataset import Dataset
from data.writing import block_length
from experiments.inspection.counting import MagnitudeCounts, spread_of
from experiments.inspection.facts import FeatureFacts, Spread
from experiments.inspection.stated import stated

SAMPLE = 1000  # rows: half a million pairs


def feature_facts(data: Dataset, modality: str, seed: int = 0) -> FeatureFacts:
    """Return the facts about a modality. `seed` draws the sample."""
    features = data.features(modality)
    present = np.zeros(data.num_items, bool)
    norms = MagnitudeCounts()
    num_constant_rows = 0
    low, high = np.full(features.shape[1], np.inf, np.float32), np.full(features.shape[1], -np.inf, np.float32)
    step = block_length(features.shape[1])
    for start in range(0, len(features), step):
        rows = np.asarray(features[start : start + step], np.float32)
        present[start : start + step] = has_values = rows.any(axis=1)
        rows = rows[has_values]
        norms.add(np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64)))
        num_constant_rows += int((rows == rows[:, :1]).all(axis=1).sum())
        if len(rows):
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    sample = _sample(features, present, seed)
    distinct = np.unique(sample, axis=0)
    return FeatureFacts(
        name=modality,
        width=features.shape[1],
        dtype=str(features.dtype),
        num_present=int(present.sum()),
        num_constant_rows=num_constant_rows if features.shape[1] > 1 else 0,
        num_constant_columns=int((low == high).sum()),
        norms=norms.spread(),
        num_sampled=len(sample),
        num_duplicates=len(sample) - len(distinct),
        cosines=_cosines(sample),
        encoder=stated(data.manifest["modalities"][modality], "encoder") or None,
    )


def _sample(features: np.ndarray, present: np.ndarray, seed: int) -> np.ndarray:
    """Return up to `SAMPLE` different rows of items that have the modality, float32, in order of item."""
    items = np.flatnonzero(present)
    if len(items) > SAMPLE:
        items = np.sort(np.random.default_rng(seed).choice(items, SAMPLE, replace=False))
    return np.asarray(features[items], np.float32)


def _cosines(rows: np.ndarray) -> Spread | None:
    if len(rows) < 2:
        return None
    scaled = rows.astype(np.float64)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    pairs = (scaled @ scaled.T)[np.triu_indices(len(rows), 1)]
    return spread_of(np.sort(pairs))
