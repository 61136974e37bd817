"""Cross entropy through the softmax kernel, against the same losses in torch's operators; and when it is chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.training_options import TrainingConfig
from kernels.softmax import tiles
from model.blocks import losses, softmax_kernel
from model.blocks.criterion import CrossEntropy
from model.blocks.losses import channel_cross_entropy, sampled_cross_entropy
from model.blocks.repeats import SeenItems
from model.blocks.softmax_kernel import MAX_MARK_BYTES, kernel_covers
from model.protocol import Channel
from model.zoo import build_criterion

# The interpreter computes with NumPy, which warns of log(0) and of inf - inf.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
CHANNELS = (Channel("id", 1.0), Channel("image", 0.3))
NUM_ITEMS = 40
GPU = torch.device("cuda:0")

# Triton's interpreter is for CPUs; on a GPU the tests of kernels/softmax run the compiled kernels.
interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(), reason="needs Triton, and no GPU"
)


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses take the kernel's path, on CPU."""
    monkeypatch.setattr(losses, "kernel_covers", lambda *_: True)


def vectors(rows: int) -> list[Tensor]:
    return [torch.randn(rows, width, requires_grad=True) for width in (12, 17)]


def seen_of(num_rows: int, gains: Tensor) -> SeenItems:
    """Up to seven distinct items for each row; the others are padding."""
    items = torch.stack([torch.randperm(NUM_ITEMS)[:7] for _ in range(num_rows)]).sort(dim=1).values
    counts = (torch.arange(7) < torch.randint(8, (num_rows, 1))).float()
    return SeenItems(items, counts, gains.unbind())


def with_gradients(loss: Callable[..., Tensor], *operands: Any, **options: Any) -> tuple[Tensor, ...]:
    """The loss of (users, items, ..., seen) and its gradients by users, items and gains."""
    leaves = [*operands[0], *operands[1]]
    seen = next((x for x in operands if isinstance(x, SeenItems)), None)
    value = loss(*operands, **options)
    return value.detach(), *torch.autograd.grad(value, leaves + (list(seen.gains) if seen is not None else []))


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for mine, torchs in zip(actual, expected, strict=True):
        assert mine.dtype == torchs.dtype
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=2e-6)


