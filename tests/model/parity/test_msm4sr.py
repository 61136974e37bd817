"""MSM4SR against its authors' code: fine-tuning and pre-training, with every gradient, that of the pooling too.

Items of the fixtures have several vectors of each feature, which the authors pool to one. Our datasets have one. So the
test pools them, with the authors' weights, and our model passes the gradient on to the pooling.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.msm4sr import MSM4SR
from model.zoo import build_model
from tests.model.parity import names
from tests.model.parity.comparison import check_parity
from tests.model.parity.fixture import Fixture, load
from tests.model.parity.names import Weights

# Our features, the authors' adaptors and poolings of them.
FEATURES = {"text": ("moe_1", "desc_attn"), "image": ("moe_2", "img_attn")}
NO_EFFECT = ["moe_1.w_noise", "moe_2.w_noise"]  # the authors' code never uses them


def fixture_of(name: str, pooled: str) -> Fixture:
    """The fixture, with pooled vectors as the items' features; `pooled` is the end of their names."""
    fixture = load(name)
    features = {f"{feature}_feat": fixture.inputs[f"pooled_{feature}{pooled}"] for feature in FEATURES}
    # The authors' pooling gets no gradient. The fixture has the gradients of a pooling that does, with the same loss.
    outputs = {f"flow_{key}": x for key, x in fixture.outputs.items() if key == "loss_without_pad"}
    return replace(fixture, inputs={**fixture.inputs, **features}, outputs={**fixture.outputs, **outputs})


def model_of(fixture: Fixture) -> MSM4SR:
    """Our model with the fixture's sizes, which drops items and exchanges features where the fixture does."""
    options = fixture.options
    knobs = {
        "objective": "contrastive" if options["train_stage"] == "pretrain" else "next_item",
        "num_experts": options["n_exps"],
        "adaptor_dropout": 0.0,
        "mask_missing": False,
        "temperature": options["temperature"],
        "cross_modal_weight": options["lambda"],
        "project_states": options["proj"],
    }
    model = build_model(fixture.config("msm4sr", **knobs), fixture.info).double()
    assert isinstance(model, MSM4SR)
    if model.contrasts:
        dropped, exchanged = (torch.from_numpy(x) for x in (~fixture.inputs["drop_keep"], fixture.inputs["mixup_mask"]))
        model.draw_dropped = lambda *_: dropped
        model.draw_exchanged = lambda *_: exchanged
    return model


def ours(official: Weights) -> Weights:
    """Our parameters; those of the pooling are the test's."""
    found = {**names.tower(official)}
    if "item_embedding.weight" in official:
        found |= names.item_table(official)
    for number, (adaptor, _) in enumerate(FEATURES.values()):
        experts = range(sum(name.startswith(adaptor) and name.endswith("lin.weight") for name in official))
        own = f"recommender.adaptors.{number}"

        def each(part: str, adaptor: str = adaptor, experts: range = experts) -> list[Tensor]:
            return [official[f"{adaptor}.experts.{expert}.{part}"] for expert in experts]

        found[f"{own}.gate"] = official[f"{adaptor}.w_gate"]
        found[f"{own}.experts.weight"] = torch.cat(each("lin.weight"))
        found[f"{own}.experts.bias"] = torch.cat(each("lin.bias"))
        found[f"{own}.scales"] = torch.stack(each("norm.weight"))
        found[f"{own}.shifts"] = torch.stack(each("norm.bias"))
    for number, name in enumerate(("linear_desc", "linear_img")):
        if f"{name}.weight" in official:
            found |= names.same(official, f"recommender.projections.{number}", name)
    return found


def pooled(fixture: Fixture, official: Weights, masked: bool) -> Weights:
    """The features of all items but padding: each item's vectors, weighted by the authors' attention."""
    found = {}
    for feature, (_, pooling) in FEATURES.items():
        vectors = torch.from_numpy(fixture.inputs[f"{feature}_vecs"])
        own = {name.removeprefix(f"{pooling}.feature_att_layer.projection."): x for name, x in official.items()}
        hidden = F.relu(F.linear(vectors, own["0.weight"], own["0.bias"]))
        energy = F.linear(hidden, own["2.weight"], own["2.bias"]).squeeze(-1)
        if masked:
            counts = torch.from_numpy(fixture.inputs[f"{feature}_count"]).clamp(min=1)
            energy = energy.masked_fill(torch.arange(energy.shape[1]) >= counts[:, None], -torch.inf)
        found[feature] = (energy.softmax(dim=1)[:, :, None] * vectors).sum(dim=1)[1:]
    return found


@pytest.mark.parametrize("masked", [False, True], ids=["pooled with padding", "pooled without padding"])
def test_parity_msm4sr_fine_tuning(masked: bool) -> None:
    fixture = fixture_of("MSM4SR_finetune", "_masked" if masked else "")
    prefix = "clean_" if masked else ""
    check_parity(
        fixture,
        model_of(fixture),
        ours,
        states=[f"{prefix}user_states_{feature}" for feature in FEATURES],
        scores=f"{prefix}scores_without_pad",
        loss="loss_clean" if masked else "flow_loss_without_pad",
        gradients="grad_clean" if masked else "flow_grad_without_pad",
        without_effect=NO_EFFECT,
        temperature=fixture.options["temperature"],
        features=lambda official: pooled(fixture, official, masked),
    )


@pytest.mark.parametrize("name", ["MSM4SR_pretrain", "MSM4SR_pretrain_proj"])
def test_parity_msm4sr_pre_training(name: str) -> None:
    fixture = fixture_of(name, "_masked")
    states = ["dd", "ii"] if fixture.options["proj"] else list(FEATURES)
    check_parity(
        fixture,
        model_of(fixture),
        ours,
        states=[f"intended_clean_user_states_{state}" for state in states],
        scores=None,
        loss="intended_loss_clean",
        gradients="intended_grad_clean",
        without_effect=NO_EFFECT,
        training=True,
        temperature=fixture.options["temperature"],
        features=lambda official: pooled(fixture, official, masked=True),
        parts=[f"intended_clean_loss_nip_{feature}" for feature in FEATURES],
    )
