"""Sets up each process that Ray starts for a job; imports as little as possible."""

from __future__ import annotations

import os

import ray

from distributed.output import mark_lines


def set_up_worker() -> None:
    """Set RAY_ADDRESS to this process's own cluster, and mark the lines that are meant for the user.

    Ray Train's actors query the state API without an address. If a second Ray runs on the machine, the API would find
    two clusters, and would warn at each query or query the wrong cluster.
    """
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    mark_lines()
