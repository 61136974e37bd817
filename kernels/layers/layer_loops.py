"""The element-wise operations of a Transformer layer on CPU, as fused and vectorised passes.

The functions are compiled, use one thread, release the interpreter lock, and compute in float32. Rows are contiguous.

Legend: n rows; s states, of which state i mod s is added to row i; d width; f feed-forward width. For attention: S
sequences, h heads, L keys, Q states (queries) of a sequence, k centres.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

_ONE = np.float32(1)
_ZERO = np.float32(0)
# The compiler may fuse products with additions. It may not assume that values are finite: the training loop's guard
# must see infinities and NaNs.
_FUSED = {"contract"}
# The compiler may also add up a row in several vector lanes, in an order that is fixed at compile time.
_LANES = {"contract", "reassoc"}


@intrinsic
def _wide_vectors(typing_context: Any) -> Any:  # noqa: ARG001 -- numba calls it
    """Let LLVM use 512-bit registers in the calling function, on machines that have them.

    By default LLVM prefers 256 bits, because 512 bits may lower the clock rate. `gelu_backward` takes a quarter less
    time with 512.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite has no method for it
        return context.get_dummy_value()

    return types.void(), generate


@numba.njit(nogil=True, cache=True, fastmath=_LANES, error_model="numpy")
def add_norm(states, update, bias, gamma, beta, eps, normal, scales, out):  # type: ignore[no-untyped-def]
    """Write LayerNorm(states + update + bias) to `out`.

    Args:
        states: [s, d].
        update: [n, d].
        bias: [d].
        gamma: [d].
        beta: [d].
        eps: added to the variance.
        normal: [n, d], filled with the normalised rows before gamma and beta are applied.
        scales: [n], filled with 1 / standard deviation.
        out: [n, d].
    """
    _wide_vectors()
    n, d = update.shape
    share = _ONE / np.float32(d)
    s = 0
    for i in range(n):
        total = _ZERO
        for j in range(d):
            value = states[s, j] + (update[i, j] + bias[j])
            normal[i, j] = value
            total += value
        mean = total * share
        squares = _ZERO
        for j in range(d):
            value = normal[i, j] - mean
            squares += value * value
        scale = _ONE / np.sqrt(squares * share + eps)
        scales[i] = scale
        for j in range(d):
            value = (normal[i, j] - mean) * scale
            normal[i, j] = value
            out[i, j] = value * gamma[j] + beta[j]
        s += 1
        if s == len(states):
            s = 0


@numba.njit(nogil=True, cache=True, fastmath=_LANES, error_model="numpy")
def add_norm_backward(grad, normal, scales, gamma, sum_grad, gamma_grad, beta_grad, bias_grad):  # type: ignore[no-untyped-def]
    """Write the gradient of the sum that `add_norm` normalised to `sum_grad`.

    Args:
        grad: [n, d], the gradient of `out`.
        normal: [n, d], as `add_norm` wrote it.
        scales: [n], as `add_norm` wrote it.
        gamma: [d].
        sum_grad: [n, d]; may be `grad` itself.
        gamma_grad: [d]; the gradient of gamma is added to it.
        beta_grad: [d]; the gradient of beta is added to it.
        bias_grad: [d]; the sum over rows of `sum_grad` is added to it.
    """
    _wide_vectors()
    n, d = grad.shape
    share = _ONE / np.float32(d)
    for i in range(n):
        along, mean = _ZERO, _ZERO
        for j in range(d):
            value = grad[i, j]
            scaled = value * gamma[j]
            mean += scaled
            along += scaled * normal[i, j]
            gamma_grad[j] += value * normal[i, j]
            beta_grad[j] += value
        mean *= share
        along *= share
        scale = scales[i]
        for j in range(d):
            value = (grad[i, j] * gamma[j] - mean - normal[i, j] * along) * scale
            sum_grad[i, j] = value
            bias_grad[j] += value


@numba.njit(nogil=True, cache=True, fastmath=_FUSED, error_model="numpy")
def gelu_backward(inner, grad, active, bias_grad):  # type: ignore[no-untyped-def]
    """Write GELU(inner) to `active`, and replace `grad` by GELU'(inner) * grad; all are [n, f].

    The sum over rows of the new `grad` is added to bias_grad [f].

    GELU(x) = x Phi(x), and its derivative is Phi(x) + x phi(x), with the normal distribution's Phi and its density
    phi. One exponential serves both: Phi(-a) = phi(a) M(a) for a >= 0. Mills' ratio M is computed as a quotient of
    polynomials (fitted on [0, 13], relative error 5e-9). Their coefficients are all positive, so no digits cancel.
    The error of Phi is at most 3e-7.
    """
    _wide_vectors()
    for i in range(inner.shape[0]):
        for j in range(inner.shape[1]):
            x = inner[i, j]
            a = min(abs(x), np.float32(13.0))
            density = np.float32(0.3989422804014327) * _exp_negative(np.float32(-0.5) * a * a)
            density = density if abs(x) < np.float32(13.0) else _ZERO  # the density at 13 is 8e-38
            top = np.float32(0.01001236) * a + np.float32(0.09978582)
            top = (top * a + np.float32(0.45315826)) * a + np.float32(1.09032357)
            top = top * a + np.float32(1.25331414)
            bottom = np.float32(0.01001221) * a + np.float32(0.09979347)
            bottom = (bottom * a + np.float32(0.46300074)) * a + np.float32(1.1923056)
            bottom = (bottom * a + np.float32(1.66783725)) * a + _ONE
            tail = density * (top / bottom)
            below = _ONE - tail if x > _ZERO else tail
            active[i, j] = x * below
            value = grad[i, j] * (below + x * density)
            grad[i, j] = value
            bias_grad[j] += value


