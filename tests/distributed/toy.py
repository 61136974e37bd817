"""A toy dataset and a toy graph in memory, with the same attributes as the real ones."""

from __future__ import annotations

import numpy as np

from configs.schema import Config
from contracts.item_plan import ItemNeeds
from data.sampling.item_planner import ItemPlanner
from model.blocks.item_table import ItemTable
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_criterion, build_model
from tests.sequences import Sequences

NUM_ITEMS, NUM_USERS, MODALITIES, NUM_CENTERS = 103, 40, ("image", "text"), 4


class ToyGraph:
    """A graph with a random sparse O, random neighbours and random clusters; the last ten items have no image."""

    num_items = NUM_ITEMS

    def __init__(self) -> None:
        random = np.random.default_rng(5)
        self._o = random.random((NUM_ITEMS, NUM_ITEMS)) * (random.random((NUM_ITEMS, NUM_ITEMS)) < 0.05)
        self._neighbors = {m: random.integers(0, NUM_ITEMS, (NUM_ITEMS, 3)) for m in MODALITIES}
        self._clusters = {m: random.integers(0, NUM_CENTERS, NUM_ITEMS) for m in MODALITIES}
        self._clusters["image"][-10:] = -1
        self._neighbors["image"][-10:] = -1
        self._neighbors["image"][-10:, 0] = np.arange(NUM_ITEMS - 10, NUM_ITEMS)

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self._o[items]
        kept = rows > 0
        indptr = np.concatenate([[0], kept.sum(1).cumsum()])
        return indptr, np.nonzero(kept)[1], rows[kept].astype(np.float32)

    def neighbors(self, modality: str) -> np.ndarray:
        return self._neighbors[modality]

    def clusters(self, modality: str) -> np.ndarray:
        return self._clusters[modality]

    def num_centers(self, modality: str) -> int:  # noqa: ARG002
        return NUM_CENTERS


def toy_data() -> Sequences:
    """Return random sequences of 3 to 12 items."""
    random = np.random.default_rng(4)
    lengths = random.integers(3, 13, NUM_USERS)
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = random.integers(0, NUM_ITEMS, offsets[-1])
    return Sequences(NUM_ITEMS, NUM_USERS, offsets, items, lengths - 2, lengths - 1)


def toy_system(config: Config) -> RecommenderSystem:
    info = CatalogueInfo(
        num_items=NUM_ITEMS,
        modalities=MODALITIES,
        feature_dims=dict.fromkeys(MODALITIES, 6),
        num_centers=dict.fromkeys(MODALITIES, NUM_CENTERS),
    )
    recommender = build_model(config.model, info)
    recommender.criterion = build_criterion(config.training, NUM_ITEMS)
    table = ItemTable(num_items=NUM_ITEMS, dim=config.model.dim, init_std=config.model.init_std, device="meta")
    return RecommenderSystem(table if recommender.needs.id_rows else None, recommender)


def toy_planner(needs: ItemNeeds) -> ItemPlanner:
    return ItemPlanner(
        needs=needs,
        num_items=NUM_ITEMS,
        graph=ToyGraph(),
        features={m: x for m, x in toy_features().items() if m in needs.features},
    )


def toy_features() -> dict[str, np.ndarray]:
    """Return random features, float32 [N, 6] each; the last ten items have no image."""
    random = np.random.default_rng(6)
    features = {m: random.normal(size=(NUM_ITEMS, 6)).astype(np.float32) for m in MODALITIES}
    features["image"][-10:] = 0
    return features
