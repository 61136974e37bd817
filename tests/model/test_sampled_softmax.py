"""The sampled softmax loss, and both losses by chunks of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.blocks import losses
from model.blocks.losses import channel_cross_entropy, sampled_cross_entropy
from model.protocol import Channel

CHANNELS = (Channel("id", 1.0), Channel("image", 0.3))
ONE_CHANNEL = (Channel("id", 1.0),)


def vectors(rows: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Per channel [rows, d_c], leaves."""
    return [torch.randn(rows, width, dtype=dtype, requires_grad=True) for width in (3, 2)]


def value_and_gradients(loss: Callable[..., Tensor], *operands: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss of (users, items, *operands[2:]) and its gradients by users, then items."""
    value = loss(*operands)
    return value.detach(), torch.autograd.grad(value, [*operands[0], *operands[1]])


def naive_loss(
    users: list[Tensor], items: list[Tensor], targets: Tensor, candidates: Tensor, log_weights: Tensor
) -> Tensor:
    """The sum over rows of the docstring's formula, term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for user, item, channel in zip(users, items, CHANNELS, strict=True):
        for vector, target in zip(user, targets.tolist(), strict=True):
            positive = (vector @ item[target]).exp()
            others = [
                (vector @ item[j] + log_weight).exp()
                for j, log_weight in zip(candidates.tolist(), log_weights, strict=True)
                if j != target
            ]
            total = total + channel.weight * (sum(others, positive).log() - positive.log())
    return total


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_with_every_item_it_is_the_full_softmax(dtype: torch.dtype, tolerance: float) -> None:
    users, items = vectors(40, dtype), vectors(23, dtype)
    targets = torch.randint(23, (40,))
    full, full_grads = value_and_gradients(channel_cross_entropy, users, items, CHANNELS, targets, 50)
    sampled, sampled_grads = value_and_gradients(
        sampled_cross_entropy, users, items, CHANNELS, targets, torch.randperm(23), torch.zeros(23), 50
    )
    assert sampled.dtype == dtype
    torch.testing.assert_close(sampled, full, rtol=tolerance, atol=0)
    for actual, expected in zip(sampled_grads, full_grads, strict=True):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_equals_the_formula_with_targets_in_and_out_of_the_candidates() -> None:
    users, items = vectors(9), vectors(12)
    targets = torch.tensor([0, 1, 2, 3, 11, 11, 5, 5, 7])
    candidates = torch.tensor([11, 2, 9, 0, 4])
    log_weights = torch.randn(5) * 2
    actual, grads = value_and_gradients(
        sampled_cross_entropy, users, items, CHANNELS, targets, candidates, log_weights, 1
    )
    expected, expected_grads = value_and_gradients(naive_loss, users, items, targets, candidates, log_weights)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_logits", [2**24, 14])
def test_targets_trained_together_weigh_one(monkeypatch: pytest.MonkeyPatch, max_logits: int) -> None:
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    users, items = vectors(5), vectors(12)
    targets = torch.tensor([3, 9, 3, 0, 9])  # spans of 3 and 2 targets; item 3 twice in one, item 9 in both
    same_sequence = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4, 3], [3, 4, 4]])
    candidates, log_weights = torch.tensor([0, 3, 5, 9, 11, 2]), torch.randn(6) * 2
    actual, grads = value_and_gradients(
        sampled_cross_entropy, users, items, CHANNELS, targets, candidates, log_weights, 1, same_sequence
    )
    total = torch.zeros((), dtype=torch.float64)
    for row, own in enumerate(([3, 9, 3], [3, 9, 3], [3, 9, 3], [0, 9], [0, 9])):
        weights = [0.0 if j in own else float(log_weights[n]) for n, j in enumerate(candidates.tolist())]
        alone = [[vector[row : row + 1] for vector in users], items, targets[row : row + 1]]
        total = total + naive_loss(*alone, candidates, torch.tensor(weights, dtype=torch.float64))
    expected = torch.autograd.grad(total, [*users, *items])
    torch.testing.assert_close(actual, total.detach(), rtol=1e-12, atol=0)
    for grad, expected_grad in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-12)


