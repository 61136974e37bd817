"""MMMLP equals its authors' code: states, scores, loss and every gradient, for chained passes and for a single one.

In the recordings the padding's ID row is zero, as our padding is.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from configs.schema import ModelConfig
from model.mmmlp import MMMLP, MixerLayer
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
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

FEATURES = ("text", "image")  # in the order in which the authors concatenate the streams
STREAMS = ("", "t_", "v_")


def system_of(recorded: Recording, knobs: dict[str, int]) -> tuple[RecommenderSystem, dict[str, Part]]:
    """Our model with the recorded weights, and which of our parameters each of theirs is."""
    theirs = recorded.meta["config"]
    config = ModelConfig(
        name="mmmlp",
        dim=theirs["hidden_size"],
        num_layers=theirs["n_layers"],
        num_heads=1,
        activation=theirs["hidden_act"],
        max_length=theirs["MAX_ITEM_LIST_LENGTH"],
        dropout=theirs["hidden_dropout_prob"],
        mmmlp={"features": FEATURES, **knobs},
    )
    widths = {name: recorded.inputs[f"{name}_feat"].shape[1] for name in FEATURES}
    rows = recorded.weights["item_embedding.weight"][1:]
    model = build_model(config, CatalogueInfo(num_items=len(rows), feature_dims=widths)).double()
    assert isinstance(model, MMMLP)
    table = case.Rows(np.zeros_like(rows))
    parts: dict[str, Part] = {"item_embedding.weight": (table.weight, WHOLE)}
    parts |= module_parts("concat_layer_f", model.join) | module_parts("LayerNormFeature", model.join_norm)
    for stream, norm, mixer in zip(STREAMS, model.norms, model.mixers, strict=True):
        parts |= module_parts(f"{stream}LayerNorm", norm) | mixer_parts(stream, cast(MixerLayer, mixer))
    for name, projection in zip(FEATURES, model.projections, strict=True):
        parts[f"proj_{name}"] = (projection.get_parameter("weight"), WHOLE)
    projections = {f"proj_{name}": recorded.inputs[f"proj_{name}"] for name in FEATURES}
    copy_weights(parts, {**recorded.weights, **projections, "item_embedding.weight": rows})
    system = RecommenderSystem(table, model)
    assert {id(p) for p in system.parameters()} == {id(p) for p, _ in parts.values()}
    return system, parts


def mixer_parts(stream: str, mixer: MixerLayer) -> dict[str, Part]:
    token, channel = f"{stream}tokenMixer", f"{stream}channelMixer"
    return {
        **module_parts(f"{token}.norm", mixer.token_norm),
        **module_parts(f"{token}.fn.0", mixer.token_expand),
        **module_parts(f"{token}.fn.3", mixer.token_contract),
        **module_parts(f"{channel}.norm", mixer.channel_norm),
        **module_parts(f"{channel}.fn.0", mixer.channel_expand),
        **module_parts(f"{channel}.fn.3", mixer.channel_contract),
    }


@pytest.mark.parametrize(("prefix", "knobs"), [("padzero_chained_", {}), ("padzero_", {"feature_passes": 1})])
def test_parity(prefix: str, knobs: dict[str, int]) -> None:
    recorded = recording("MMMLP")
    system, parts = system_of(recorded, knobs)
    plan, batch = recorded.plan(**{name: recorded.inputs[f"{name}_feat"] for name in FEATURES}), recorded.batch()
    items = system.item_rows(plan)
    (users,), (vectors,) = system.recommender.scored_users(items, batch), system.recommender.scored_items(items)
    check_close(users, recorded.outputs[f"{prefix}user_states"])
    check_close(users @ vectors.T, recorded.outputs[f"{prefix}scores_without_pad"])
    loss = case.loss(system, plan, batch)
    check_close(loss, recorded.outputs[f"{prefix}loss_without_pad"])
    loss.backward()
    check_gradients(parts, recorded, f"{prefix}loss_without_pad")
