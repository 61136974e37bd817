"""MISSRec against its authors' code: states, scores, loss and every gradient, with and without item IDs.

The interests are inputs of the fixture, because the authors find them with random mini-batches. An item without an
image has the bias of the image's map, as in the authors' code.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.blocks import density_peaks
from model.missrec import MISSRec
from model.zoo import build_model
from tests.model.parity import names
from tests.model.parity.comparison import check_parity
from tests.model.parity.fixture import Fixture, load
from tests.model.parity.names import Weights

FEATURES = {"text": "text_adaptor", "image": "img_adaptor"}


def model_of(fixture: Fixture) -> MISSRec:
    options = fixture.options
    knobs = {
        "features": tuple(FEATURES),
        "use_ids": options["id_type"] != "none" and options["train_stage"] == "transductive_ft",
        "missing_features": "bias",
        "diversity_weight": options["gamma"],
        "temperature": options["temperature"],
    }
    model = build_model(fixture.config("missrec", **knobs), fixture.info).double()
    assert isinstance(model, MISSRec)
    model.interests = torch.from_numpy(fixture.inputs["centroids"])
    of_features = [torch.from_numpy(fixture.inputs[f"{name}_interest"][1:]) for name in FEATURES]
    model.interest_of = torch.stack(of_features, dim=1).to(torch.int32)
    return model


def attention(official: Weights, theirs: str, ours: str, prefix: str = "") -> Weights:
    """Return an attention's parameters; the authors' queries, keys and values are one map."""
    found = names.same(official, f"{ours}.{prefix}output", f"{theirs}.out_proj")
    for part in ("weight", "bias"):
        joined: Tensor = official[f"{theirs}.in_proj_{part}"]
        width = len(joined) // 3
        found[f"{ours}.{prefix}query.{part}"] = joined[:width]
        found[f"{ours}.{prefix}key_value.{part}"] = joined[width:]
    return found


def ours(official: Weights) -> Weights:
    found = {
        "recommender.fusion.weight": official["fusion_factor"],
        "recommender.positions.weight": official["position_embedding.weight"],
        **names.same(official, "recommender.input_norm", "LayerNorm"),
        **names.same(official, "recommender.encoder.norm", "trm_model.encoder.norm"),
        **names.same(official, "recommender.decoder.norm", "trm_model.decoder.norm"),
    }
    if "item_embedding.weight" in official:
        found |= names.item_table(official)
    for number, theirs in enumerate(FEATURES.values()):
        found |= names.same(official, f"recommender.adaptors.{number}", theirs)
    number = 0
    while f"trm_model.encoder.layers.{number}.linear1.weight" in official:
        for tower, norms in (("encoder", ("attention_norm", "ffn_norm")), ("decoder", NORMS_OF_DECODER)):
            layer, theirs = f"recommender.{tower}.layers.{number}", f"trm_model.{tower}.layers.{number}"
            for place, norm in enumerate(norms, 1):
                found |= names.same(official, f"{layer}.{norm}", f"{theirs}.norm{place}")
            found |= names.same(official, f"{layer}.expand", f"{theirs}.linear1")
            found |= names.same(official, f"{layer}.contract", f"{theirs}.linear2")
            found |= attention(official, f"{theirs}.self_attn", layer, "item_" if tower == "decoder" else "")
        found |= attention(official, f"{theirs}.multihead_attn", layer)
        number += 1
    return found


NORMS_OF_DECODER = ("item_norm", "attention_norm", "ffn_norm")


@pytest.mark.parametrize("name", ["MISSRec_id", "MISSRec_noid"])
def test_parity_missrec(name: str) -> None:
    fixture = load(name)
    check_parity(
        fixture,
        model_of(fixture),
        ours,
        loss="loss_clean",
        gradients="grad_clean",
        temperature=fixture.options["temperature"],
        scores_are_divided=True,
    )


@pytest.mark.parametrize("max_distances", [2**24, 100], ids=["at once", "in blocks"])
def test_parity_of_density_peaks(monkeypatch: pytest.MonkeyPatch, max_distances: int) -> None:
    monkeypatch.setattr(density_peaks, "_MAX_DISTANCES", max_distances)
    fixture = load("MISSRec_id")
    tokens = torch.from_numpy(fixture.inputs["dpc_tokens"])
    count, neighbors = (int(fixture.inputs[name]) for name in ("dpc_num_clusters", "dpc_k_local"))
    centers, clusters = density_peaks.density_peaks(tokens, count, neighbors)
    expected = torch.from_numpy(fixture.outputs["dpc_cluster"])
    # The authors number clusters by their peaks too, in the order in which topk returns them.
    assert torch.equal(clusters, expected)
    # The authors divide the sum of a cluster by its size plus 0.0001.
    sizes = torch.bincount(expected)[:, None].double()
    theirs = torch.from_numpy(fixture.outputs["dpc_centroids"]) * (sizes + 1e-4) / sizes
    torch.testing.assert_close(centers, theirs, rtol=1e-9, atol=1e-11)
