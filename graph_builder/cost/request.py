"""The inputs of a prediction, and its result for one stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from configs.schema import GraphConfig


@dataclass(frozen=True)
class ModalitySize:
    """A modality's width d and the bytes s of a value. All N items are assumed to have the modality."""

    width: int
    itemsize: int = 4


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """The graph to build, and the machines to build it on.

    Attributes:
        num_items: N.
        modalities: name -> size of each modality.
        num_pairs: pairs of positions within the window, each counted once (P is twice this number). It corresponds to
            the manifest's pairs_counted, which leaves out pairs of an item with itself.
        options: the knobs of the build.
        workers: cores that run tasks.
        gpus: number of GPUs; 0: everything runs on cores.
        longest: the largest gap, which decides how many bytes a gap takes.
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
        """The number of tasks that run at the same time, in stages on cores."""
        return max(1, self.workers // self.options.cpus_per_task)

    @property
    def tasks(self) -> int:
        """The number of tasks that run at the same time, in stages that use GPUs if there are any."""
        return self.gpus or self.core_tasks


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The prediction for one stage.

    Attributes:
        name: of the stage.
        num_tasks: number of tasks.
        terms: seconds by term.
        memory: bytes of memory of one process.
        bytes_moved: bytes that all tasks read and write.
    """

    name: str
    num_tasks: int
    terms: Mapping[str, float]
    memory: int
    bytes_moved: int

    @property
    def seconds(self) -> float:
        return sum(self.terms.values())
