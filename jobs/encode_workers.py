"""Decides where jobs/encode_items.py encodes: in this process, or on a Ray cluster."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import cast

import torch

from configs.schema import ClusterConfig
from contracts.errors import InputError
from contracts.terminal import shows_bars
from data.encoding.encode import OnCluster
from data.encoding.workers import Places
from distributed.run_location import device_type, named_address, runs_in_this_process


def workers(
    engine: str, cluster: ClusterConfig, gpus_per_worker: float | None, output: Path
) -> tuple[OnCluster | None, Places]:
    """Return the functions that work on a cluster, None for this process; and the workers.

    Args:
        engine: "serial", "ray" or "auto".
        cluster: the cluster's settings.
        gpus_per_worker: GPUs that each worker reserves; None: one if the cluster has GPUs.
        output: the folder to write, which every node must see.

    Raises:
        InputError: the cluster cannot be joined, Ray is missing, or a cluster is named and this process is asked for.
    """
    setting, address = named_address(cluster)
    if engine == "serial" and address:
        raise InputError(f"{setting}={address}: --engine serial encodes in this process; leave one of the two out")
    if engine == "ray" or (engine == "auto" and not _runs_here(cluster)):
        return _on_cluster(cluster, gpus_per_worker, output)
    places = _here(cluster)
    if shows_bars():
        print(f"encoding in this process, on {'a GPU' if places.device == 'cuda' else 'the CPU'}", flush=True)
    return None, places


def _runs_here(cluster: ClusterConfig) -> bool:
    """Return whether `--engine auto` means this process."""
    is_set = "num_workers" in cluster.model_fields_set
    one = cluster if is_set else cluster.model_copy(update={"num_workers": 1})
    return runs_in_this_process(one) or importlib.util.find_spec("ray") is None


def _here(cluster: ClusterConfig) -> Places:
    device = device_type(cluster.model_copy(update={"num_workers": 1, "address": None})) or "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
    return Places(cpus=cluster.cpus_per_worker, device=device)


def _on_cluster(cluster: ClusterConfig, gpus: float | None, output: Path) -> tuple[OnCluster, Places]:
    """Join or start the cluster.

    Raises:
        InputError: it cannot be joined, GPUs are asked for and missing, or a node does not see the output's folder.
    """
    from distributed.ray.cluster import check_seen_by_all_nodes, cluster_in_words, connect, workers_use_gpu

    print(f"encoding with {cluster.num_workers} workers: {cluster_in_words(cluster)}", flush=True)
    connect(cluster)
    check_seen_by_all_nodes(output, f"--output {output}")
    uses_gpu = gpus != 0 and (bool(gpus) or workers_use_gpu(cluster))
    places = Places(
        most_workers=cluster.most_workers,
        cpus=cluster.cpus_per_worker,
        gpus=(gpus or 1.0) if uses_gpu else 0.0,
        device="cuda" if uses_gpu else "cpu",
    )
    return cast(OnCluster, importlib.import_module("data.encoding.ray_parts")), places
