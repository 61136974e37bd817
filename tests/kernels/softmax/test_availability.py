"""Whether the softmax kernels are used on a GPU, and what the log says if they are not."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator

import pytest
import torch

from kernels.softmax import availability
from kernels.softmax.availability import difference_on, kernel_runs_on

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    kernel_runs_on.cache_clear()
    yield
    kernel_runs_on.cache_clear()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An H200 on which the trial succeeds, as far as questions about it go."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(availability, "difference_on", lambda _: 1e-4)
    return monkeypatch


def raising(error: Exception) -> float:
    raise error


def test_never_on_cpu_and_never_where_cuda_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "difference_on", lambda _: 0.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not kernel_runs_on(torch.device("cpu"))
    assert not kernel_runs_on(GPU)


@pytest.mark.usefixtures("pretended")
def test_on_a_gpu_where_the_trial_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    assert kernel_runs_on(GPU)
    assert not kernel_runs_on(torch.device("cpu"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("module", "name", "answer", "reason"),
    [
        (importlib.util, "find_spec", lambda _: None, "Triton is not installed"),
        (torch.cuda, "get_device_capability", lambda _: (7, 5), "older than compute capability 8.0"),
        (availability, "difference_on", lambda _: 0.3, "gradients of a trial differ by 0.3"),
        (availability, "difference_on", lambda _: float("nan"), "gradients of a trial differ by nan"),
        (
            availability,
            "difference_on",
            lambda _: raising(RuntimeError("no C compiler")),
            "RuntimeError: no C compiler",
        ),
    ],
)
def test_otherwise_the_log_says_why_once(
    pretended: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: object,
    name: str,
    answer: object,
    reason: str,
) -> None:
    pretended.setattr(module, name, answer)
    with caplog.at_level(logging.WARNING):
        assert not kernel_runs_on(GPU)
        assert not kernel_runs_on(GPU)
    assert len(caplog.records) == 1
    assert reason in caplog.text


def test_the_trial_agrees_with_torch_and_leaves_random_numbers_and_grad_mode_alone(device: torch.device) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        assert difference_on(device) < 1e-5
    assert torch.equal(torch.get_rng_state(), state)


def test_the_trial_notices_wrong_gradients(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = availability._plain_loss
    monkeypatch.setattr(availability, "_plain_loss", lambda vectors, weights, own: plain(vectors, weights * 1.1, own))
    assert difference_on(device) > availability.TOLERANCE


@pytest.mark.usefixtures("tf32")
def test_the_trial_passes_in_tf32(device: torch.device) -> None:
    assert 1e-5 < difference_on(device) < availability.TOLERANCE / 3
