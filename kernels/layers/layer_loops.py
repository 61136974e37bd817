"""The element-wise half of a Transformer layer on CPU, each pass fused and in vector registers.

Compiled, one thread, without the interpreter lock, float32. Rows are contiguous.

Legend: n rows, s rows that are added to them in turn (row i gets row i mod s), d width, f feed-forward width.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

_ONE = np.float32(1)
_ZERO = np.float32(0)
# Products may be fused with additions; infinities and NaNs mean what they mean, so that a guard sees them.
_FUSED = {"contract"}
# A row's sums may be taken several lanes at a time, always the same way.
_LANES = {"contract", "reassoc"}


@intrinsic
def _wide_vectors(typing_context: Any) -> Any:  # noqa: ARG001 -- numba calls it
    """Lets LLVM use 512-bit registers in the function that calls this, where the machine has them.

    It prefers 256 bits for fear of a slower clock; `gelu_backward` takes a quarter less time with 512.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # which llvmlite has no name for
        return context.get_dummy_value()

    return types.void(), generate


@numba.njit(nogil=True, cache=True, fastmath=_LANES, error_model="numpy")
def add_norm(states, update, bias, gamma, beta, eps, normal, scales, out):  # type: ignore[no-untyped-def]
    """LayerNorm(states + update + bias) to `out` [n, d]; before gamma and beta to `normal`, 1/std to `scales` [n].

    Args:
        states: [s, d]. update: [n, d]. bias, gamma, beta: [d]. eps: of the variance.
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
    """Gradient of the sum that `add_norm` normalised, to `sum_grad` [n, d], which may be `grad` itself.

    Adds to gamma_grad and beta_grad [d], and the sum over rows of sum_grad to bias_grad [d].

    Args:
        grad: [n, d], of `out`. normal, scales: what `add_norm` wrote.
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
    """Writes GELU(inner) to `active` and GELU'(inner) * grad over `grad`; all [n, f].

    GELU(x) = x Phi(x), its derivative Phi(x) + x phi(x), of the normal distribution. One exponential serves both:
    Phi(-a) = phi(a) M(a) for a >= 0, with Mills' ratio M as a quotient of polynomials whose coefficients are all
    positive (fitted on [0, 13], relative error 5e-9), so that nothing cancels. Phi is within 3e-7 of its value.
    Adds the sum over rows of the new `grad` to bias_grad [f].
    """
    _wide_vectors()
    for i in range(inner.shape[0]):
        for j in range(inner.shape[1]):
            x = inner[i, j]
            a = min(abs(x), np.float32(13.0))
            density = np.float32(0.3989422804014327) * _exp_negative(np.float32(-0.5) * a * a)
            density = density if abs(x) < np.float32(13.0) else _ZERO  # 8e-38 there
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
    """As `gelu_backward`, for ReLU; its derivative at 0 is 0."""
    for i in range(inner.shape[0]):
        for j in range(inner.shape[1]):
            x = inner[i, j]
            active[i, j] = x if not x < _ZERO else _ZERO
            value = grad[i, j] if not x <= _ZERO else _ZERO
            grad[i, j] = value
            bias_grad[j] += value


@numba.njit(inline="always", fastmath=_FUSED, error_model="numpy")
def _exp_negative(x):  # type: ignore[no-untyped-def]
    """e^x for x in [-87, 0]: 2^k times a polynomial in what is left; a float32 sum with 1.5 * 2^23 rounds to k."""
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
    """Softmax of logits + shift over keys, to `weights` [S, h, L, Q, k].

    Args:
        logits: [S, h, L, 1 or Q, k]; may be `weights` itself where it has Q. shift: [S, h, L, Q], -inf at hidden keys,
            finite for one key at least.
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
    """Gradient of the logits, from that of the weights [S, h, L, Q, k]: added to `logits_grad` [S, h, L, 1, k], or
    written to it [S, h, L, Q, k], which may be `grad` itself; its sum over states and centres to keys_grad [S, h, L].
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
