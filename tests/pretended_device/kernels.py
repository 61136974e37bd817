"""Operators for which CUDA has one kernel and the CPU several, so that the pretended device counts what CUDA runs.

Dropout is `native_dropout` on CUDA, and a GRU is one call of cuDNN. Attention is a fused kernel. Which one, PyTorch
decides on the CPU by other rules than on CUDA. So with `data="meta"` the memory-efficient kernel stands for all fused
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tests.pretended_device.counts import Counts, Launch
from tests.pretended_device.tensor import PretendedTensor

_dropout, _attention = F.dropout, F.scaled_dot_product_attention
_gru: Callable[..., tuple[Tensor, Tensor]] = torch._VF.gru


class Device(Protocol):
    """What a kernel needs of the pretended device."""

    counts: Counts

    def hold(self, content: Tensor) -> PretendedTensor: ...


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return `F.dropout`, in one operator for a pretended tensor."""
    if not isinstance(x, PretendedTensor) or not training or inplace:
        return _dropout(x, p, training, inplace)
    dropped: Tensor = torch.native_dropout(x, p, True)[0]
    return dropped


def has_fused_attention(head_width: int, dtype: torch.dtype) -> bool:
    """Return whether CUDA's fused kernels take heads of this width; otherwise attention is plain operators.

    For float32 there is only the memory-efficient kernel, which reads 16 bytes at a time (aten/native/transformers/
    cuda/sdp_utils.cpp, `minimum_gemm_alignment`). In bfloat16 the same rule asks for multiples of 8.
    """
    return head_width % (16 // dtype.itemsize) == 0


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **others: Any,
) -> Tensor:
    """Return `F.scaled_dot_product_attention`, on the meta device in the operators that CUDA would run."""
    if not isinstance(query, PretendedTensor) or not (query.content.is_meta or dropout_p):
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, **others)
    aten, length = torch.ops.aten, key.shape[-2]
    if not query.content.is_meta or not has_fused_attention(query.shape[-1], query.dtype):
        if is_causal:  # PyTorch would make this mask on the CPU
            attn_mask = torch.ones(query.shape[-2], length, dtype=torch.bool, device=query.device).tril()
        math: Tensor = aten._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, False)[0]
        return math
    bias = None
    if attn_mask is not None:  # the kernel adds a bias, whose rows begin at multiples of 8 numbers
        bias = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -torch.inf)
        if length % 8:
            bias = F.pad(bias, (0, -length % 8))[..., :length]
        bias = bias.expand(*query.shape[:-1], length)
    fused: Tensor = aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, dropout_p, is_causal)[0]
    return fused


def gru(device: Device, x: Tensor, state: Tensor, weights: Sequence[Tensor], *settings: Any) -> tuple[Tensor, Tensor]:
    """Return `torch.gru`, in one kernel each forward and backward for pretended tensors."""
    if not isinstance(x, PretendedTensor):
        return _gru(x, state, weights, *settings)
    output, final = _Gru.apply(device, settings, x, state, *weights)
    return output, final


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, device: Device, settings: Any, *tensors: PretendedTensor) -> tuple[Tensor, Tensor]:
        contents = [tensor.content.detach().requires_grad_() for tensor in tensors]
        with torch.enable_grad():
            ctx.results = _gru(contents[0], contents[1], contents[2:], *settings)
        ctx.device, ctx.contents = device, contents
        output, final = (device.hold(result.detach()) for result in ctx.results)
        device.counts.launches.append(_launch_of_gru(False, [*contents, output.content]))
        return output, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: PretendedTensor) -> tuple[Any, ...]:
        found = torch.autograd.grad(ctx.results, ctx.contents, [gradient.content for gradient in gradients])
        ctx.device.counts.launches.append(_launch_of_gru(True, [*ctx.contents, *found]))
        return None, None, *(ctx.device.hold(gradient) for gradient in found)


def _launch_of_gru(backward: bool, tensors: list[Tensor]) -> Launch:
    """Return the launch, without operations, which depend on cuDNN's algorithm."""
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Launch("cudnn_rnn", backward, num_bytes, 0, tensors[0].dtype)
