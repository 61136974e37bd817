"""Decides, before Ray starts, where ranks run: in this process, on this machine, or on a Ray cluster."""

from __future__ import annotations

import math
import os
from typing import Literal

import torch
from pydantic import ValidationError

from configs.schema import ClusterConfig
from contracts.errors import InputError

# Ray sets this variable for the driver of `ray job submit`; nothing else sets it.
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def is_submitted_job() -> bool:
    """Return whether this process is the driver of `ray job submit`."""
    return _JOB_VARIABLE in os.environ


def named_address(cluster: ClusterConfig) -> tuple[str, str | None]:
    """Return the setting that names a Ray cluster to join, and the cluster's address (None: no cluster is named).

    Raises:
        InputError: RAY_ADDRESS is not an address.
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
    """Return whether the task needs no Ray: one worker, no cluster is named, and this is not a submitted job."""
    return cluster.num_workers == 1 and named_address(cluster)[1] is None and not is_submitted_job()


def device_type(cluster: ClusterConfig) -> Literal["cpu", "cuda"] | None:
    """Return the device type of every rank; None if it is not known before a cluster is joined (use_gpu "auto").

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
    """Return whether a job that needs Ray starts a cluster that consists of this machine only."""
    return not is_submitted_job() and named_address(cluster)[1] in (None, "local")


def cpus_here(cluster: ClusterConfig) -> int:
    """Return how many CPUs to declare to a Ray that is started on this machine.

    This is the number of its cores, or more if the workers need more; workers then share cores.
    """
    return max(os.cpu_count() or 1, math.ceil(cluster.most_workers * cluster.cpus_per_worker))


def check_cpus(cluster: ClusterConfig, setting: str, wanted: float) -> None:
    """Raise if a task needs more CPUs than a Ray on this machine will have. Tasks on other clusters are not checked.

    Args:
        cluster: says whether Ray is started on this machine.
        setting: the name and value of the setting that requested the CPUs, for the message.
        wanted: CPUs that the task needs.

    Raises:
        InputError: this machine has fewer CPUs.
    """
    if starts_ray_here(cluster) and wanted > cpus_here(cluster):
        raise InputError(f"{setting}: this machine has {cpus_here(cluster)} CPUs; lower it")