@numba.njit(nogil=True, cache=True, fastmath=_FUSED, error_model="numpy")
def relu_backward(inner, grad, active, bias_grad):  # type: ignore[no-untyped-def]
    """Do the same as `gelu_backward` for ReLU, whose derivative at 0 is taken as 0."""
    for i in range(inner.shape[0]):
        for j in range(inner.shape[1]):
            x = inner[i, j]
            active[i, j] = x if not x < _ZERO else _ZERO
            value = grad[i, j] if not x <= _ZERO else _ZERO
            grad[i, j] = value
            bias_grad[j] += value


@numba.njit(inline="always", fastmath=_FUSED, error_model="numpy")
def _exp_negative(x):  # type: ignore[no-untyped-def]
    """Return e^x for x in [-87, 0], as 2^k times a polynomial in the rest x - k ln 2.

    Adding 1.5 * 2^23 in float32 and subtracting it again rounds to the whole number k.
    """
    rounder = np.float32(12582912.0)
    k = x * np.float32(1.44269504) + rounder - rounder
    rest = (x - k * np.float32(0.693359375)) - k * np.float32(-2.12194440e-4)
    value = rest * np.float32(1 / 720) + np.float32(1 / 120)
    value = (value * rest + np.float32(1 / 24)) * rest + np.float32(1 / 6)
    value = ((value * rest + np.float32(0.5)) * rest + _ONE) * rest + _ONE
    power = np.int32(np.int32(np.int32(k) + np.int32(127)) << np.int32(23))
    return value * np.int32(power).view(np.float32)


@numba.njit(nogil=True, cache=True, fastmath=_LANES, error_model="numpy")
def softmax_over_keys(logits, shift, weights):  # type: ignore[no-untyped-def]
    """Write the softmax over keys of logits + shift to `weights`.

    Args:
        logits: [S, h, L, 1 or Q, k]; if it has Q states it may be `weights` itself.
        shift: [S, h, L, Q], -inf at hidden keys, finite for at least one key.
        weights: [S, h, L, Q, k].
    """
    _wide_vectors()
    num_sequences, num_heads, num_keys, num_states, k = weights.shape
    most, total = np.empty(k, np.float32), np.empty(k, np.float32)
    for s in range(num_sequences):
        for h in range(num_heads):
            for q in range(num_states):
                at = min(q, logits.shape[3] - 1)
                most[:] = -np.inf
                for key in range(num_keys):
                    for c in range(k):
                        value = logits[s, h, key, at, c] + shift[s, h, key, q]
                        weights[s, h, key, q, c] = value
                        most[c] = max(most[c], value)
                total[:] = 0
                for key in range(num_keys):
                    for c in range(k):
                        value = weights[s, h, key, q, c] - most[c]
                        value = _ZERO if value < np.float32(-87) else _exp_negative(value)
                        weights[s, h, key, q, c] = value
                        total[c] += value
                for c in range(k):
                    total[c] = _ONE / total[c]
                for key in range(num_keys):
                    for c in range(k):
                        weights[s, h, key, q, c] *= total[c]


@numba.njit(nogil=True, cache=True, fastmath=_LANES, error_model="numpy")
def softmax_over_keys_backward(weights, grad, logits_grad, keys_grad):  # type: ignore[no-untyped-def]
    """Compute the gradient of the logits of `softmax_over_keys` from the gradient of its weights.

    Args:
        weights: [S, h, L, Q, k], as `softmax_over_keys` wrote them.
        grad: [S, h, L, Q, k], the gradient of the weights.
        logits_grad: [S, h, L, 1, k] if Q > 1 states share their logits: the gradient is added to it. Otherwise
            [S, h, L, Q, k]: the gradient is written to it, and it may be `grad` itself.
        keys_grad: [S, h, L], filled with the gradient's sum over states and centres.
    """
    _wide_vectors()
    num_sequences, num_heads, num_keys, num_states, k = weights.shape
    shared = logits_grad.shape[3] < num_states
    along = np.empty(k, np.float32)
    for s in range(num_sequences):
        for h in range(num_heads):
            for key in range(num_keys):
                keys_grad[s, h, key] = 0
            for q in range(num_states):
                along[:] = 0
                for key in range(num_keys):
                    for c in range(k):
                        along[c] += weights[s, h, key, q, c] * grad[s, h, key, q, c]
                for key in range(num_keys):
                    total = _ZERO
                    for c in range(k):
                        value = weights[s, h, key, q, c] * (grad[s, h, key, q, c] - along[c])
                        total += value
                        if shared:
                            logits_grad[s, h, key, 0, c] += value
                        else:
                            logits_grad[s, h, key, q, c] = value
                    keys_grad[s, h, key] += total
