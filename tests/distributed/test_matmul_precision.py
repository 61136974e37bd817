"""TensorFloat-32 is allowed while training on a GPU, and at no other time."""

from collections.abc import Iterator

import pytest
import torch

from distributed.training.matmul_precision import training_matmul_precision


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


def test_it_ends_also_with_an_error() -> None:
    with pytest.raises(KeyError), training_matmul_precision(torch.device("cuda", 0)):
        raise KeyError
    assert allowed() == ("highest", False)


def test_on_cpu_nothing_changes() -> None:
    before = allowed()
    with training_matmul_precision(torch.device("cpu")):
        assert allowed() == before
    assert allowed() == before
