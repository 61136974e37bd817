"""The points of a scaling experiment, as plain data: importable without torch, for workers that start quickly."""

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
    """One point of a curve: everything a rank needs to know, as plain data.

    Attributes:
        config: its `dataset` is set, its cluster.num_workers is the world.
        num_neighbors, num_cooccurrences, num_centers: of the hashed graph.
        steps, warmup: measured, and taken before.
        output: JSON that rank 0 writes.
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
    """A measurement: workers, targets of a step over all of them, items."""

    workers: int
    batch_size: int
    items: int

    @property
    def name(self) -> str:
        return f"w{self.workers}-b{self.batch_size}-n{self.items}"


def points_of_curves(workers: list[int], items: list[int], batch_size: int) -> dict[str, list[Point]]:
    """The points of each curve; a point may be on several and is measured once."""
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
    """What the ranks of a point are told."""
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
