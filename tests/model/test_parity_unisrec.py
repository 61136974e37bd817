"""UniSRec equals its authors' code: states, item vectors, scores, loss and every gradient, without and with noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.schema import ModelConfig
from model.blocks.sequence_encoder import SequenceEncoder, layers_of
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.unisrec import UniSRec
from model.zoo import build_model
from tests.model import small_case as case
from tests.model.recorded import (
    WHOLE,
    Part,
    Recording,
    check_close,
    check_gradients,
    copy_weights,
    module_parts,
    recording,
)

NAMES = ("UniSRec_transductive", "UniSRec_inductive")


def system_of(recorded: Recording) -> tuple[RecommenderSystem, dict[str, Part]]:
    """Our model with the recorded weights, and which of our parameters each of theirs is."""
    theirs = recorded.meta["config"]
    knobs = {
        "use_ids": theirs["train_stage"] == "transductive_ft",
        "num_experts": theirs["n_exps"],
        "temperature": theirs["temperature"],
        "adaptor_dropout": theirs["adaptor_dropout_prob"],
    }
    config = ModelConfig(
        name="unisrec",
        dim=theirs["hidden_size"],
        num_layers=theirs["n_layers"],
        num_heads=theirs["n_heads"],
        ffn_dim=theirs["inner_size"],
        activation=theirs["hidden_act"],
        max_length=theirs["MAX_ITEM_LIST_LENGTH"],
        dropout=theirs["hidden_dropout_prob"],
        unisrec=knobs,
    )
    num_items, width = recorded.inputs["text_feat"].shape
    model = build_model(config, CatalogueInfo(num_items=num_items - 1, feature_dims={"text": width})).double()
    assert isinstance(model, UniSRec)
    parts: dict[str, Part] = {**tower_parts(model.encoder), **adaptor_parts(model)}
    table = None
    weights = {**recorded.weights}
    if knobs["use_ids"]:
        weights["item_embedding.weight"] = weights["item_embedding.weight"][1:]
        table = case.Rows(np.zeros_like(weights["item_embedding.weight"]))
        parts["item_embedding.weight"] = (table.weight, WHOLE)
    copy_weights(parts, weights)
    system = RecommenderSystem(table, model)
    assert {id(p) for p in system.parameters()} == {id(p) for p, _ in parts.values()}
    return system, parts


def tower_parts(encoder: SequenceEncoder) -> dict[str, Part]:
    parts = {
        "position_embedding.weight": (encoder.positions.weight, WHOLE),
        **module_parts("LayerNorm", encoder.input_norm),
    }
    for number, layer in enumerate(layers_of(encoder.layers)):
        attention, ffn = (f"trm_encoder.layer.{number}.{p}" for p in ("multi_head_attention", "feed_forward"))
        dim = layer.query.in_features
        for kind in ("weight", "bias"):
            both = layer.key_value.get_parameter(kind)
            parts[f"{attention}.key.{kind}"] = (both, slice(0, dim))
            parts[f"{attention}.value.{kind}"] = (both, slice(dim, None))
        assert layer.attention_norm is not None
        assert layer.ffn_norm is not None
        parts |= module_parts(f"{attention}.query", layer.query)
        parts |= module_parts(f"{attention}.dense", layer.output)
        parts |= module_parts(f"{attention}.LayerNorm", layer.attention_norm)
        parts |= module_parts(f"{ffn}.dense_1", layer.expand) | module_parts(f"{ffn}.dense_2", layer.contract)
        parts |= module_parts(f"{ffn}.LayerNorm", layer.ffn_norm)
    return parts


def adaptor_parts(model: UniSRec) -> dict[str, Part]:
    adaptor = model.adaptor
    assert adaptor.noise is not None
    parts: dict[str, Part] = {
        "moe_adaptor.w_gate": (adaptor.gate, WHOLE),
        "moe_adaptor.w_noise": (adaptor.noise, WHOLE),
    }
    for number, expert in enumerate(adaptor.experts):
        parts[f"moe_adaptor.experts.{number}.bias"] = (adaptor.shifts, number)
        parts |= module_parts(f"moe_adaptor.experts.{number}.lin", expert)
    return parts


def use_recorded_noise(model: UniSRec, recorded: Recording) -> None:
    """Feed the recorded draws: first those of the sequences' positions, then those of the items."""
    waiting = iter((recorded.inputs["gate_noise_seq"], recorded.inputs["gate_noise_items"][1:]))

    def draw(like: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(next(waiting))
        assert noise.shape == like.shape
        return noise

    model.adaptor.draw = draw


def check(recorded: Recording, *, noisy: bool) -> None:
    prefix = "noise_" if noisy else ""
    system, parts = system_of(recorded)
    plan, batch = recorded.plan(text=recorded.inputs["text_feat"]), recorded.batch()
    temperature = recorded.meta["config"]["temperature"]
    system.train(noisy)
    use_recorded_noise(system.recommender, recorded)
    items = system.item_rows(plan)
    (users,), (vectors,) = system.recommender.scored_users(items, batch), system.recommender.scored_items(items)
    check_close(users * temperature, recorded.outputs[f"{prefix}user_states"])
    check_close(vectors, recorded.outputs[f"{prefix}item_vectors"][1:])
    scores = users @ vectors.T * temperature
    check_close(scores, recorded.outputs[f"{prefix}scores_without_pad"])
    use_recorded_noise(system.recommender, recorded)
    loss = case.loss(system, plan, batch)
    check_close(loss, recorded.outputs[f"{prefix}loss_without_pad"])
    loss.backward()
    check_gradients(parts, recorded, f"{prefix}loss_without_pad")


@pytest.mark.parametrize("name", NAMES)
def test_parity_without_noise(name: str) -> None:
    check(recording(name), noisy=False)


@pytest.mark.parametrize("name", NAMES)
def test_parity_with_the_recorded_noise_of_the_gate(name: str) -> None:
    check(recording(name), noisy=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noisy", [False, True])
def test_parity_of_the_adaptor(name: str, noisy: bool) -> None:
    recorded = recording(name)
    adaptor = system_of(recorded)[0].recommender.adaptor.train(noisy)
    adaptor.draw = lambda _: torch.from_numpy(recorded.inputs["gate_noise_seq"])
    adapted = adaptor(torch.from_numpy(recorded.inputs["text_feat"][recorded.inputs["item_seq"]]))
    check_close(adapted, recorded.outputs["noise_adapted_seq" if noisy else "adapted_seq"])
