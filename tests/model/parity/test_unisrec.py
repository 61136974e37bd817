"""UniSRec against its authors' code: states, scores, loss and every gradient, without and with the gate's noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.unisrec import UniSRec
from model.zoo import build_model
from tests.model.parity import names
from tests.model.parity.comparison import ATOL, RTOL, check_parity
from tests.model.parity.fixture import Fixture, load
from tests.model.parity.names import Weights

NAMES = ("UniSRec_transductive", "UniSRec_inductive")


def model_of(fixture: Fixture) -> UniSRec:
    """Our model with the fixture's sizes, whose gate's noise is the fixture's: for positions of the input, or items."""
    options = fixture.options
    knobs = {
        "use_ids": options["train_stage"] == "transductive_ft",
        "num_experts": options["n_exps"],
        "temperature": options["temperature"],
        "adaptor_dropout": 0.0,
    }
    model = build_model(fixture.config("unisrec", **knobs), fixture.info).double()
    assert isinstance(model, UniSRec)
    of_positions = torch.from_numpy(fixture.inputs["gate_noise_seq"])
    of_items = torch.from_numpy(fixture.inputs["gate_noise_items"][1:])
    model.adaptor.draw = lambda like: of_positions if like.shape == of_positions.shape else of_items
    return model


def adaptor(official: Weights) -> Weights:
    numbers = range(sum(name.endswith("lin.weight") for name in official))
    experts = {f"experts.{n}.weight": official[f"moe_adaptor.experts.{n}.lin.weight"] for n in numbers}
    shifts = torch.stack([official[f"moe_adaptor.experts.{n}.bias"] for n in numbers])
    gates = {"gate": official["moe_adaptor.w_gate"], "noise": official["moe_adaptor.w_noise"]}
    return {**experts, "shifts": shifts, **gates}


@pytest.mark.parametrize("noisy", [False, True], ids=["without noise", "with the recorded noise"])
@pytest.mark.parametrize("name", NAMES)
def test_parity_unisrec(name: str, noisy: bool) -> None:
    fixture = load(name)
    model = model_of(fixture)

    def ours(official: Weights) -> Weights:
        rows = names.item_table(official) if model.needs.id_rows else {}
        own = {f"recommender.adaptor.{key}": x for key, x in adaptor(official).items()}
        return {**rows, **names.tower(official), **own}

    prefix = "noise_" if noisy else ""
    check_parity(
        fixture,
        model,
        ours,
        states=f"{prefix}user_states",
        scores=f"{prefix}scores_without_pad",
        loss=f"{prefix}loss_without_pad",
        gradients=f"{prefix}grad_without_pad",
        frozen=[name for name in fixture.weights if name == "plm_embedding.weight"],
        without_effect=[] if noisy else ["moe_adaptor.w_noise"],
        training=noisy,
        temperature=fixture.options["temperature"],
    )


@pytest.mark.parametrize("noisy", [False, True], ids=["without noise", "with the recorded noise"])
@pytest.mark.parametrize("name", NAMES)
def test_parity_of_unisrecs_adaptor(name: str, noisy: bool) -> None:
    fixture = load(name)
    ours = model_of(fixture).adaptor.train(noisy)
    ours.load_state_dict(adaptor(fixture.weights))
    found = ours(torch.from_numpy(fixture.inputs["text_feat"][fixture.inputs["item_seq"]]))
    expected = fixture.outputs["noise_adapted_seq" if noisy else "adapted_seq"]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=RTOL, atol=ATOL)
