"""Opens and checks the inputs of a run (dataset, graph, features), and builds the system for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from configs.places import listed, shown
from configs.schema import Config
from contracts.errors import InputError
from contracts.graph_rows import GraphRows
from contracts.item_plan import ItemNeeds
from contracts.rows import Rows
from data.joined import RunDataset, open_datasets
from data.sampling.item_planner import ItemPlanner, check_needs
from data.sampling.user_share import ALL_USERS, UserShare
from data.sampling.warm_graph import WarmGraph
from distributed.checkpoints.index import RANKING_GRAPH, encoder_key
from graph_builder.graph import Graph, local_folder, read_manifest
from graph_builder.joined import JoinedGraph, RunGraph
from model.blocks.item_table import ItemTable
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_criterion, build_model
from storage.object_cache import fetched


@dataclass
class Inputs:
    """An opened dataset, and the graph that belongs to it.

    Attributes:
        dataset: the opened dataset, or several of them as one.
        graph: the opened graph, or those of several datasets as one; None if neither training nor ranking reads a
            graph.
        trains_on_graph: whether training reads the graph. If not, only ranking does.
        users: the users whose sequences are trained: all, unless `open_inputs` sets another share.
    """

    dataset: RunDataset
    graph: RunGraph | None
    trains_on_graph: bool = True
    users: UserShare = field(default=ALL_USERS, init=False)

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of the dataset and graph that a checkpoint's weights must have been trained on."""
        graph = {"graph": self.graph.fingerprint} if self.graph and self.trains_on_graph else {}
        return {"dataset": self.dataset.fingerprint, **graph}

    @property
    def result_fingerprints(self) -> dict[str, str]:
        """The fingerprints of all that metrics depend on: `fingerprints`, and the graph if only ranking reads it."""
        ranking = {RANKING_GRAPH: self.graph.fingerprint} if self.graph and not self.trains_on_graph else {}
        return {**self.fingerprints, **ranking}

    @property
    def encoders(self) -> dict[str, str]:
        """For each modality whose encoder the dataset names: the key of a progress record, and the encoder's label."""
        return {encoder_key(name): label for name, label in self.dataset.encoders.items()}

    @property
    def ancestors(self) -> dict[str, int]:
        """The datasets whose items are the first ones of this one, with the same numbers (`Dataset.ancestors`)."""
        return self.dataset.ancestors

    @cached_property
    def relations(self) -> GraphRows | None:
        """The graph as training and ranking read it: without items that are held out of training."""
        cold = self.dataset.cold_items() if self.graph is not None else None
        return self.graph if self.graph is None or cold is None else WarmGraph(self.graph, cold)

    @cached_property
    def warm(self) -> np.ndarray | None:
        """The items that are not held out of training, int64, ascending; None: no item is."""
        cold = self.dataset.cold_items()
        return None if cold is None else np.flatnonzero(~cold)

    @property
    def popularity(self) -> np.ndarray:
        """The number of interactions of each item in the sequences that are trained: int64 [N]."""
        return self.users.popularity(self.dataset)

    def planner(self, needs: ItemNeeds) -> ItemPlanner:
        """Return a planner of the items of a step, for a model with these needs."""
        popularity = popularity_order(self.popularity) if needs.popularity else None
        return ItemPlanner(
            needs=needs,
            num_items=self.dataset.num_items,
            graph=self.relations,
            features=self._features(needs),
            popularity=popularity,
        )

    def check_needs(self, needs: ItemNeeds) -> None:
        """Raise if a model with these needs cannot be trained on these inputs; see `item_plan.check_needs`."""
        check_needs(needs, self.dataset.num_items, self.graph, self._features(needs))

    def item_planner(self, needs: ItemNeeds) -> ItemPlanner:
        """Return a planner of blocks of candidates.

        Candidates need neither centres nor co-occurrence, so a block does not look up the items of those.
        """
        return self.planner(replace(needs, centers=(), cooccurrence=False))

    def _features(self, needs: ItemNeeds) -> dict[str, Rows]:
        return {name: self.dataset.features(name) for name in needs.features}


def open_inputs(config: Config, expected_graph: Mapping[str, Any] | None = None) -> Inputs:
    """Open the dataset and the graph that a config names.

    Args:
        config: its `dataset` must be set. Its `graph` must be set if training or ranking reads a graph.
        expected_graph: graph parameters that the user stated. The graph must have been built with them.

    Raises:
        InputError: a missing, unfinished or damaged folder; a graph of another dataset or other parameters.
    """
    dataset = open_dataset_of(config)
    users = UserShare(config.training.user_share, config.seed)
    if not config.reads_graph:
        inputs = Inputs(dataset, None)
        inputs.users = users
        return inputs
    if config.graph is None:
        who = f"model.name={config.model.name}" if config.trains_on_graph else "evaluation.cooccurrence_weight"
        raise InputError(f"graph: not set, and {who} needs one; build it with jobs/build_graph.py")
    graph = _open_graphs(listed(config.graph), dataset, users, dict(expected_graph or {}))
    inputs = Inputs(dataset, graph, config.trains_on_graph)
    inputs.users = users
    return inputs


