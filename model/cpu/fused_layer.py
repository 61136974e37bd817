"""A Transformer layer after its attention, in one pass over memory, in float32 on CPU and without dropout.

It computes LayerNorm(h + W2 act(W1 h + b1) + b2) with h = LayerNorm(states + attended), forward and backward, for a
chunk of rows at a time, which stays in the second-level cache. Centre attention dominates the time of a step. Much of
its time outside of matrix products went into passes over memory and dozens of small operators (figures: docs/log.md).

Shapes: n rows, s rows of states, which are added to the n rows cyclically, d width, f feed-forward width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.layers import layer_loops
from model.cpu.dispatch import Part, Work, work_on
from model.cpu.feed_forward import linear
from model.cpu.layer_parts import LayerParts

_aten = torch.ops.aten
# Rows of a chunk: a buffer of 2,048 x 256 floats fills a second-level cache.
_CHUNK = 2048


def after_attention_work(layer: LayerParts, states: Tensor, attended: Tensor, rate: float) -> Work:  # noqa: ARG001
    """Return what the choice between the paths of `sequence_encoder.after_attention` depends on."""
    return work_on(attended, Part.AFTER_ATTENTION, rate=rate)


def compiled_after_attention(layer: LayerParts, states: Tensor, attended: Tensor, rate: float) -> Tensor:
    """Compute the result of `sequence_encoder.after_attention.plain`, which documents the arguments, for rate 0."""
    assert rate == 0, "the compiled loops have no dropout"
    attention_norm, ffn_norm = layer.attention_norm, layer.ffn_norm
    assert attention_norm is not None, "built without norms"
    assert ffn_norm is not None, "built without norms"
    parts = attention_norm, layer.expand, layer.contract, ffn_norm
    rows = _DenseHalf.apply(
        states.flatten(0, -2),
        attended.flatten(0, -2),
        *(parameter for part in parts for parameter in (part.weight, part.bias)),
        attention_norm.eps,
        layer.relu,
    )
    return cast(Tensor, rows).view(attended.shape)


class _DenseHalf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_sd: Tensor, attended_nd: Tensor, *rest: Any) -> Tensor:
        gamma1, beta1, w1, b1, w2, b2, gamma2, beta2, eps, relu = rest
        states_sd, attended_nd = states_sd.contiguous(), attended_nd.contiguous()
        n, d = attended_nd.shape
        normal1, normal2, out = (torch.empty(n, d) for _ in range(3))
        scales1, scales2 = torch.empty(n), torch.empty(n)
        step = _chunk_rows(n, len(states_sd))
        hidden, update, active = torch.empty(step, d), torch.empty(step, d), torch.empty(step, len(w1))
        first_norm = _arrays(torch.zeros(d), gamma1, beta1), _arrays(normal1, scales1)
        second_norm = _arrays(b2, gamma2, beta2), _arrays(normal2, scales2, out)
        added, found, h, contracted = _arrays(states_sd, attended_nd, hidden, update)
        inner = []
        for chunk in _chunks(n, step):
            m = chunk.stop - chunk.start
            own = added if len(added) < n else added[chunk]
            gains, kept = first_norm
            layer_loops.add_norm(own, found[chunk], *gains, np.float32(eps), *(a[chunk] for a in kept), h[:m])
            inner.append(linear(hidden[:m], w1, b1))
            if relu:
                torch.clamp_min(inner[-1], 0, out=active[:m])
            else:
                _aten.gelu.out(inner[-1], out=active[:m])
            torch.mm(active[:m], w2.T, out=update[:m])
            gains, kept = second_norm
            layer_loops.add_norm(h[:m], contracted[:m], *gains, np.float32(eps), *(a[chunk] for a in kept))
        ctx.save_for_backward(normal1, scales1, normal2, scales2, gamma1, beta1, w1, w2, gamma2, *inner)
        ctx.num_states, ctx.relu = len(states_sd), relu
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nd: Tensor) -> tuple[Tensor | None, ...]:
        normal1, scales1, normal2, scales2, gamma1, beta1, w1, w2, gamma2, *inner = ctx.saved_tensors
        n, d = grad_nd.shape
        sum_grad = torch.empty(n, d)
        step = _chunk_rows(n, ctx.num_states)
        hidden_grad = torch.empty(step, d)
        active, inner_grad = torch.empty(step, len(w1)), torch.empty(step, len(w1))
        w1_grad_T, w2_grad = torch.zeros(d, len(w1)), torch.zeros_like(w2)  # products in these layouts are faster
        sizes = d, d, len(w1), d, d, d, d
        zeros = torch.zeros(sum(sizes)).split(sizes)
        gamma1_grad, beta1_grad, b1_grad, b2_grad, gamma2_grad, beta2_grad, unused = zeros
        sums1, sums2 = _arrays(gamma1_grad, beta1_grad, unused), _arrays(gamma2_grad, beta2_grad, b2_grad)
        kept1, kept2 = _arrays(normal1, scales1), _arrays(normal2, scales2)
        grad, done, g1, g2, h_grad, act, act_grad, b1_sums = _arrays(
            grad_nd.contiguous(), sum_grad, gamma1, gamma2, hidden_grad, active, inner_grad, b1_grad
        )
        through = layer_loops.relu_backward if ctx.relu else layer_loops.gelu_backward
        for chunk, inner_mf in zip(_chunks(n, step), inner, strict=True):
            m = chunk.stop - chunk.start
            layer_loops.add_norm_backward(grad[chunk], *(a[chunk] for a in kept2), g2, h_grad[:m], *sums2)
            back, wide = hidden_grad[:m], inner_grad[:m]
            torch.mm(back, w2, out=wide)
            through(inner_mf.numpy(), act_grad[:m], act[:m], b1_sums)
            w2_grad.addmm_(back.T, active[:m])
            w1_grad_T.addmm_(normal1[chunk].T, wide)
            back.addmm_(wide, w1)
            layer_loops.add_norm_backward(h_grad[:m], *(a[chunk] for a in kept1), g1, done[chunk], *sums1)
        # The gradient needs h = gamma1 * normal1 + beta1; this applies gamma1 and beta1 without computing h again.
        w1_grad_T.mul_(gamma1[:, None]).add_(torch.outer(beta1, b1_grad))
        states_grad = sum_grad if ctx.num_states == n else sum_grad.view(-1, ctx.num_states, d).sum(0)
        norm1, norm2 = (gamma1_grad, beta1_grad), (gamma2_grad, beta2_grad)
        return states_grad, sum_grad, *norm1, w1_grad_T.T, b1_grad, w2_grad, b2_grad, *norm2, None, None


def _chunk_rows(n: int, num_states: int) -> int:
    """Return the rows of a chunk. If there are fewer states than rows, every chunk begins at the first state."""
    step = _CHUNK if num_states in (0, n) else max(1, _CHUNK // num_states) * num_states
    return max(1, min(n, step))


def _chunks(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple((tensor.detach() if tensor.requires_grad else tensor).numpy() for tensor in tensors)
