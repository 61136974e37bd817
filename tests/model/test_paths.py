"""Every path of every equation against its plain form, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.schema import ModelConfig
from model.blocks.center_memory import budget_bytes, is_compiled, is_recomputed
from model.blocks.interest_centers import center_attention
from model.blocks.sequence_encoder import TransformerLayer, after_attention, attention, feed_forward
from model.cpu.dispatch import Part, Path, WithFasterPaths, Work, choose, has_few_keys, work_on
from tests.model import small_case as case
from tests.pretended_device import CUDA, pretended_device

HEADS, WIDTH = 3, 5
DIM = HEADS * WIDTH
F32_ON_CPU = Work(
    part=Part.CENTER_ATTENTION,
    device="cpu",
    dtype=torch.float32,
    autocast=False,
    threads=1,
    onednn=True,
    num_keys=3,
    head_width=8,
)


def layer_of(activation: str = "gelu") -> TransformerLayer:
    config = case.config(dim=DIM, num_heads=HEADS, ffn_dim=17, activation=activation)
    return case.shaken(TransformerLayer(config))


def values_and_gradients(
    compute: Callable[..., Tensor], layer: TransformerLayer, inputs: list[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """What `compute(layer, *inputs)` gives, and the gradients of a weighted sum of it: of inputs, then parameters."""
    layer = deepcopy(layer).to(dtype)
    inputs = [x.to(dtype).requires_grad_() for x in inputs]
    result = compute(layer, *inputs)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sources = [*inputs, *layer.parameters()]
    gradients = torch.autograd.grad((result * weights.to(dtype)).sum(), sources, allow_unused=True)
    zeros = [torch.zeros_like(source) for source in sources]
    return [result.detach(), *(z if g is None else g for g, z in zip(gradients, zeros, strict=True))]


def check_paths(
    equation: WithFasterPaths[Any],
    compute: Callable[[Callable[..., Tensor]], Callable[..., Tensor]],
    layer: TransformerLayer,
    inputs: list[Tensor],
    only_float32: tuple[Path, ...] = (),
) -> None:
    """Each path in float32 and, where it can, in float64, and the dispatched call, against plain float64."""
    exact = values_and_gradients(compute(equation.plain), layer, inputs, torch.float64)
    for path, computation in {**equation.paths, "chosen": equation}.items():
        for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
            if dtype is torch.float64 and path in only_float32:
                continue
            found = values_and_gradients(compute(computation), layer, inputs, dtype)
            for ours, expected in zip(found, exact, strict=True):
                assert ours.dtype == dtype
                difference = (ours.double() - expected).norm()
                # The key bias has no gradient: a shift of all keys leaves a softmax as it is.
                assert difference <= tolerance * (expected.norm() + 1), (path, dtype, ours.shape)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("sequences", "keys", "states", "k"), [(3, 4, 2, 7), (1, 1, 1, 1), (5, 10, 3, 5), (2, 11, 11, 3), (0, 2, 2, 4)]
)
def test_centre_attention(shared: bool, sequences: int, keys: int, states: int, k: int) -> None:
    """Few keys and many, centres of their own and shared ones, no sequence at all."""
    assert set(center_attention.paths) == {Path.PLAIN, Path.FEW_KEYS, Path.COMPILED, Path.TORCH_KERNEL}
    centers = torch.randn(1, 1, k, DIM) if shared else torch.randn(sequences, states, k, DIM)
    pair = torch.randn(2, sequences, HEADS, keys, WIDTH).unbind()
    visible = (torch.arange(keys) <= torch.arange(states)[:, None] % keys).expand(sequences, -1, -1)

    def compute(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda layer, c, keys, values: attend(layer, c, (keys, values), visible, 0.0)

    check_paths(center_attention, compute, layer_of(), [centers, *pair], only_float32=(Path.COMPILED,))


def test_the_plain_form_of_centre_attention_is_that_of_any_query() -> None:
    """Written out for one head, state and centre at a time."""
    layer, k, keys = layer_of().double(), 4, 6
    centers = torch.randn(2, 3, k, DIM, dtype=torch.float64)
    keys_values = torch.randn(2, 2, HEADS, keys, WIDTH, dtype=torch.float64).unbind()
    visible = torch.arange(keys) < torch.tensor([[1, 4, 6], [2, 2, 5]])[:, :, None]
    found = center_attention.plain(layer, centers, keys_values, visible, 0.0)
    for s in range(2):
        for q in range(3):
            for c in range(k):
                query = layer.query(centers[s, q, c]).view(HEADS, WIDTH)
                heads = []
                for h in range(HEADS):
                    seen_keys, seen_values = (x[s, h, visible[s, q]] for x in keys_values)
                    heads.append((seen_keys @ query[h] / WIDTH**0.5).softmax(0) @ seen_values)
                torch.testing.assert_close(found[s, q, c], layer.output(torch.cat(heads)))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(
    ("states", "attended"), [((1, 7), (3, 7)), ((3, 7), (3, 7)), ((1, 1), (1, 1)), ((1, 7), (0, 7)), ((0, 5), (0, 5))]
)
def test_a_layer_after_its_attention(activation: str, states: tuple[int, ...], attended: tuple[int, ...]) -> None:
    assert set(after_attention.paths) == {Path.PLAIN, Path.COMPILED}
    inputs = [torch.randn(*states, DIM), torch.randn(*attended, DIM)]
    check_paths(
        after_attention,
        lambda compute: lambda layer, x, y: compute(layer, x, y, 0.0),
        layer_of(activation),
        inputs,
        only_float32=(Path.COMPILED,),
    )


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (1,), (0,)])
def test_the_feed_forward(activation: str, shape: tuple[int, ...]) -> None:
    assert set(feed_forward.paths) == {Path.PLAIN, Path.ONE_BUFFER}
    paths = feed_forward if shape != (0,) else WithFasterPaths(feed_forward.plain, feed_forward._describe, {})
    check_paths(
        paths,
        lambda compute: compute,
        layer_of(activation),
        [torch.randn(*shape, DIM)],
        only_float32=(Path.ONE_BUFFER,),
    )


@pytest.mark.parametrize("masked", ["causal", "each query alike", "no"])
@pytest.mark.parametrize(("sequences", "length"), [(3, 7), (1, 1), (0, 4)])
def test_the_attention_of_a_tower(masked: str, sequences: int, length: int) -> None:
    assert set(attention.paths) == {Path.PLAIN, Path.TORCH_KERNEL}
    visible = None
    if masked == "causal":
        visible = torch.ones(length, length, dtype=torch.bool).tril(1).expand(sequences, -1, -1)
    elif masked == "each query alike":  # of the last sequence, every key is visible
        visible = (torch.arange(length) <= length - sequences + torch.arange(sequences)[:, None])[:, None]
    inputs = list(torch.randn(3, sequences, HEADS, length, WIDTH).unbind())

    def compute(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda _, queries, keys, values: attend(queries, (keys, values), visible, 0.0)

    check_paths(attention, compute, layer_of(), inputs)


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({}, Path.COMPILED, "keys are few, in float32"),
        ({"num_keys": 16}, Path.COMPILED, "keys are few"),
        ({"num_keys": 17}, Path.PLAIN, "more keys than twice the width"),
        ({"rate": 0.1}, Path.FEW_KEYS, "no dropout"),
        ({"device": "cuda"}, Path.TORCH_KERNEL, "not write attention weights to memory"),
        ({"device": "cuda", "num_keys": 17, "rate": 0.1}, Path.TORCH_KERNEL, "not write attention weights to memory"),
        ({"device": "cuda", "head_width": 6}, Path.FEW_KEYS, "not a CPU"),
        ({"device": "cuda", "head_width": 6, "num_keys": 17}, Path.PLAIN, "more keys than twice the width"),
        ({"dtype": torch.float64}, Path.FEW_KEYS, "not in float32"),
        ({"autocast": True}, Path.FEW_KEYS, "not in float32"),
        ({"threads": 2}, Path.FEW_KEYS, "one thread"),
        ({"onednn": False}, Path.FEW_KEYS, "oneDNN"),
        ({"exports": True}, Path.PLAIN, "exported program"),
        ({"part": Part.TOWER_ATTENTION, "exports": True}, Path.PLAIN, "exported program"),
        ({"part": Part.AFTER_ATTENTION}, Path.COMPILED, "one CPU thread"),
        ({"part": Part.AFTER_ATTENTION, "rate": 0.1}, Path.PLAIN, "no dropout"),
        ({"part": Part.AFTER_ATTENTION, "threads": 2}, Path.PLAIN, "one thread"),
        ({"part": Part.AFTER_ATTENTION, "device": "cuda"}, Path.PLAIN, "not a CPU"),
        ({"part": Part.FEED_FORWARD, "threads": 2}, Path.ONE_BUFFER, "float32 on CPU"),
        ({"part": Part.FEED_FORWARD, "has_elements": False}, Path.PLAIN, "no rows"),
        ({"part": Part.FEED_FORWARD, "dtype": torch.bfloat16}, Path.PLAIN, "not in float32"),
        ({"part": Part.TOWER_ATTENTION}, Path.TORCH_KERNEL, "not write attention weights to memory"),
        ({"part": Part.TOWER_ATTENTION, "rate": 0.1}, Path.PLAIN, "no dropout"),
        (
            {"part": Part.TOWER_ATTENTION, "rate": 0.1, "device": "cuda"},
            Path.TORCH_KERNEL,
            "not write attention weights to memory",
        ),
        ({"part": Part.CENTER_STATES}, Path.PLAIN, "leave out keys"),
        ({"part": Part.CENTER_STATES, "device": "cuda"}, Path.BLOCKS, "one kernel for all blocks"),
        ({"part": Part.CENTER_STATES, "device": "cuda", "exports": True}, Path.PLAIN, "exported program"),
        ({"part": Part.CENTER_PATH, "stored_bytes": 9}, Path.PLAIN, "no backward"),
        ({"part": Part.CENTER_PATH, "stored_bytes": 9, "records_gradients": True}, Path.RECOMPUTED, "would keep more"),
        (
            {"part": Part.CENTER_PATH, "stored_bytes": 9, "budget_bytes": 9, "records_gradients": True},
            Path.PLAIN,
            "within",
        ),
    ],
    ids=str,
)
def test_the_dispatcher_names_the_path_and_says_why(change: dict[str, Any], path: Path, why: str) -> None:
    choice = choose(replace(F32_ON_CPU, **change))
    assert choice.path is path
    assert why in choice.why


def test_work_reads_the_settings_of_torch() -> None:
    x = torch.zeros(0, 3)
    work = work_on(x, Part.FEED_FORWARD)
    assert (work.device, work.dtype, work.threads, work.has_elements) == (
        "cpu",
        x.dtype,
        torch.get_num_threads(),
        False,
    )
    assert work.records_gradients
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        work = work_on(x, Part.FEED_FORWARD)
    assert work.autocast
    assert not work.records_gradients


def test_calls_take_the_path_that_their_arguments_ask_for() -> None:
    layer, pair = layer_of(), torch.randn(2, 2, HEADS, 4, WIDTH).unbind()
    centers, visible = torch.randn(1, 1, 3, DIM), torch.ones(2, 4, 4, dtype=torch.bool)
    assert center_attention.choice(layer, centers, pair, visible, 0.0).path is Path.COMPILED
    assert center_attention.choice(layer, centers, pair, visible, 0.1).path is Path.FEW_KEYS
    assert center_attention.choice(layer, centers.double(), pair, visible, 0.0).path is Path.FEW_KEYS
    assert not has_few_keys(11, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward.choice(layer, centers).path is Path.PLAIN
        assert feed_forward(layer, centers).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "compiled"),
    [
        ({}, True),
        ({"center_residual": False}, False),
        ({"center_feed_forward": "literal"}, False),
        ({"center_dropout": 0.1}, False),
    ],
)
def test_the_budget_is_counted_for_the_path_that_is_taken(options: dict[str, Any], compiled: bool) -> None:
    config, centers = case.config(mdsrec=options), torch.zeros(case.NUM_CENTERS, case.DIM)
    assert is_compiled(config, centers) == compiled
    assert not is_compiled(config, centers.double())


def test_recomputation_starts_where_the_budget_ends() -> None:
    groups = case.batch(*case.histories()).groups

    def recomputed(gib: float, *centers: Tensor) -> bool:
        shape: ModelConfig = case.config(mdsrec={"center_memory_gib": gib})
        return is_recomputed(shape, centers, groups)

    centers = torch.zeros(case.NUM_CENTERS, case.DIM)
    assert recomputed(0.0, centers)
    assert not recomputed(1.0, centers, centers)
    assert not recomputed(0.0)
    with torch.no_grad():
        assert not recomputed(0.0, centers)


def test_a_gpu_may_keep_an_eighth_of_its_memory() -> None:
    configs = {gib: case.config(mdsrec={"center_memory_gib": gib}) for gib in (0.0, 1.0, 100.0)}
    with pretended_device():
        found = {gib: budget_bytes(config, CUDA) for gib, config in configs.items()}
    assert found == {0.0: 0.0, 1.0: 141e9 / 8, 100.0: 100 * 2**30}
    assert budget_bytes(configs[1.0], torch.device("cpu")) == 2**30
