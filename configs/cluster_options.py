"""Knobs of the Ray cluster and its workers."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from configs.knobs import RUNNING, Section, knob


class ClusterConfig(Section):
    """The Ray cluster and its workers."""

    num_workers: StrictInt | tuple[StrictInt, StrictInt] = knob(
        2,
        RUNNING,
        "number of ranks (worker processes) of a training or an evaluation; [least, most]: as many in this range as "
        "the cluster has room for",
    )
    use_gpu: StrictBool | Literal["auto"] = knob(
        "auto", RUNNING, "whether each worker gets one GPU; auto: true if the cluster has a GPU for each worker"
    )
    cpus_per_worker: StrictFloat = knob(
        1,
        RUNNING,
        "CPU cores that each worker reserves; its threads are this number, rounded down, and at least 1",
        gt=0,
    )
    address: str | None = knob(
        None,
        RUNNING,
        "address of the Ray cluster to join; null: the cluster that the environment variable RAY_ADDRESS names, or a "
        "new one on this machine",
    )
    max_failures: StrictInt = knob(
        2,
        RUNNING,
        "number of times that training may restart from its latest checkpoint after it lost workers or nodes; "
        "-1: no limit",
        ge=-1,
    )
    resize_seconds: StrictFloat = knob(
        60.0,
        RUNNING,
        "seconds between checks whether the cluster has room for more workers; only with num_workers=[least, most]",
        gt=0,
    )

    @property
    def fewest_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @model_validator(mode="after")
    def _there_are_workers(self) -> ClusterConfig:
        if not 1 <= self.fewest_workers <= self.most_workers:
            raise ValueError(
                f"cluster.num_workers={self.num_workers} is neither a number from 1 nor [least, most] with "
                "1 <= least <= most"
            )
        return self

    @field_validator("address")
    @classmethod
    def _address_is_one_of_rays(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(
            r"auto|local|(ray://)?[^\s/:]+:\d{1,5}|(ray://)?\[[0-9a-fA-F:]+\]:\d{1,5}", address
        ):
            raise ValueError("expected HOST:PORT of a head node (often port 6379), ray://HOST:10001, auto or local")
        return address
