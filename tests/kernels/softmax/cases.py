"""Random problems for the softmax kernels, with the marks of pairs as plain lists, and both ways to solve them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels import reference
from kernels.softmax.sampled_softmax import Pairs, SampledSoftmax, mark
from kernels.softmax.tiles import Tiles


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem, as `kernels.reference.sampled_softmax` takes it; the arrays are float32 and int64."""

    users: np.ndarray
    targets: np.ndarray
    columns: np.ndarray
    log_weights: np.ndarray
    own: np.ndarray
    same: list[list[int]]
    seen: list[list[int]]
    seen_targets: np.ndarray
    gain: float | None

    @property
    def has_same(self) -> bool:
        return any(self.same)


def a_case(
    num_rows: int, num_columns: int, width: int, *, same: int = 0, seen: int = 0, scale: float = 1.0, seed: int = 0
) -> Case:
    """Return a problem whose scores have the standard deviation `scale`.

    About two rows of three have their target among the columns. A row has up to `same` columns of its sequence, and has
    seen up to `seen` columns.
    """
    rng = np.random.default_rng(seed)
    users, targets, columns = (
        (rng.standard_normal((n, width)) * (scale**0.5 / width**0.25)).astype(np.float32)
        for n in (num_rows, num_rows, num_columns)
    )
    own = np.where(rng.random(num_rows) < 2 / 3, rng.integers(0, max(1, num_columns), num_rows), -1)
    own = np.minimum(own, num_columns - 1)
    targets[own >= 0] = columns[own[own >= 0]]

    def lists(longest: int) -> list[list[int]]:
        lengths = rng.integers(0, min(longest, num_columns) + 1, num_rows)
        return [rng.choice(num_columns, n, replace=False).tolist() if n else [] for n in lengths]

    return Case(
        users=users,
        targets=targets,
        columns=columns,
        log_weights=(rng.standard_normal(num_columns) * 2).astype(np.float32),
        own=own,
        same=lists(same),
        seen=lists(seen),
        seen_targets=(rng.integers(0, 2, num_rows) if seen else np.zeros(num_rows)).astype(np.float32),
        gain=0.8 if seen else None,
    )


def padded(lists: list[list[int]], own: np.ndarray) -> Tensor:
    """Return int64 [B, longest + 1], padded with each row's own column."""
    longest = max((len(row) for row in lists), default=0) + 1
    rows = [row + [int(column)] * (longest - len(row)) for row, column in zip(lists, own, strict=True)]
    return torch.tensor(rows, dtype=torch.int64).view(len(lists), longest)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A loss and its gradients; without a gain its gradient is 0."""

    loss: float
    users: np.ndarray
    targets: np.ndarray
    columns: np.ndarray
    gain: float


def by_kernel(
    case: Case,
    device: torch.device,
    tiles: Tiles | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Solution:
    """Solve a problem with the kernels, in a dtype; its loss is multiplied by `scale` before the backward."""
    vectors = (case.users, case.targets, case.columns)
    leaves = [torch.tensor(x, device=device, dtype=dtype, requires_grad=True) for x in vectors]
    gain = torch.tensor(case.gain, device=device, requires_grad=True) if case.gain is not None else None
    same = padded(case.same, case.own).to(device) if case.has_same else None
    seen = padded(case.seen, np.full(len(case.own), -1)).to(device) if gain is not None else None
    pairs = Pairs(
        own=torch.tensor(case.own, dtype=torch.int32, device=device),
        marks=mark(len(case.columns), same, seen),
        seen_targets=torch.tensor(case.seen_targets, device=device) if gain is not None else None,
    )
    log_weights = torch.tensor(case.log_weights, device=device)
    loss = SampledSoftmax.apply(*leaves, log_weights, gain, pairs, tiles)
    (loss * scale).backward()
    users, targets, columns = (leaf.grad.float().cpu().numpy() for leaf in leaves if leaf.grad is not None)
    gain_grad = gain.grad.item() if gain is not None and gain.grad is not None else 0.0
    return Solution(loss=loss.item(), users=users, targets=targets, columns=columns, gain=gain_grad)


def by_twin(case: Case) -> Solution:
    """Solve a problem with the slow twin."""
    gain = case.gain if case.gain is not None else 0.0
    loss, users, targets, columns, gain_grad = reference.sampled_softmax(
        case.users,
        case.targets,
        case.columns,
        case.log_weights,
        case.own,
        case.same,
        case.seen,
        case.seen_targets,
        gain,
    )
    return Solution(
        loss=loss, users=users, targets=targets, columns=columns, gain=gain_grad if case.gain is not None else 0.0
    )


def assert_close(actual: Solution, expected: Solution, tolerance: float) -> None:
    """Compare two solutions; the tolerance is relative to the largest gradient by the same vectors, but at least 1."""
    assert abs(actual.loss - expected.loss) <= tolerance * max(1.0, abs(expected.loss)), (actual.loss, expected.loss)
    assert abs(actual.gain - expected.gain) <= tolerance * max(1.0, abs(expected.gain)), (actual.gain, expected.gain)
    for name in ("users", "targets", "columns"):
        mine, twins = getattr(actual, name), getattr(expected, name)
        assert mine.shape == twins.shape
        if twins.size:
            largest = max(1.0, float(np.abs(twins).max()))
            np.testing.assert_allclose(mine, twins, rtol=0, atol=tolerance * largest, err_msg=name)
