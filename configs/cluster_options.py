"""Knobs of Ray and its workers."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from configs.knobs import RUNNING, Section, knob


class ClusterConfig(Section):
    """Ray and its workers."""

    num_workers: StrictInt | tuple[StrictInt, StrictInt] = knob(
        2, RUNNING, "ranks of a training or evaluation; [least, most]: as many as the cluster has room for"
    )
    use_gpu: StrictBool | Literal["auto"] = knob("auto", RUNNING, "one GPU per worker; auto: if the cluster has them")
    cpus_per_worker: StrictFloat = knob(1, RUNNING, "cores, and threads, of each worker", gt=0)
    address: str | None = knob(None, RUNNING, "Ray cluster to join; null: RAY_ADDRESS, else a local one")
    max_failures: StrictInt = knob(2, RUNNING, "restarts from the latest checkpoint; -1: no limit", ge=-1)
    resize_seconds: StrictFloat = knob(
        60.0, RUNNING, "with [least, most] workers: how often to look whether there is room for more", gt=0
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
                f"num_workers={self.num_workers} is neither a number from 1 nor [least, most] with 1 <= least <= most"
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
