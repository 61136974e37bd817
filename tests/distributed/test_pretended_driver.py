"""The driver of training steps on a pretended CUDA device: copies, guard and optimiser, one wait a step.

Streams, pinned memory and collectives are replaced, so this shows nothing of their order.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contracts.batch import Step
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training import nonfinite_guard
from distributed.training.step import TrainSteps
from distributed.training.trainer import training_batches
from distributed.world import World
from tests.distributed.runs import config_of
from tests.pretended_device import CUDA, PretendedTensor, pretended_device
from tests.systems import settings_without_noise

pytestmark = pytest.mark.long  # many cases of about half a second

STEPS = 4


def trained(folders: Path, name: str, device: torch.device, *settings: str) -> tuple[list[float], torch.Tensor]:
    """Take some steps; return the losses, and the sum of squares of all weights after each step, float64 [steps]."""
    config = config_of(folders, folders / "run", name, *settings_without_noise(name), *settings)
    inputs, world = open_inputs(config), World.alone(device)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    batches = training_batches(config, inputs, inputs.planner(sharded.system.recommender.needs), world)
    assert all(group.length == 8 for group in batches[0].batch.groups) or device != CUDA, "not grouped for a GPU"
    steps = TrainSteps(sharded=sharded, plan=batches.plan, config=config, world=world)
    shares, squares = [], []
    for share in steps.run(_pinned(batches[number]) for number in range(STEPS)):
        assert share is not None, "a step was skipped"
        shares.append(share)
        squares.append(torch.stack([p.detach().double().square().sum() for p in sharded.dense_parameters]).sum())
    return [float(_content(share)) for share in shares], torch.stack([_content(square) for square in squares])


def _pinned(step: Step) -> Step:
    return step.pin_memory() if torch.cuda._initialized else step


def _content(value: torch.Tensor) -> torch.Tensor:
    return value.content if isinstance(value, PretendedTensor) else value


@pytest.mark.parametrize(("name", "draws"), [("mdsrec", "15"), ("sasrec", "null"), ("missrec", "15")])
def test_steps_are_those_of_the_cpu_with_one_wait_each(
    folders: Path, name: str, draws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = []  # how float32 products are computed in each step
    monkeypatch.setattr(
        nonfinite_guard.dist, "all_reduce", lambda _: products.append(torch.get_float32_matmul_precision())
    )
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    settings = (f"training.negatives.draws={draws}", "training.gradient_clip=5.0")
    losses, squares = trained(folders, name, torch.device("cpu"), *settings)
    with pretended_device(may_wait=["distributed/training/nonfinite_guard.py norm_on_host"]) as device:
        found, found_squares = trained(folders, name, CUDA, *settings)
        assert device.counts.num_waits == STEPS
        assert not device.counts.mixed
    assert products == ["highest"] * STEPS + ["high"] * STEPS
    assert torch.get_float32_matmul_precision() == "highest"
    assert found == pytest.approx(losses, rel=1e-4)
    assert found[-1] != found[0]
    torch.testing.assert_close(found_squares, squares, rtol=1e-4, atol=0)
    assert squares[-1] != squares[0]