def test_a_rows_own_target_among_the_candidates_changes_nothing() -> None:
    users, items = vectors(3), vectors(8)
    targets = torch.tensor([6, 6, 6])
    without = value_and_gradients(
        sampled_cross_entropy, users, items, CHANNELS, targets, torch.tensor([1, 4]), torch.tensor([0.5, -1.0]), 3
    )
    among = value_and_gradients(
        sampled_cross_entropy, users, items, CHANNELS, targets, torch.tensor([1, 6, 4]), torch.tensor([0.5, 3, -1]), 3
    )
    for actual, expected in zip((among[0], *among[1]), (without[0], *without[1]), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)


def both_losses(num_items: int) -> dict[str, Callable[..., Tensor]]:
    """Losses of (users, items, targets); the sampled one has three of four items as candidates."""
    candidates = torch.randperm(num_items)[: num_items * 3 // 4]
    log_weights = torch.randn(len(candidates))

    def sampled(users: list[Tensor], items: list[Tensor], targets: Tensor) -> Tensor:
        return sampled_cross_entropy(users, items, CHANNELS, targets, candidates, log_weights, 7)

    def full(users: list[Tensor], items: list[Tensor], targets: Tensor) -> Tensor:
        return channel_cross_entropy(users, items, CHANNELS, targets, 7)

    return {"full": full, "sampled": sampled}


@pytest.mark.parametrize("name", ["full", "sampled"])
@pytest.mark.parametrize("max_logits", [1, 50, 100, 519])
def test_chunks_leave_value_and_gradients(monkeypatch: pytest.MonkeyPatch, name: str, max_logits: int) -> None:
    users, items, targets = vectors(26), vectors(20), torch.randint(20, (26,))
    loss = both_losses(20)[name]
    whole, whole_grads = value_and_gradients(loss, users, items, targets)
    monkeypatch.setattr(losses, "MAX_LOGITS", max_logits)
    chunked, chunked_grads = value_and_gradients(loss, users, items, targets)
    torch.testing.assert_close(chunked, whole, rtol=1e-13, atol=0)
    for actual, expected in zip(chunked_grads, whole_grads, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of any tensor made, in the backward too."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return out


@pytest.mark.parametrize("name", ["full", "sampled"])
def test_no_tensor_is_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    users, items, targets = vectors(100), vectors(80), torch.randint(80, (100,))
    loss = both_losses(80)[name]
    monkeypatch.setattr(losses, "MAX_LOGITS", 1000)
    with LargestTensor() as largest:
        value_and_gradients(loss, users, items, targets)
    assert 500 < largest.numel <= 1000


def test_small_full_softmaxes_keep_their_numbers_to_the_bit() -> None:
    users, items, targets = vectors(50)[:1], vectors(60)[:1], torch.randint(60, (50,))

    def plain(users: list[Tensor], items: list[Tensor]) -> Tensor:
        return torch.nn.functional.cross_entropy(users[0] @ items[0].T, targets, reduction="sum")

    value, grads = value_and_gradients(channel_cross_entropy, users, items, ONE_CHANNEL, targets, 1)
    plain_value, plain_grads = value_and_gradients(plain, users, items)
    for actual, expected in zip((value, *grads), (plain_value, *plain_grads), strict=True):
        assert torch.equal(actual, expected)


def test_gradients_scale_with_what_follows_and_come_twice() -> None:
    users, items, targets = vectors(6), vectors(8), torch.randint(8, (6,))
    loss = both_losses(8)["sampled"](users, items, targets)
    (once,) = torch.autograd.grad(loss, users[:1], retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * -2.5, users[:1])
    torch.testing.assert_close(scaled, -2.5 * once)


NUM_ITEMS, NUM_REPEATS = 300, 800


def drawn(rng: np.random.Generator, probabilities: np.ndarray, num_draws: int) -> tuple[Tensor, Tensor]:
    """Distinct items of draws with replacement, and log(count / expected count)."""
    ids, counts = np.unique(rng.choice(len(probabilities), num_draws, p=probabilities), return_counts=True)
    log_weights = np.log(counts / (num_draws * probabilities[ids]))
    return torch.from_numpy(ids), torch.from_numpy(log_weights.astype(np.float32))


@pytest.fixture
def estimation() -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """User vectors, item vectors, targets and a skewed distribution of draws."""
    rng = np.random.default_rng(7)
    users, items = (torch.from_numpy(rng.normal(size=(rows, 4)) * 0.8) for rows in (6, NUM_ITEMS))
    probabilities = rng.permutation(1 / np.arange(10, NUM_ITEMS + 10))
    targets = torch.tensor([0, 5, 9, 100, 200, 299])
    return users.requires_grad_(), items.requires_grad_(), targets, probabilities / probabilities.sum()


def test_the_gradients_bias_falls_with_the_number_of_draws(estimation: tuple[Any, ...]) -> None:
    users, items, targets, probabilities = estimation
    _, full = value_and_gradients(channel_cross_entropy, [users], [items], ONE_CHANNEL, targets, 1)
    loss = partial(value_and_gradients, sampled_cross_entropy, [users], [items], ONE_CHANNEL, targets)
    distances = []
    for num_draws in (8, 32, 128):
        rng = np.random.default_rng(num_draws)
        mean = [torch.zeros_like(grad) for grad in full]
        for _ in range(NUM_REPEATS):
            _, grads = loss(*drawn(rng, probabilities, num_draws), 1)
            for total, grad in zip(mean, grads, strict=True):
                total += grad / NUM_REPEATS
        distances.append([((m - f).norm() / f.norm()).item() for m, f in zip(mean, full, strict=True)])
    for by_users_and_items in zip(*distances, strict=True):
        few, some, many = by_users_and_items
        assert few > 1.5 * some > 1.5 * 1.5 * many, distances


def test_the_partition_function_is_unbiased(estimation: tuple[Any, ...]) -> None:
    users, items, targets, probabilities = (estimation[0].detach(), estimation[1].detach(), *estimation[2:])
    rng = np.random.default_rng(3)
    scores = users @ items.T
    positive = scores[torch.arange(6), targets].exp()
    others = scores.exp().sum(dim=1) - positive
    for row in range(3):
        user, target = users[row : row + 1], targets[row : row + 1]
        estimates = (
            torch.stack(
                [
                    sampled_cross_entropy([user], [items], ONE_CHANNEL, target, *drawn(rng, probabilities, 64), 1)
                    for _ in range(NUM_REPEATS)
                ]
            ).exp()
            * positive[row]
            - positive[row]
        )
        standard_error = estimates.std() / NUM_REPEATS**0.5
        assert standard_error < 0.03 * others[row]
        assert (estimates.mean() - others[row]).abs() < 4 * standard_error


def test_logits_are_float32_under_autocast_and_for_half_vectors() -> None:
    user, item = torch.randn(5, 64, requires_grad=True), torch.randn(9, 64, requires_grad=True)
    operands = (ONE_CHANNEL, torch.arange(5), torch.arange(3, 9), torch.randn(6), 5)
    exact, exact_grads = value_and_gradients(sampled_cross_entropy, [user], [item], *operands)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, grads = value_and_gradients(sampled_cross_entropy, [user], [item], *operands)
    assert torch.equal(under, exact)
    assert all(torch.equal(a, b) for a, b in zip(grads, exact_grads, strict=True))
    half_user, half_item = user.bfloat16(), item.bfloat16()
    half = sampled_cross_entropy([half_user], [half_item], *operands)
    assert half.dtype == torch.float32
    assert torch.equal(half, sampled_cross_entropy([half_user.float()], [half_item.float()], *operands))


@pytest.mark.parametrize(
    ("num_items", "targets", "candidates"),
    [
        (0, [], []),
        (9, [], []),
        (9, [], [3, 4]),
        (9, [2, 5, 5], []),
        (9, [4, 4], [4]),
    ],
)
def test_nothing_to_tell_apart_gives_a_connected_zero(
    num_items: int, targets: list[int], candidates: list[int]
) -> None:
    users, items = vectors(len(targets)), vectors(num_items)
    loss = sampled_cross_entropy(
        users,
        items,
        CHANNELS,
        torch.tensor(targets, dtype=torch.int64),
        torch.tensor(candidates, dtype=torch.int64),
        torch.full((len(candidates),), 2.0),
        len(targets),
    )
    loss.backward()
    assert loss.item() == 0
    for leaf in (*users, *items):
        assert leaf.grad is not None
        assert not leaf.grad.any()  # NaN counts as any
