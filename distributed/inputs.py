"""What a run reads, opened and checked together: dataset, graph, features; and the system built on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from configs.schema import Config
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from data.dataset import Dataset
from data.sampling.item_plan import ItemPlanner, check_needs
from distributed.checkpoints.index import RANKING_GRAPH
from graph_builder.store import Graph
from model.blocks.item_table import ItemTable
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from storage.object_storage import fetched


@dataclass
class Inputs:
    """An opened dataset, and the graph that belongs to it (None where none is read).

    Attributes:
        trains_on_graph: whether the graph is part of the model, and not only of its ranking.
    """

    dataset: Dataset
    graph: Graph | None
    trains_on_graph: bool = True

    @property
    def fingerprints(self) -> dict[str, str]:
        """What the weights of a checkpoint must have been trained on."""
        graph = {"graph": self.graph.fingerprint} if self.graph and self.trains_on_graph else {}
        return {"dataset": self.dataset.fingerprint, **graph}

    @property
    def result_fingerprints(self) -> dict[str, str]:
        """What metrics are made from: as `fingerprints`, and the graph that only the ranking reads."""
        ranking = {RANKING_GRAPH: self.graph.fingerprint} if self.graph and not self.trains_on_graph else {}
        return {**self.fingerprints, **ranking}

    def planner(self, needs: ItemNeeds) -> ItemPlanner:
        """Plans the items of a step for a model with these needs."""
        popularity = popularity_order(self.dataset) if needs.popularity else None
        return ItemPlanner(
            needs=needs,
            num_items=self.dataset.num_items,
            graph=self.graph,
            features=self._features(needs),
            popularity=popularity,
        )

    def check_needs(self, needs: ItemNeeds) -> None:
        """Whether a model with these needs can be trained on these inputs; see `item_plan.check_needs`."""
        check_needs(needs, self.dataset.num_items, self.graph, self._features(needs))

    def item_planner(self, needs: ItemNeeds) -> ItemPlanner:
        """Plans blocks of candidates, which need neither history views nor centres: no block drags in the rest."""
        return self.planner(replace(needs, centers=(), cooccurrence=False))

    def _features(self, needs: ItemNeeds) -> dict[str, np.ndarray]:
        return {name: self.dataset.features(name) for name in needs.features}


def open_inputs(config: Config, expected_graph: Mapping[str, Any] | None = None) -> Inputs:
    """Open what the config names.

    Args:
        config: its `dataset` must be set; its `graph` only where one is read.
        expected_graph: graph parameters that the user stated and the graph must have been built with.

    Raises:
        InputError: a missing, unfinished or damaged folder; a graph of another dataset or other parameters.
    """
    if config.dataset is None:
        raise InputError("dataset: not set; add --set dataset=DATASET, a folder written by jobs/prepare_data.py")
    dataset = Dataset.open(config.dataset)
    if not config.reads_graph:
        return Inputs(dataset, None)
    if config.graph is None:
        who = f"model.name={config.model.name}" if config.trains_on_graph else "evaluation.cooccurrence_weight"
        raise InputError(f"graph: not set, and {who} needs one; build it with jobs/build_graph.py")
    graph = open_graph(
        config.graph,
        dataset_fingerprint=dataset.fingerprint,
        dataset_path=config.dataset,
        expected=dict(expected_graph or {}),
    )
    return Inputs(dataset, graph, config.trains_on_graph)


def open_graph(path: str, **checks: Any) -> Graph:
    """`Graph.open` with the same arguments, where `path` may be a URI: copied to this node first, as a dataset is.

    Raises:
        InputError: see `object_storage.fetched` and `Graph.open`.
    """
    return Graph.open(fetched(path, "graph"), **checks)


def build_system(config: Config, inputs: Inputs) -> RecommenderSystem:
    """The configured model with its (still unfilled) item table, on CPU; the same weights for one seed."""
    dataset, graph = inputs.dataset, inputs.graph
    info = CatalogueInfo(
        num_items=dataset.num_items,
        modalities=graph.modalities if graph else dataset.modalities,
        feature_dims={m: dataset.features(m).shape[1] for m in dataset.modalities},
        num_centers={m: graph.num_centers(m) for m in graph.modalities} if graph else {},
    )
    torch.manual_seed(config.seed)
    recommender = build_model(config.model, info)
    # The table's rows are filled after sharding; on the meta device a 10M-row table costs nothing until then.
    table = None
    if recommender.needs.id_rows:
        table = ItemTable(
            num_items=dataset.num_items,
            dim=config.model.dim,
            init_std=config.model.init_std,
            device=torch.device("meta"),
        )
    return RecommenderSystem(table, recommender)


def popularity_order(dataset: Dataset) -> np.ndarray:
    """Each item's dense rank by training interactions, float32 [N]: equal counts, equal value, 0 the least.

    Orders items as the counts do, and stays exact in float32 where a count above 2^24 would not.
    """
    return np.unique(dataset.popularity(), return_inverse=True)[1].astype(np.float32)
