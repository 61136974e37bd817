"""Modal graphs: the exact cosine top-H of the injected features (MDSRec Eq. 3), a block of rows a task.

A task holds its rows and walks over all blocks of items, so the score matrix exists one
block_rows x block_rows tile at a time. `kernels.cosine_topk` states the rule and the proof.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from configs.schema import GraphConfig
from graph_builder.executor import Executor
from graph_builder.injection import FeatureSpec
from graph_builder.work import load_array, row_range, save_block
from kernels.backend import array_module
from kernels.cosine_topk import exact_neighbors


def build_neighbors(spec: FeatureSpec, options: GraphConfig, executor: Executor) -> dict[str, Any]:
    """Write GRAPH/neighbors/<modality>.npy and .scores.npy; returns what the manifest says of them."""
    stage = f"neighbors-{spec.modality}"
    folder = spec.work.graph / "neighbors"
    certified = spec.work.path / "features" / f"{spec.modality}.certified.npy"
    targets = {
        "ids": folder / f"{spec.modality}.npy",
        "scores": folder / f"{spec.modality}.scores.npy",
        "certified": certified,
    }
    function = functools.partial(_neighbor_block, spec, stage, options.num_neighbors, options.include_self)
    spec.work.run_row_stage(stage, function, spec.block_rows, spec.num_items, targets, executor, on_gpu=True)
    fallback = spec.num_items - int(np.count_nonzero(load_array(certified)))
    return {"fallback_rows": fallback, "certified_fraction": 1 - fallback / spec.num_items}


def _neighbor_block(spec: FeatureSpec, stage: str, num_neighbors: int, include_self: bool, index: int) -> None:
    ids, scores, certified = exact_neighbors(
        load_array(spec.injected),
        load_array(spec.squares),
        row_range(index, spec.block_rows, spec.num_items),
        num_neighbors,
        include_self,
        spec.block_rows,
        array_module(spec.backend),
    )
    save_block(spec.work.block_path(stage, index), ids=ids, scores=scores, certified=certified)
