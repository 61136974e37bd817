"""MMMLP against its authors' code: states, scores, loss and every gradient, for chained passes and for a single one.

In these outputs of the fixture the padding's ID row is zero, as our padding is.
"""

from __future__ import annotations

import pytest
import torch

from model.zoo import build_model
from tests.model.parity import names
from tests.model.parity.comparison import check_parity
from tests.model.parity.fixture import load
from tests.model.parity.names import Weights

FEATURES = ("text", "image")  # in the order in which the authors concatenate the streams
STREAMS = ("", "t_", "v_")
MIXER = {
    "token_norm": "tokenMixer.norm", "token_expand": "tokenMixer.fn.0", "token_contract": "tokenMixer.fn.3",
    "channel_norm": "channelMixer.norm", "channel_expand": "channelMixer.fn.0",
    "channel_contract": "channelMixer.fn.3",
}  # fmt: skip


def ours(official: Weights) -> Weights:
    found = {
        **names.item_table(official),
        **names.same(official, "recommender.join", "concat_layer_f"),
        **names.same(official, "recommender.join_norm", "LayerNormFeature"),
    }
    for number, stream in enumerate(STREAMS):
        found |= names.same(official, f"recommender.norms.{number}", f"{stream}LayerNorm")
        for part, theirs in MIXER.items():
            found |= names.same(official, f"recommender.mixers.{number}.{part}", stream + theirs)
    return found | {f"recommender.projections.{n}.weight": official[f"proj_{x}"] for n, x in enumerate(FEATURES)}


@pytest.mark.parametrize(("prefix", "knobs"), [("padzero_chained_", {}), ("padzero_", {"feature_passes": 1})])
def test_parity_mmmlp(prefix: str, knobs: dict[str, int]) -> None:
    fixture = load("MMMLP")
    fixture.weights |= {f"proj_{name}": torch.from_numpy(fixture.inputs[f"proj_{name}"]) for name in FEATURES}
    check_parity(
        fixture,
        build_model(fixture.config("mmmlp", features=FEATURES, **knobs), fixture.info),
        ours,
        states=f"{prefix}user_states",
        scores=f"{prefix}scores_without_pad",
        loss=f"{prefix}loss_without_pad",
        gradients=f"{prefix}grad_without_pad",
    )
