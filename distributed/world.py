"""A rank's number, its device and its collectives.

A single process is a process group of one rank, so all code below the jobs has one path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among the ranks of a run, and collectives over the default process group.

    With one rank, no method needs the group. `World.alone` is such a place without a group.

    Attributes:
        rank: this process's number, from 0.
        size: how many ranks there are.
        device: the device that this rank computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_first_of_node(self) -> bool:
        return int(os.environ.get("LOCAL_RANK", self.rank)) == 0

    @classmethod
    def current(cls, device: torch.device) -> World:
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @classmethod
    def alone(cls, device: torch.device) -> World:
        return cls(0, 1, device)

    def barrier(self) -> None:
        """Wait for every rank. It is an all-reduce, which gloo and NCCL both keep in order with other collectives."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1, device=self.device))

    def sum(self, value: float) -> float:
        """Return the sum over ranks, in float64."""
        if self.size == 1:
            return float(value)
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank, on every rank.

        Values are plain (text, numbers, lists and dicts of them), because ranks exchange them as JSON, not as pickle.
        """
        if self.size == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(own)], device=self.device))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [json.loads(bytes(text[: int(size)].cpu().numpy())) for text, size in zip(found, sizes, strict=True)]

    def sum_tensor(self, value: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over ranks, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(value)
        return value


@contextmanager
def world_of_one(device: torch.device | None = None) -> Iterator[World]:
    """Within this context, this process is the only rank of a process group; no address is needed for that.

    Args:
        device: the rank's device; None: CPU.
    """
    device = device or torch.device("cpu")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield World.current(device)
    finally:
        dist.destroy_process_group()
