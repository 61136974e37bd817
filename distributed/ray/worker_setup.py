"""What each process that Ray starts for a job does first; it imports next to nothing."""

from __future__ import annotations

import os

import ray

from distributed.output import mark_lines


def set_up_worker() -> None:
    """Names this process's own cluster in RAY_ADDRESS, and marks the lines that are for the user.

    Ray Train's actors ask the state API without an address. With a second Ray on the machine the API would then find
    two clusters, warn on each question, or ask the wrong one.
    """
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    mark_lines()
