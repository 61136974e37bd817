"""Knobs of the item graph and of how it is built."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt

from configs.knobs import GRAPH, RUNNING, Section, knob


class GraphConfig(Section):
    """How item graphs are built (`jobs/build_graph.py`)."""

    distance_weighting: StrictBool = knob(True, GRAPH, "O adds 1/|pos_i - pos_j| per pair; False adds 1")
    window: StrictInt | None = knob(None, GRAPH, "largest position gap counted as a pair; null: all pairs", ge=1)
    normalization: Literal["row_l2", "row_l1", "none"] = knob("row_l2", GRAPH, "of the rows of O")
    max_neighbors: StrictInt | None = knob(None, GRAPH, "strongest co-occurrences kept per row; null: all", ge=1)
    mu: StrictFloat = knob(0.2, GRAPH, "mu_m: weight of O E_m in the injected features", ge=0)
    num_neighbors: StrictInt = knob(5, GRAPH, "H: neighbours per item and modality", ge=1)
    include_self: StrictBool = knob(True, GRAPH, "whether an item is one of its own H neighbours")
    num_centers: StrictInt = knob(16, GRAPH, "k: interest centres per modality", ge=1)
    kmeans_iterations: StrictInt = knob(50, GRAPH, "Lloyd iterations at most", ge=1)
    spherical: StrictBool = knob(False, GRAPH, "k-means on unit rows with renormalised centres")
    block_rows: StrictInt = knob(2048, RUNNING, "rows of a stored block of O, and of an injection task", ge=1)
    rows_per_task: StrictInt | None = knob(
        None, RUNNING, "rows on each side of a neighbour task; null: by the number of items and the backend", ge=1
    )
    precision: Literal["auto", "float32", "float16"] = knob(
        "auto", RUNNING, "of candidate scores (lists are exact either way); auto: float16 on GPUs, else float32"
    )
    backend: Literal["auto", "cpu", "cuda"] = knob("auto", RUNNING, "where the kernels run")
    cpus_per_task: StrictInt = knob(1, RUNNING, "cores, and threads, of a task", ge=1)
    gpus_per_task: StrictFloat = knob(1.0, RUNNING, "share of a GPU that a task on a GPU takes", gt=0)
