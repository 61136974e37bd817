"""A step of training on the device of a rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contracts.batch import Batch
from contracts.item_plan import ItemPlan


@dataclass(kw_only=True)
class DeviceStep:
    """A step in the form that pipelines copy to a device.

    Attributes:
        feature: the item ids to look up, as the table's `RowTable.feature` returns them; None without a table.
        plan: the item plan of the step.
        batch: the batch of the step.
        number: the number of the step in the run.
    """

    feature: Any
    plan: ItemPlan
    batch: Batch
    number: int

    def to(self, device: torch.device, non_blocking: bool = False) -> DeviceStep:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        # A plan that is on the device already stays the same object. The plan of the whole catalogue is used in every
        # step and caches its transposed rows.
        is_there = self.plan.union_ids.device.type == device.type
        return DeviceStep(
            feature=None if self.feature is None else self.feature.to(device, non_blocking=non_blocking),
            plan=self.plan if is_there else self.plan.map(move),
            batch=self.batch.map(move),
            number=self.number,
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory of all tensors until the work that is now queued in the stream has read them."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        if self.feature is not None:
            self.feature.record_stream(stream)
        self.plan.map(record)
        self.batch.map(record)
