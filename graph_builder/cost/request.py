"""What a prediction is asked for and what it says of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from configs.schema import GraphConfig


@dataclass(frozen=True)
class ModalitySize:
    """d and s of a modality; all N items are taken to have it."""

    width: int
    itemsize: int = 4


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is to be built, and on what.

    Attributes:
        num_items: N. modalities: their sizes.
        num_pairs: pairs of positions within the window, each once (P = twice that), as the manifest's
            pairs_counted, which leaves out pairs of an item with itself.
        longest: the largest gap, which decides the bytes of one.
        options: the knobs of the build.
        workers: cores that run tasks. gpus: GPUs; 0: everything runs on the cores.
    """

    num_items: int
    modalities: Mapping[str, ModalitySize]
    num_pairs: int
    options: GraphConfig
    workers: int = 1
    gpus: int = 0
    longest: int = 50

    @property
    def core_tasks(self) -> int:
        """Tasks at a time where each takes cores."""
        return max(1, self.workers // self.options.cpus_per_task)

    @property
    def tasks(self) -> int:
        """Tasks at a time of what runs on GPUs where there are any."""
        return self.gpus or self.core_tasks


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's prediction: seconds by term, bytes a process holds, bytes read and written by all tasks."""

    name: str
    num_tasks: int
    terms: Mapping[str, float]
    memory: int
    bytes_moved: int

    @property
    def seconds(self) -> float:
        return sum(self.terms.values())
