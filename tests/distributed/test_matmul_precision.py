"""TensorFloat-32 is allowed while training on a GPU, and at no other time."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distributed.inference.scoring import Scorer
from distributed.inputs import build_system, open_inputs
from distributed.matmul_precision import training_matmul_precision
from distributed.sharding import unsharded
from distributed.world import World
from tests.distributed.runs import config_of


def allowed() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = allowed()
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def test_training_on_a_gpu_uses_it_and_ranking_does_not() -> None:
    device = torch.device("cuda", 0)
    with training_matmul_precision(device):
        assert allowed() == ("high", True)
    assert allowed() == ("highest", False)


def test_a_ranking_alone_is_exact_too(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's default lets cuDNN use TensorFloat-32."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**30))
    config = config_of(folders, tmp_path / "run", "gru4rec")
    inputs = open_inputs(config)
    torch.backends.cudnn.allow_tf32 = True
    for device, expected in ((torch.device("cpu"), True), (torch.device("cuda", 0), False)):
        sharded = unsharded(build_system(config, inputs), torch.device("cpu"))
        Scorer(sharded=sharded, inputs=inputs, config=config, world=World.alone(device))
        assert torch.backends.cudnn.allow_tf32 is expected


def test_it_ends_also_with_an_error() -> None:
    with pytest.raises(KeyError), training_matmul_precision(torch.device("cuda", 0)):
        raise KeyError
    assert allowed() == ("highest", False)


def test_on_cpu_nothing_changes() -> None:
    before = allowed()
    with training_matmul_precision(torch.device("cpu")):
        assert allowed() == before
    assert allowed() == before
