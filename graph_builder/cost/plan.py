"""What a graph build will take, before it runs: seconds, memory and bytes per stage, from ceilings.

Every formula of the prediction is in the docstring of its stage, in `stages` and `neighbor_search`. A
stage's seconds are the sum of its terms, each an amount of work over the rate of one worker
(`ceilings.Ceilings`) and over the workers that have a task: nothing is assumed to overlap. Not in it: the
start of Ray, some milliseconds per task, and idle workers while the last tasks of a stage end, but for
those of the neighbour search.

Legend: N items, d width, s bytes of a raw feature, P directed pairs, nnz entries of O, H neighbours, k
centres, W workers, R rows of a neighbour task's ranges, S ranges, C places of a candidate list.
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
    """The stages in the order of the build, and what they were predicted from."""

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
    """The stages of a build; pure arithmetic."""
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
    """P: sum over histories of n items and gaps g up to G = min(window, n - 1) of 2 (n - g)."""
    lengths = np.asarray(lengths, dtype=np.int64)
    gaps = np.maximum(lengths - 1, 0)
    if window is not None:
        gaps = np.minimum(gaps, window)
    return int((2 * gaps * lengths - gaps * (gaps + 1)).sum())