def _check_same_users(graph: Graph, users: UserShare, path: str) -> None:
    """Raise unless the graph counts the sequences that are trained, and no others."""
    if graph.user_share != users.share:
        counted = "all users" if graph.user_share == 1 else f"a share {graph.user_share} of the users"
        raise InputError(
            f"graph={path}: counts the sequences of {counted}, but "
            f"training.user_share={users.share}; build a graph for this share with jobs/build_graph.py "
            f"--set training.user_share={users.share} --set seed={users.seed}"
        )
    if not users.is_all and graph.seed != users.seed:
        raise InputError(
            f"graph={path}: counts the sequences of the users that seed={graph.seed} chooses, but seed={users.seed} "
            f"trains others; build a graph of the same seed with jobs/build_graph.py "
            f"--set training.user_share={users.share} --set seed={users.seed}"
        )


def open_dataset_of(config: Config) -> RunDataset:
    """Open the dataset that a config names, or all of them as one.

    Raises:
        InputError: none is named, or see `open_datasets`.
    """
    if config.dataset is None:
        raise InputError("dataset: not set; add --set dataset=DATASET, a folder written by jobs/prepare_data.py")
    return open_datasets(listed(config.dataset))


def _open_graphs(paths: Sequence[str], dataset: RunDataset, users: UserShare, expected: Mapping[str, Any]) -> RunGraph:
    """Open the graph of each dataset, in their order.

    Raises:
        InputError: there are more or fewer graphs than datasets, they are in another order, one counts other users, or
            see `Graph.open`.
    """
    parts = dataset.parts
    if len(paths) != len(parts):
        raise InputError(
            f"graph={shown(paths)}: {len(paths)} named, and {len(parts)} in dataset={dataset.path}; name one graph for "
            "each dataset, in the same order"
        )
    if len(parts) > 1:
        _check_order(paths, dataset)
        # Datasets differ in size, so each graph may have its own number of centres.
        expected = {name: value for name, value in expected.items() if name != "num_centers"}
    graphs = [
        open_graph(path, dataset_fingerprint=part.fingerprint, dataset_path=part.path, expected=expected)
        for path, part in zip(paths, parts, strict=True)
    ]
    for graph, path in zip(graphs, paths, strict=True):
        _check_same_users(graph, users, path)
    return graphs[0] if len(graphs) == 1 else JoinedGraph(graphs)


def _check_order(paths: Sequence[str], dataset: RunDataset) -> None:
    """Refuse a graph that belongs to another of the datasets than the one in its place."""
    known = {part.fingerprint: part.path for part in dataset.parts}
    for number, (path, part) in enumerate(zip(paths, dataset.parts, strict=True), start=1):
        owner = read_manifest(local_folder(fetched(path, "graph")))["dataset"]["fingerprint"]
        if owner != part.fingerprint and owner in known:
            raise InputError(
                f"graph={shown(paths)}: number {number}, {path}, is the graph of dataset {known[owner]}, but number "
                f"{number} of dataset={dataset.path} is {part.path}; name the graphs in the order of their datasets"
            )


def open_graph(path: str, **checks: Any) -> Graph:
    """Open a graph as `Graph.open` does. `path` may be a URI; the graph is then copied to this node first.

    Raises:
        InputError: see `object_cache.fetched` and `Graph.open`.
    """
    return Graph.open(fetched(path, "graph"), **checks)


def build_system(config: Config, inputs: Inputs) -> RecommenderSystem:
    """Build the configured model on CPU, with an item table that is not filled yet. The seed decides the weights."""
    dataset, graph = inputs.dataset, inputs.graph
    info = CatalogueInfo(
        num_items=dataset.num_items,
        modalities=graph.modalities if graph else dataset.modalities,
        feature_dims={m: dataset.features(m).shape[1] for m in dataset.modalities},
        num_centers={m: graph.num_centers(m) for m in graph.modalities} if graph else {},
    )
    torch.manual_seed(config.seed)
    recommender = build_model(config.model, info)
    num_candidates = dataset.num_items if inputs.warm is None else len(inputs.warm)
    recommender.criterion = build_criterion(config.training, num_candidates)
    # The table's rows are filled after sharding. Until then the table is on the meta device and takes no memory.
    table = None
    if recommender.needs.id_rows:
        table = ItemTable(
            num_items=dataset.num_items,
            dim=config.model.dim,
            init_std=config.model.init_std,
            device=torch.device("meta"),
        )
    return RecommenderSystem(table, recommender)


def popularity_order(counts: np.ndarray) -> np.ndarray:
    """Return each item's dense rank by its number of training interactions, int64 [N], as float32 [N].

    Items with equal counts have equal ranks; the least count has rank 0. Ranks order items as their counts do. They
    are used because float32 does not represent every count above 2^24 exactly.
    """
    return np.unique(counts, return_inverse=True)[1].astype(np.float32)
