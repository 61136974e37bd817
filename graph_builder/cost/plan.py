"""Predict the seconds, memory and bytes of each stage of a graph build, from the rates of a worker.

The docstring of each function in `stages` and `neighbor_search` states its stage's formulas. A stage's seconds are
the sum of its terms. A term is an amount of work, divided by the rate of one worker (`ceilings.Ceilings`) and by the
number of workers that have a task. No overlap of terms is assumed. The prediction leaves out the start of Ray, some
milliseconds per task, and the time that workers are idle while the last tasks of a stage run (except in the neighbour
search).

Legend: N items, d width, s bytes of a raw feature, P directed pairs, nnz entries of O, H neighbours, k centres, W
workers, R rows of a range in the neighbour search, S ranges, C places of a candidate list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graph_builder.cost.ceilings import Ceilings
from graph_builder.cost.neighbor_search import neighbors_stage
from graph_builder.cost.request import PlanRequest, Stage
from graph_builder.cost.stages import clusters_stage, cooccurrence_stage, features_stage, inject_stage


@dataclass(frozen=True)
class Plan:
    """The predicted stages in the order of the build, and the inputs of the prediction."""

    request: PlanRequest
    ceilings: Ceilings
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        return max(stage.memory for stage in self.stages)


def predict(request: PlanRequest, ceilings: Ceilings) -> Plan:
    """Predict all stages of a build. This is pure arithmetic."""
    stages = [features_stage(name, request, ceilings) for name in request.modalities]
    stages.append(cooccurrence_stage(request, ceilings))
    for name in request.modalities:
        stages += [
            inject_stage(name, request, ceilings),
            clusters_stage(name, request, ceilings),
            neighbors_stage(name, request, ceilings),
        ]
    return Plan(request, ceilings, tuple(stages))


def directed_pairs(lengths: np.ndarray, window: int | None) -> int:
    """Return P: the sum of 2 (n - g) over histories of n items and over gaps g up to min(window, n - 1)."""
    lengths = np.asarray(lengths, dtype=np.int64)
    gaps = np.maximum(lengths - 1, 0)
    if window is not None:
        gaps = np.minimum(gaps, window)
    return int((2 * gaps * lengths - gaps * (gaps + 1)).sum())
