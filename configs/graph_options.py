"""Knobs of the item graph and of its build."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt

from configs.knobs import GRAPH, RUNNING, Section, knob


class GraphConfig(Section):
    """The item graph and its build (`jobs/build_graph.py`)."""

    distance_weighting: StrictBool = knob(
        True,
        GRAPH,
        "whether a pair of items adds 1/distance of their positions to co-occurrence O; false: every pair adds 1",
    )
    window: StrictInt | None = knob(
        None, GRAPH, "largest distance of positions at which two items count as a pair; null: no limit", ge=1
    )
    normalization: Literal["row_l2", "row_l1", "none"] = knob(
        "row_l2", GRAPH, "norm by which each row of O is divided; none: O is left as it is"
    )
    max_neighbors: StrictInt | None = knob(
        None, GRAPH, "number of entries kept in each row of O, the strongest first; null: all", ge=1
    )
    mu: StrictFloat = knob(0.2, GRAPH, "mu_m of Eq. 3: weight of O E_m in the injected features", ge=0)
    num_neighbors: StrictInt = knob(5, GRAPH, "H: number of neighbours per item and modality", ge=1)
    include_self: StrictBool = knob(True, GRAPH, "whether an item counts as one of its own H neighbours")
    num_centers: StrictInt = knob(16, GRAPH, "k: number of interest centres per modality", ge=1)
    kmeans_iterations: StrictInt = knob(50, GRAPH, "largest number of Lloyd iterations of k-means", ge=1)
    spherical: StrictBool = knob(
        False, GRAPH, "whether k-means works on rows of unit length and rescales its centres to unit length"
    )
    block_rows: StrictInt = knob(
        2048, RUNNING, "number of rows in a stored block of O, and in one task of the injection", ge=1
    )
    rows_per_task: StrictInt | None = knob(
        None,
        RUNNING,
        "number of items in each of the two row ranges that one neighbour task compares; null: chosen by the number "
        "of items and the backend",
        ge=1,
    )
    precision: Literal["auto", "float32", "float16"] = knob(
        "auto",
        RUNNING,
        "dtype of the approximate scores that select candidate neighbours (the final neighbours are exact in either); "
        "auto: float16 on GPUs, float32 on CPUs",
    )
    backend: Literal["auto", "cpu", "cuda"] = knob(
        "auto", RUNNING, "device of the graph's kernels; auto: cuda if the cluster has GPUs, else cpu"
    )
    cpus_per_task: StrictInt = knob(1, RUNNING, "CPU cores that each task reserves; also its threads", ge=1)
    gpus_per_task: StrictFloat = knob(1.0, RUNNING, "share of a GPU that each task on a GPU reserves", gt=0)
