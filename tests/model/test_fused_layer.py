"""The fused passes against torch's operators in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import Tensor

from configs.schema import ModelConfig
from kernels.layers.layer_loops import gelu_backward, relu_backward, softmax_over_keys, softmax_over_keys_backward
from model.blocks.interest_centers import center_attention
from model.blocks.sequence_encoder import TransformerLayer, after_attention
from model.cpu import fused_layer
from model.cpu.dispatch import Path

D, HEADS = 16, 2


def layer_of(activation: str = "gelu") -> TransformerLayer:
    torch.manual_seed(0)
    layer = TransformerLayer(ModelConfig(dim=D, num_heads=HEADS, activation=activation))
    for parameter in layer.parameters():  # LayerNorms and biases too
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def values_and_gradients(
    layer: TransformerLayer, compute: Callable[[TransformerLayer, list[Tensor]], Tensor], inputs: list[Tensor]
) -> list[Tensor]:
    """What `compute` gives, and the gradients of a weighted sum of it: of the inputs, then of the layer."""
    layer.zero_grad()
    inputs = [x.clone().requires_grad_() for x in inputs]
    result = compute(layer, inputs)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.dtype)
    (result * weights).sum().backward()
    parameters = [p.grad for p in layer.parameters() if p.grad is not None]
    return [result.detach(), *(x.grad for x in inputs if x.grad is not None), *parameters]


def assert_fused_is_exact(
    layer: TransformerLayer, compute: Callable[[TransformerLayer, list[Tensor]], Tensor], inputs: list[Tensor]
) -> None:
    ours = values_and_gradients(layer, compute, inputs)
    reference = values_and_gradients(deepcopy(layer).double(), compute, [x.double() for x in inputs])
    assert len(ours) == len(reference)
    for one, other in zip(ours, reference, strict=True):
        assert one.dtype == torch.float32, "the fused pass was not taken"
        assert (one - other).norm() <= 2e-6 * other.norm() + 1e-7


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(
    ("states", "attended"),
    [
        ((1, 5, D), (7, 5, D)),  # the same five rows for seven states
        ((1, 3, D), (7, 3, D)),  # several times in a chunk
        ((1, 9, D), (3, 9, D)),  # more than a chunk has
        ((7, 5, D), (7, 5, D)),
        ((1, 1, D), (1, 1, D)),
        ((1, 5, D), (0, 5, D)),
        ((0, D), (0, D)),
    ],
)
def test_a_layer_after_its_attention(
    activation: str, states: tuple[int, ...], attended: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_layer, "_CHUNK", 8)
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(shape, generator=generator) for shape in (states, attended)]
    layer = layer_of(activation)
    assert after_attention.choice(layer, *inputs, 0.0).path is Path.COMPILED
    assert_fused_is_exact(layer, lambda layer, x: layer(x[0], x[1], 0.0), inputs)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("sequences", "keys"), [(3, 4), (3, 1), (1, 1), (2, 16), (0, 2)])
def test_attention_to_few_keys(shared: bool, sequences: int, keys: int) -> None:
    generator = torch.Generator().manual_seed(3)
    k, width = 5, D // HEADS
    states = (1, 1, k, D) if shared else (sequences, keys, k, D)
    shapes = states, (sequences, HEADS, keys, width), (sequences, HEADS, keys, width)
    inputs = [2 * torch.randn(shape, generator=generator) for shape in shapes]
    visible = torch.ones(keys, keys, dtype=torch.bool).tril().expand(sequences, -1, -1)

    def compute(layer: TransformerLayer, x: list[Tensor]) -> Tensor:
        return center_attention(layer, x[0], (x[1], x[2]), visible, 0.0)

    layer = layer_of()
    if sequences:
        assert "FewKeys" in type(compute(layer, inputs).grad_fn).__name__
    assert_fused_is_exact(layer, compute, inputs)


def test_gelu_and_its_derivative_are_within_three_float32_steps_of_one() -> None:
    inner = np.concatenate([np.linspace(-14, 14, 200_001), [-0.0, -1e30, 1e30, -1e-30]]).astype(np.float32)[None]
    grad, active, sums = np.ones_like(inner), np.empty_like(inner), np.zeros(inner.shape[1], np.float32)
    gelu_backward(inner, grad, active, sums)
    x = inner.astype(np.float64)
    np.testing.assert_allclose(active, x * ndtr(x), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(active, x * ndtr(x), rtol=1.8e-7, atol=3.6e-7)
    slope = ndtr(x) + x * np.exp(-np.minimum(x * x, 1e3) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(grad, slope, rtol=0, atol=3.6e-7)
    assert np.array_equal(sums, grad[0])


@pytest.mark.parametrize("loop", [gelu_backward, relu_backward])
def test_what_is_not_finite_stays_so(loop: Callable[..., None]) -> None:
    inner = np.array([[np.nan, 1.0, np.inf, 1.0]], np.float32)
    grad, active, sums = np.array([[1, np.nan, 1, np.inf]], np.float32), np.empty_like(inner), np.zeros(4, np.float32)
    loop(inner, grad, active, sums)
    assert np.isfinite(active[0]).tolist() == [False, True, False, True]
    assert not np.isfinite(grad[0, [1, 3]]).any()
    assert not np.isfinite(sums[[1, 3]]).any()


def test_softmax_over_keys_hides_and_does_not_overflow() -> None:
    logits = np.array([300.0, -300.0, 500.0], np.float32).reshape(1, 1, 3, 1, 1)
    shift = np.array([0.0, 0.0, -np.inf], np.float32).reshape(1, 1, 3, 1)
    weights = np.empty_like(logits)
    softmax_over_keys(logits, shift, weights)
    assert weights.ravel().tolist() == [1.0, 0.0, 0.0]
    grad, keys_grad = np.ones_like(logits), np.empty((1, 1, 3), np.float32)
    softmax_over_keys_backward(weights, grad, grad, keys_grad)
    assert not grad.any()
    assert not keys_grad.any()


def test_a_nan_among_the_logits_reaches_the_weights() -> None:
    logits = np.array([1.0, np.nan, 2.0], np.float32).reshape(1, 1, 3, 1, 1)
    weights = np.empty_like(logits)
    softmax_over_keys(logits, np.zeros((1, 1, 3, 1), np.float32), weights)
    assert np.isnan(weights).any()