def operands(num_rows: int, with_gains: bool) -> tuple[list[Tensor], list[Tensor], Tensor, SeenItems | None]:
    gains = torch.tensor([0.7, -1.1], requires_grad=True)
    seen = seen_of(num_rows, gains) if with_gains else None
    return vectors(num_rows), vectors(NUM_ITEMS), torch.randint(NUM_ITEMS, (num_rows,)), seen


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize("with_gains", [False, True])
def test_the_full_softmax_equals_torchs(with_gains: bool) -> None:
    users, items, targets, seen = operands(30, with_gains)
    parts: list[Tensor] = []
    actual = with_gradients(channel_cross_entropy, users, items, CHANNELS, targets, 50, seen, parts)
    plain_parts: list[Tensor] = []
    plain = with_gradients(
        channel_cross_entropy, users, items, CHANNELS, targets, 50, seen, plain_parts, use_kernel=False
    )
    assert_same(actual, plain)
    assert_same(tuple(parts), tuple(plain_parts))


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize("with_gains", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_the_sampled_softmax_equals_torchs(with_gains: bool, together: bool) -> None:
    users, items, targets, seen = operands(30, with_gains)
    drawn = torch.randperm(NUM_ITEMS)[:15]
    if together:  # spans of three targets, all of which are candidates; the last is padded with the row itself
        same = torch.arange(30)[:, None] // 3 * 3 + torch.arange(3)
        same[27:, 2] = torch.arange(27, 30)
        drawn = torch.cat([targets, drawn]).unique()
    candidates, log_weights = drawn[torch.randperm(len(drawn))], torch.randn(len(drawn)) * 2
    more = (candidates, log_weights, 7, same if together else None, seen)
    actual = with_gradients(sampled_cross_entropy, users, items, CHANNELS, targets, *more)
    assert_same(actual, with_gradients(sampled_cross_entropy, users, items, CHANNELS, targets, *more, use_kernel=False))


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize(("targets", "candidates"), [([], []), ([], [3, 4]), ([2, 5, 5], []), ([4, 4], [4])])
def test_nothing_to_tell_apart_gives_a_connected_zero(targets: list[int], candidates: list[int]) -> None:
    users, items = vectors(len(targets)), vectors(9)
    which = torch.tensor(targets, dtype=torch.int64), torch.tensor(candidates, dtype=torch.int64)
    weights = torch.full((len(candidates),), 2.0)
    value, *grads = with_gradients(sampled_cross_entropy, users, items, CHANNELS, *which, weights, len(targets))
    assert value == 0
    assert not any(grad.any() for grad in grads)


@interpreted
@pytest.mark.usefixtures("by_kernel")
def test_half_vectors_and_autocast_give_the_loss_of_float32() -> None:
    users, items, targets, _ = operands(10, with_gains=False)
    half = (
        [x.detach().bfloat16().requires_grad_() for x in users],
        [x.detach().bfloat16().requires_grad_() for x in items],
    )
    wide = tuple([x.detach().float().requires_grad_() for x in vectors] for vectors in half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, *grads = with_gradients(channel_cross_entropy, *half, CHANNELS, targets, 10)
    expected, *wide_grads = with_gradients(channel_cross_entropy, *wide, CHANNELS, targets, 10)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    for grad, wide_grad in zip(grads, wide_grads, strict=True):
        assert torch.equal(grad, wide_grad.bfloat16())


@dataclass
class OnGPU:
    """As much of a user tensor on a GPU as the choice looks at."""

    shape: tuple[int, int]
    dtype: torch.dtype = torch.float32
    device: torch.device = GPU

    def __len__(self) -> int:
        return self.shape[0]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An H200 on which the kernel runs, and TF32 is allowed."""
    h200 = tiles._Multiprocessor(count=132, shared_bytes=228 * 1024)
    monkeypatch.setattr(tiles, "_multiprocessor", lambda _: h200)
    monkeypatch.setattr(softmax_kernel, "kernel_runs_on", lambda _: True)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    return monkeypatch


def covered(*users: OnGPU, columns: int = 1000, has_marks: bool = True) -> bool:
    return kernel_covers(users, columns, has_marks)  # type: ignore[arg-type]


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_it_is_chosen_for_what_it_can_compute() -> None:
    assert covered(OnGPU((50, 64)), OnGPU((50, 300)))
    assert covered(OnGPU((50, 64), torch.bfloat16))  # the losses make it float32
    assert not covered(OnGPU((50, 64), torch.float64))
    assert not covered(OnGPU((50, 64)), OnGPU((50, 321)))
    assert not covered(OnGPU((50, 64), device=torch.device("cpu")))


@pytest.mark.usefixtures("gpu")
def test_marks_have_a_bound() -> None:
    rows, columns = 1024, 4 * MAX_MARK_BYTES // 1024
    assert covered(OnGPU((rows, 64)), columns=columns)
    assert not covered(OnGPU((rows + 1, 64)), columns=columns)
    assert covered(OnGPU((rows + 1, 64)), columns=columns, has_marks=False)


def test_it_is_not_chosen_without_tf32_or_where_it_does_not_run(gpu: pytest.MonkeyPatch) -> None:
    with gpu.context() as patch:
        patch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
        assert not covered(OnGPU((50, 64)))
    gpu.setattr(softmax_kernel, "kernel_runs_on", lambda _: False)
    assert not covered(OnGPU((50, 64)))


@pytest.mark.parametrize("value", ["auto", "off"])
def test_the_knob_decides_whether_it_may_be_chosen(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    asked: list[int] = []
    monkeypatch.setattr(losses, "kernel_covers", lambda _, num_columns, __: bool(asked.append(num_columns)))
    criterion = build_criterion(TrainingConfig(softmax_kernel=value), 50)  # type: ignore[arg-type]
    assert isinstance(criterion, CrossEntropy)
    users, items, targets, _ = operands(5, with_gains=False)
    criterion.full(users, items, CHANNELS, targets, 5)
    criterion.sampled(users, items, CHANNELS, targets, torch.arange(7), torch.zeros(7), 5)
    assert asked == ([NUM_ITEMS, 7] if value == "auto" else [])
