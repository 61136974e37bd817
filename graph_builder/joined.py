"""The graphs of several datasets as one: their items side by side, without a copy on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from configs.places import shown
from contracts.errors import InputError
from contracts.rows import Rows
from graph_builder.graph import LAYOUT_FIELDS, Graph
from storage.fingerprints import joined_digest
from storage.stacked_rows import EqualRows, NumberedRows, StackedRows


class JoinedGraph:
    """The graphs of several datasets, one for each in their order (implements `contracts.graph_rows.GraphRows`).

    No item is related to one of another dataset. The items of the second graph follow those of the first, and so do
    its centres. Items of a graph that lacks a modality lack it: each is its own only neighbour and has no centre.
    Neighbours, clusters and rows of O are read from the files when they are asked for.

    Attributes:
        graphs: the graphs.
        num_items: N, of all graphs.
        modalities: the names that any of the graphs has, ascending.
        fingerprint: of the graphs' fingerprints in their order.
        parameters: the knobs of `GraphConfig` that shaped every one of the graphs; only num_centers may differ, because
            datasets differ in size, and is that of the first.
    """

    def __init__(self, graphs: Sequence[Graph]) -> None:
        """Join opened graphs.

        Raises:
            InputError: they were built with different knobs. The message names two graphs, the knob and both values.
        """
        assert len(graphs) > 1, "one graph is itself"
        self.graphs = tuple(graphs)
        self.parameters = _common_parameters(graphs)
        self.fingerprint = joined_digest([graph.fingerprint for graph in graphs])
        self.modalities = tuple(sorted({name for graph in graphs for name in graph.modalities}))
        counts = [graph.num_items for graph in graphs]
        self.num_items = sum(counts)
        self._firsts = np.concatenate([[0], np.cumsum(counts[:-1], dtype=np.int64)])
        self._width = int(self.parameters["num_neighbors"])

    def validate(self) -> None:
        """Compute the checksum of all files of every graph and compare it; see `Graph.validate`."""
        for graph in self.graphs:
            graph.validate()

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return normalised rows of O as requested: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz]."""
        wanted = np.asarray(items, dtype=np.int64)
        owner = np.searchsorted(self._firsts, wanted, side="right") - 1
        lengths = np.zeros(len(wanted), dtype=np.int64)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for number in np.flatnonzero(np.bincount(owner)):
            places = np.flatnonzero(owner == number)
            indptr, others, weights = self.graphs[number].cooccurrence_rows(wanted[places] - self._firsts[number])
            lengths[places] = np.diff(indptr)
            found.append((places, others + self._firsts[number], weights))
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        ids, values = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.float32)
        for places, others, weights in found:
            within = np.arange(len(others)) - np.repeat(np.cumsum(lengths[places]) - lengths[places], lengths[places])
            to = np.repeat((ends - lengths)[places], lengths[places]) + within
            ids[to], values[to] = others, weights
        return np.concatenate([[0], ends]), ids, values

    def neighbors(self, modality: str) -> Rows:
        """Return the top-H neighbours, int64 [N, H], best first, padded with -1; of a missing item, itself, then -1."""
        parts = self._parts(modality, Graph.neighbors, lambda graph: NumberedRows(graph.num_items, self._width))
        return StackedRows(parts, shifts=self._firsts.tolist())

    def neighbor_scores(self, modality: str) -> Rows:
        """Return the cosines of `neighbors`, float32 [N, H]; 0 where padded or missing."""

        def missing(graph: Graph) -> Rows:
            return EqualRows(value=0, shape=(graph.num_items, self._width), dtype=np.float32)

        return StackedRows(self._parts(modality, Graph.neighbor_scores, missing))

    def clusters(self, modality: str) -> Rows:
        """Return the cluster of each item, int64 [N]; -1 where the modality is missing."""
        parts = self._parts(
            modality, Graph.clusters, lambda graph: EqualRows(value=-1, shape=(graph.num_items,), dtype=np.int64)
        )
        centers = [graph.num_centers(modality) if modality in graph.modalities else 0 for graph in self.graphs]
        return StackedRows(parts, shifts=[sum(centers[:number]) for number in range(len(centers))])

    def num_centers(self, modality: str) -> int:
        """Return k, the number of centres of all graphs, including those of empty clusters."""
        return sum(graph.num_centers(modality) for graph in self.graphs if modality in graph.modalities)

    def centers(self, modality: str) -> np.ndarray:
        """Return the centres in feature space, float32 [k, d_m]."""
        return np.concatenate([graph.centers(modality) for graph in self.graphs if modality in graph.modalities])

    def _parts(
        self, modality: str, of: Callable[[Graph, str], np.ndarray], missing: Callable[[Graph], Rows]
    ) -> list[Rows]:
        assert modality in self.modalities, modality
        return [of(graph, modality) if modality in graph.modalities else missing(graph) for graph in self.graphs]


# The graph of a run.
RunGraph = Graph | JoinedGraph

_MAY_DIFFER = {"num_centers"}


def _common_parameters(graphs: Sequence[Graph]) -> dict[str, Any]:
    first, *others = graphs
    for other in others:
        for name in sorted((first.parameters.keys() | other.parameters.keys()) - LAYOUT_FIELDS - _MAY_DIFFER):
            ours, theirs = first.parameters.get(name), other.parameters.get(name)
            if ours != theirs:
                raise InputError(
                    f"graph={shown([str(graph.path) for graph in graphs])}: {first.path} was built with "
                    f"graph_options.{name}={ours!r} and {other.path} with {theirs!r}; build both with the same "
                    "graph_options"
                )
    return first.parameters
