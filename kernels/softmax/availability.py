"""Whether the kernels run on a GPU: found out once per process and device, on a small loss whose result is known.

Triton needs more than a GPU: it compiles each kernel for the GPU, and a C compiler builds the code that launches them.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.softmax.sampled_softmax import Pairs, SampledSoftmax

log = logging.getLogger(__name__)

# Tensor cores have TF32 and bfloat16 from here on: A100, H100, H200 and later.
OLDEST_CAPABILITY = (8, 0)
# Largest relative difference of gradients in the trial. TF32 rounds or cuts each factor of a product to 11 bits.
TOLERANCE = 1e-2


@functools.cache
def kernel_runs_on(device: torch.device) -> bool:
    """Return whether the softmax kernels give right results on a device; if a GPU's do not, the log says why."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    problem = _problem(device)
    if problem:
        log.warning("the softmax kernel is not used on %s, because %s", device, problem)
    return not problem


def _problem(device: torch.device) -> str:
    """Return why the kernels cannot be used, or an empty text."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return "the GPU is older than compute capability 8.0"
    try:
        difference = difference_on(device)
    except Exception as error:  # a missing compiler, an unknown GPU, a fault of Triton: each has an error of its own
        return f"a trial ended with {type(error).__name__}: {error}"
    if not difference < TOLERANCE:  # also if it is NaN
        return f"the gradients of a trial differ by {difference:.2g} from those of torch's operators"
    return ""


def difference_on(device: torch.device) -> float:
    """Return the largest difference between gradients of a small loss by the kernels and by torch's operators.

    It is relative to the largest gradient by the same vectors.
    """
    shapes = ((70, 24), (70, 24), (130, 24))
    # No random numbers: those of the training must not depend on this trial.
    values = [torch.arange(float(n * d), device=device).mul_(1.7).sin_().mul_(0.5).view(n, d) for n, d in shapes]
    own = torch.arange(70, device=device) - 1
    weights = torch.arange(130.0, device=device).sin_()
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        by_kernel = [x.clone().requires_grad_() for x in values]
        loss = SampledSoftmax.apply(*by_kernel, weights, None, Pairs(own=own.int()))
        grads = torch.autograd.grad(loss, by_kernel)
        by_torch = [x.double().requires_grad_() for x in values]
        expected = torch.autograd.grad(_plain_loss(by_torch, weights.double(), own), by_torch)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(grads, expected, strict=True))


def _plain_loss(vectors: Sequence[Tensor], log_weights: Tensor, own: Tensor) -> Tensor:
    users, targets, columns = vectors
    scores = (users * targets).sum(dim=1, keepdim=True)
    is_own = torch.arange(len(columns), device=own.device) == own[:, None]
    logits = (users @ columns.T + log_weights).masked_fill(is_own, -torch.inf)
    return (torch.cat([scores, logits], dim=1).logsumexp(dim=1) - scores[:, 0]).sum()
