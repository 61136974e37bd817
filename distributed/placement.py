"""Where the ranks of a task run, known before Ray starts: in this process, on this machine, or on a Ray cluster."""

from __future__ import annotations

import math
import os
from typing import Literal

import torch
from pydantic import ValidationError

from configs.schema import ClusterConfig
from contracts.errors import InputError

# Set by Ray for the driver of `ray job submit`, and by nothing else.
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def is_submitted_job() -> bool:
    """Whether this process is the driver of `ray job submit`."""
    return _JOB_VARIABLE in os.environ


def named_address(cluster: ClusterConfig) -> tuple[str, str | None]:
    """The setting that names a Ray cluster to join, and its address (None: no cluster is named).

    Raises:
        InputError: RAY_ADDRESS is no address.
    """
    if cluster.address:
        return "cluster.address", cluster.address
    address = os.environ.get("RAY_ADDRESS")
    try:
        ClusterConfig(address=address or None)
    except ValidationError:
        raise InputError(
            f"RAY_ADDRESS={address}: expected HOST:PORT of a head node (often port 6379), ray://HOST:10001, auto or "
            "local (the dashboard's http:// address is for `ray job submit`); correct or unset it"
        ) from None
    return "RAY_ADDRESS", address or None


def runs_in_this_process(cluster: ClusterConfig) -> bool:
    """Whether the task needs no Ray: one worker, no cluster named, and not a job that was submitted to a cluster."""
    return cluster.num_workers == 1 and named_address(cluster)[1] is None and not is_submitted_job()


def device_type(cluster: ClusterConfig) -> Literal["cpu", "cuda"] | None:
    """The device of every rank; None where only the cluster knows, because use_gpu is "auto" and the cluster is far.

    Raises:
        InputError: `cluster.use_gpu=true`, and this machine, where the ranks will run, has fewer GPUs than ranks.
    """
    if cluster.use_gpu is False:
        return "cpu"
    if not starts_ray_here(cluster):
        return "cuda" if cluster.use_gpu is True else None
    found = torch.cuda.device_count()
    if cluster.use_gpu is True and found < cluster.fewest_workers:
        raise InputError(
            f"cluster.use_gpu=true: this machine has {found} GPUs that torch can use, for {cluster.fewest_workers} "
            "workers; lower cluster.num_workers, join a cluster with cluster.address, or set cluster.use_gpu=auto"
        )
    return "cuda" if found >= cluster.fewest_workers else "cpu"


def starts_ray_here(cluster: ClusterConfig) -> bool:
    """Whether a job that needs Ray starts a cluster of this machine alone."""
    return not is_submitted_job() and named_address(cluster)[1] in (None, "local")


def cpus_here(cluster: ClusterConfig) -> int:
    """CPUs of a Ray cluster that is started on this machine: its cores, or more where more workers take turns."""
    return max(os.cpu_count() or 1, math.ceil(cluster.most_workers * cluster.cpus_per_worker))


def check_cpus(cluster: ClusterConfig, setting: str, wanted: float) -> None:
    """Whether a task of `wanted` CPUs fits this machine, asked before Ray starts on it; a far cluster knows itself.

    Args:
        setting: as it was given, with its value.

    Raises:
        InputError: it does not.
    """
    if starts_ray_here(cluster) and wanted > cpus_here(cluster):
        raise InputError(f"{setting}: this machine has {cpus_here(cluster)} CPUs; lower it")
