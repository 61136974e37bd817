"""The points of a scaling experiment as plain data; importable without PyTorch, so that workers start quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hashed_graph import HashedGraph
from configs.schema import Config

MODALITIES = ("image", "text")
PARTS = ("loader", "copy", "lookup", "views", "towers", "loss", "backward", "optimiser")


@dataclass(frozen=True)
class Case:
    """What each rank needs to measure one point of a curve, as plain data.

    Attributes:
        config: the config; its `dataset` is set, and `cluster.num_workers` is the number of ranks.
        modalities: modalities of the hashed graph.
        num_neighbors: H of the hashed graph.
        num_cooccurrences: entries in each row of the hashed graph's O.
        num_centers: k of the hashed graph.
        steps: steps to measure.
        warmup: steps before the measured ones.
        output: JSON file that rank 0 writes.
    """

    config: dict[str, Any]
    modalities: tuple[str, ...]
    num_neighbors: int
    num_cooccurrences: int
    num_centers: int
    steps: int
    warmup: int
    output: str

    def graph(self, num_items: int) -> HashedGraph:
        return HashedGraph(num_items, self.modalities, self.num_neighbors, self.num_cooccurrences, self.num_centers)


@dataclass(frozen=True)
class Point:
    """What varies between measurements: workers, targets per step over all workers, and items."""

    workers: int
    batch_size: int
    items: int

    @property
    def name(self) -> str:
        return f"w{self.workers}-b{self.batch_size}-n{self.items}"


def points_of_curves(workers: list[int], items: list[int], batch_size: int) -> dict[str, list[Point]]:
    """Return the points of each curve. A point may be on several curves; it is measured once."""
    return {
        "strong": [Point(world, batch_size, items[0]) for world in workers],
        "weak": [Point(world, batch_size * world, items[0]) for world in workers],
        "catalogue": [Point(max(workers), batch_size, count) for count in items],
    }


def case_of(
    point: Point,
    base: Config,
    dataset: str,
    scratch: str,
    *,
    steps: int,
    warmup: int,
    neighbors: int,
    cooccurrences: int,
    centers: int,
) -> Case:
    """Return what the ranks need to measure a point."""
    training = base.training.model_copy(update={"batch_size": point.batch_size})
    cluster = base.cluster.model_copy(update={"num_workers": point.workers})
    config = base.model_copy(update={"dataset": dataset, "training": training, "cluster": cluster})
    return Case(
        config=config.model_dump(mode="json"),
        modalities=MODALITIES,
        num_neighbors=neighbors,
        num_cooccurrences=cooccurrences,
        num_centers=centers,
        steps=steps,
        warmup=warmup,
        output=str(Path(scratch) / f"{point.name}.json"),
    )
