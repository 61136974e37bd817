"""What each process that Ray starts for a job does first; it imports nothing but Ray."""

from __future__ import annotations

import logging
import os

import ray


def set_up_worker() -> None:
    """Names this process's own cluster in RAY_ADDRESS, and leaves Ray Train's log to its warnings.

    Ray Train's actors ask the state API without an address. With a second Ray on the machine the API would then find
    two clusters, warn on each question, or ask the wrong one.
    """
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    logging.getLogger("ray.train").setLevel(logging.WARNING)
