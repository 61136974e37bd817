"""UniSRec against its authors' code: states, scores, loss and every gradient, without and with the gate's noise."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.blocks.sequence_groups import Sequences
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


# How the copy is changed: the share of batches with dropped words, and whether the fixture has gradients.
VIEWS = {"word_drop": (1.0, True), "item_drop": (0.0, True), "item_drop_intended": (0.0, False)}


@pytest.mark.parametrize("noisy", [False, True], ids=["without noise", "with the recorded noise"])
@pytest.mark.parametrize("view", VIEWS)
def test_parity_unisrec_pre_training(view: str, noisy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`item_drop` has the copies of the authors' code, which overwrites items. Ours are those that it intended."""
    fixture = load("UniSRec_pretrain")
    fixture.inputs["words_feat"] = fixture.inputs["text_feat_worddrop"]
    word_drop_share, has_gradients = VIEWS[view]
    prefix = f"{view}_noise" if noisy else view
    if view == "item_drop":
        monkeypatch.setattr("model.unisrec.without_items", partial(as_the_authors_drop, fixture))

    def ours(official: Weights) -> Weights:
        own = {f"recommender.adaptor.{key}": x for key, x in adaptor(official).items() if noisy or key != "noise"}
        return {**names.tower(official), **own}

    check_parity(
        fixture,
        pre_training_model(fixture, noisy=noisy, word_drop_share=word_drop_share),
        ours,
        states=f"{prefix}_user_states",
        scores=None,
        loss=f"{prefix}_loss_clean",
        gradients=f"{prefix}_grad_clean" if has_gradients else None,
        without_effect=[] if noisy else ["moe_adaptor.w_noise"],
        training=True,
        temperature=fixture.options["temperature"],
        parts=[f"{prefix}_loss_seq_item_clean", f"{prefix}_loss_seq_seq_clean"],
    )


def pre_training_model(fixture: Fixture, *, noisy: bool, word_drop_share: float) -> UniSRec:
    """Our model with the fixture's sizes, the positions that it has changed, and its noise of each part."""
    options = fixture.options
    knobs = {
        "objective": "contrastive",
        "use_ids": False,
        "num_experts": options["n_exps"],
        "temperature": options["temperature"],
        "sequence_weight": options["lambda"],
        "adaptor_dropout": 0.0,
        "gate_noise": noisy,
        "word_drop_share": word_drop_share,
        "word_drop_modality": "words",
    }
    model = build_model(fixture.config("unisrec", **knobs), fixture.info).double()
    assert isinstance(model, UniSRec)
    model.draw_dropped = lambda *_: torch.from_numpy(~fixture.inputs["keep_mask"])
    of_target, *of_views = (torch.from_numpy(fixture.inputs[f"gate_noise_{x}"]) for x in ("target", "view1", "view2"))
    views = iter([of_views[0], *of_views])  # for the states that are compared, and in the loss
    model.adaptor.draw = lambda like: of_target if like.shape == of_target.shape else next(views)
    return model


def as_the_authors_drop(
    fixture: Fixture, group: Sequences, streams: list[Tensor], _: Tensor
) -> tuple[Any, list[Tensor]]:
    """The copies in which the fixture's code has overwritten items."""
    before, after = (torch.from_numpy(fixture.inputs[name]) for name in ("item_seq", "item_seq_dropped"))
    place = (before[:, None, :] == after[:, :, None]).to(torch.uint8).argmax(dim=2)[:, :, None]
    lengths = torch.from_numpy(fixture.inputs["item_seq_dropped_len"])
    return dataclasses.replace(group, lengths=lengths), [x.gather(1, place.expand_as(x)) for x in streams]
