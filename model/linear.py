"""A linear map whose bias costs nothing on CPU.

torch's float32 one copies the bias into the result and lets the matrix product add to it: a third of the time of a
[8192, 64] x [64, 256] product. oneDNN adds it as it writes the result.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """`module(x)`, by oneDNN where that serves: float32 on CPU, outside autocast."""
    plain = x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
    if plain or not torch.backends.mkldnn.is_available() or x.numel() == 0:
        return cast(Tensor, module(x))
    return cast(Tensor, _Linear.apply(x, module.weight, module.bias))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        # The operator that torch's own compiler emits for a linear map on CPU.
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        return (rows @ weight).view(x.shape), rows.T @ x.flatten(0, -2), rows.sum(0)
