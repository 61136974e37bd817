"""Steps of any system on a small dataset: loss and gradients, on the CPU or on the pretended device."""

from __future__ import annotations

import contextlib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import Config
from contracts.batch import Step
from data.sampling.batches import TrainBatches
from data.sampling.grouping import Grouping
from distributed.inputs import Inputs, open_inputs
from distributed.training.epoch_work import StoredFeatures
from distributed.training.trainer import candidate_sampler, training_spans
from model.protocol import CatalogueInfo
from model.recommender import Recommender
from model.zoo import build_criterion, build_model
from tests.distributed.runs import config_of, set_repeat_gains
from tests.pretended_device import PretendedTensor


@dataclass
class Trained:
    """A recommender with its whole item table, and the inputs of a training.

    Attributes:
        table: [N, d]; None if the system has no ID rows.
    """

    config: Config
    inputs: Inputs
    recommender: Recommender
    table: Tensor | None

    @classmethod
    def of(cls, folders: Path, name: str, *settings: str, dtype: torch.dtype = torch.float32) -> Trained:
        config = config_of(folders, folders / "run", name, *settings)
        inputs = open_inputs(config)
        dataset, graph = inputs.dataset, inputs.graph
        info = CatalogueInfo(
            num_items=dataset.num_items,
            modalities=graph.modalities if graph else dataset.modalities,
            feature_dims={m: dataset.features(m).shape[1] for m in dataset.modalities},
            num_centers={m: graph.num_centers(m) for m in graph.modalities} if graph else {},
        )
        torch.manual_seed(0)
        recommender = build_model(config.model, info)
        recommender.criterion = build_criterion(config.training, dataset.num_items)
        if recommender.epoch_buffers:
            with torch.no_grad():
                recommender.begin_epoch(StoredFeatures(inputs, torch.device("cpu")))
        with torch.no_grad():
            for parameter in recommender.parameters():  # away from where gradients are zero
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        set_repeat_gains(_Holder(recommender))
        table = torch.randn(dataset.num_items, config.model.dim) if recommender.needs.id_rows else None
        return cls(config, inputs, recommender.to(dtype).train(), table.to(dtype) if table is not None else None)

    def step(self, grouping: Grouping, number: int = 0, world: int = 1) -> Step:
        """Return the last rank's part of a step of the training, with its plan; with many ranks it is empty."""
        training = self.config.training
        planner = self.inputs.planner(self.recommender.needs)
        batches = TrainBatches(
            data=self.inputs.dataset,
            spans=training_spans(self.config, self.inputs.dataset),
            batch_size=training.batch_size,
            seed=0,
            rank=world - 1,
            world=world,
            planner=planner,
            candidates=candidate_sampler(self.config, self.inputs),
            step_plans=self.config.model.is_contrastive,
            grouping=grouping,
        )
        found = batches[number]
        return Step(found.batch, found.plan if found.plan is not None else planner.catalogue())

    def results(self, step: Step, device: torch.device, bfloat16: bool = False) -> dict[str, Tensor]:
        """Return the loss and the gradients of all parameters and of the table, on the CPU.

        The CPU and the device draw the same random numbers, if all draws are of the device. A gradient is computed for
        every parameter that the loss depends on.
        """

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        recommender = deepcopy(self.recommender).to(device)
        batch, plan = step.batch.map(move), _checked(step).map(move)
        table = move(self.table).detach().clone().requires_grad_() if self.table is not None else None
        torch.manual_seed(1)
        rows = F.embedding(plan.union_ids, table) if table is not None else None
        with torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext():
            loss = recommender(rows, plan, batch)
        loss.backward()
        found = {"loss": loss.detach(), **{n: p.grad for n, p in recommender.named_parameters() if p.grad is not None}}
        if table is not None and table.grad is not None:
            found["table"] = table.grad
        return {name: _content(value) for name, value in found.items()}


class _Holder(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender


def _checked(step: Step) -> Any:
    assert step.plan is not None
    return step.plan


def _content(value: Tensor) -> Tensor:
    return value.content if isinstance(value, PretendedTensor) else value


def check_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Check that both have the same tensors, with differences within `tolerance` of each tensor's norm."""
    assert found.keys() == expected.keys()
    assert len(expected) > 1
    largest = max(float(value.double().norm()) for value in expected.values())
    for name, value in expected.items():
        difference = float((found[name].double() - value.double()).norm())
        assert difference <= tolerance * max(float(value.double().norm()), 1e-3 * largest), (name, difference)
