"""Measure the softmax kernel on one GPU, beside torch's operators and the matrix products that both need.

    python -m benchmarks.softmax_gpu [--rows 4802] [--candidates 16384] [--widths 64,300] [--seconds 60]

One channel of the sampled loss, forward and backward, with targets of the same sequence and gains. A JSON line for each
width and precision has milliseconds (the median), peak MiB beyond the vectors, and how far gradients are from float64:

    kernel      the softmax kernel (`kernels/softmax`)
    chunks      torch's operators in chunks of 2^24 logits, as on a CPU
    one_chunk   the same with all logits in one chunk, as on a GPU without the kernel
    gemms       the three matrix products that a loss with logits in memory cannot do without

Without a GPU it says so. With --small it runs a small problem on CPU, the kernel in Triton's interpreter (set
TRITON_INTERPRET=1), so that the benchmark itself can be tested; its times then mean nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import click
import torch
from torch import Tensor

from model.blocks import losses
from model.blocks.losses import sampled_cross_entropy
from model.blocks.repeats import SeenItems
from model.blocks.softmax_kernel import kernel_loss
from model.protocol import Channel

ONE_CHANNEL = (Channel("id", 1.0),)
PRECISIONS = {"tf32": "high", "float32": "highest"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A batch: vectors with gradients, and what `sampled_cross_entropy` takes."""

    users: Tensor
    items: Tensor
    gain: Tensor
    targets: Tensor
    candidates: Tensor
    log_weights: Tensor
    same_sequence: Tensor
    seen: SeenItems

    def plain_loss(self) -> Tensor:
        """Return the loss by torch's operators."""
        return sampled_cross_entropy(
            [self.users],
            [self.items],
            ONE_CHANNEL,
            self.targets,
            self.candidates,
            self.log_weights,
            1,
            self.same_sequence,
            self.seen,
            use_kernel=False,
        )

    def kernel_loss(self) -> Tensor:
        """Return the loss by the kernel."""
        loss_of = kernel_loss(
            len(self.items), self.targets, self.candidates, self.log_weights, self.same_sequence, self.seen
        )
        return loss_of(self.users, self.items, self.gain)

    def gradients(self, loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        """Return the gradients of a loss by users, items and gain."""
        return torch.autograd.grad(loss(), (self.users, self.items, self.gain))


def a_problem(rows: int, candidates: int, width: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Make sequences of 10 targets, each of which has seen 20 items; all targets are candidates."""
    random = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, width, generator=random) / width**0.25 for n in (rows, candidates))
    targets = torch.randint(candidates, (rows,), generator=random)
    first = torch.arange(rows) // 10 * 10
    same = (first[:, None] + torch.arange(10)).clamp(max=rows - 1)
    seen = torch.randint(candidates, (rows, 20), generator=random).sort(dim=1).values
    counts = torch.ones(rows, 20)
    counts[:, 1:] = (seen[:, 1:] != seen[:, :-1]).float()
    weights = torch.randn(candidates, generator=random)
    gain = torch.tensor(0.5, dtype=dtype, device=device, requires_grad=True)
    return Problem(
        users=users.to(device, dtype).requires_grad_(),
        items=items.to(device, dtype).requires_grad_(),
        gain=gain,
        targets=targets.to(device),
        candidates=torch.randperm(candidates, generator=random).to(device),
        log_weights=weights.to(device),
        same_sequence=same.to(device),
        seen=SeenItems(seen.to(device), counts.to(device), [gain]),
    )


def gemms(problem: Problem) -> Callable[[], Tensor]:
    """Return the products of logits and of both gradients, from operands that are already there."""
    users, columns = problem.users.detach(), problem.items.detach()
    logits = users @ columns.T

    def products() -> Tensor:
        torch.mm(users, columns.T, out=logits)
        logits @ columns
        return logits.T @ users

    return products


def milliseconds(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the median time of a call, after two that are not timed."""
    times: list[float] = []
    for _ in range(2):
        work()
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 200):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def peak_mib(work: Callable[[], object], device: torch.device) -> float | None:
    """Return the most memory that a call takes beyond what was there, in MiB; None on CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(
    rows: int, candidates: int, width: int, precision: str, device: torch.device, seconds: float
) -> dict[str, object]:
    """Return the line of one width and precision."""
    torch.set_float32_matmul_precision(PRECISIONS[precision])
    problem = a_problem(rows, candidates, width, torch.float32, device)
    exact = a_problem(rows, candidates, width, torch.float64, device)
    expected = exact.gradients(exact.plain_loss)
    line: dict[str, object] = {"width": width, "precision": precision, "rows": rows, "candidates": candidates}
    line["gemms"] = {"ms": milliseconds(gemms(problem), device, seconds)}
    for name, loss, logits in (
        ("kernel", problem.kernel_loss, losses.MAX_LOGITS),
        ("chunks", problem.plain_loss, losses.MAX_LOGITS),
        ("one_chunk", problem.plain_loss, rows * (candidates + 1)),
    ):
        with mock.patch.object(losses, "max_logits", lambda _, most=logits: most):
            found = problem.gradients(loss)
            line[name] = {
                "ms": milliseconds(lambda loss=loss: problem.gradients(loss), device, seconds),  # type: ignore[misc]
                "peak_mib": peak_mib(lambda loss=loss: problem.gradients(loss), device),  # type: ignore[misc]
                "error": max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, expected, strict=True)),
            }
    return line


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@click.command(help=__doc__)
@click.option("--rows", default=4802, help="Targets of a step: 4,802 are windows with a batch size of 4,096.")
@click.option("--candidates", default=16384, help="Candidates of a step.")
@click.option("--widths", default="64,300", help="Widths of the vectors.")
@click.option("--seconds", default=60.0, help="Seconds of all measurements together, without compiling.")
@click.option("--small", is_flag=True, help="A small problem on CPU, to test the benchmark.")
def main(rows: int, candidates: int, widths: str, seconds: float, small: bool) -> None:
    device = torch.device("cpu" if small else "cuda")
    if not small and not torch.cuda.is_available():
        click.echo("nothing was measured: no GPU is visible")
        return
    if small:
        rows, candidates, widths, seconds = 40, 90, "20", 0.0
    before = torch.get_float32_matmul_precision()
    sizes = [int(width) for width in widths.split(",")]
    try:
        for width in sizes:
            for precision in PRECISIONS:
                share = seconds / (4 * len(sizes) * len(PRECISIONS))
                click.echo(json.dumps(measure(rows, candidates, width, precision, device, share)))
    finally:
        torch.set_float32_matmul_precision(before)


if __name__ == "__main__":
    main()
