"""Systems that are trained on the next item by cross entropy, against RecBole's and UniSRec's code."""

from __future__ import annotations

from torch import Tensor

from model.zoo import build_model
from tests.model.parity import names
from tests.model.parity.comparison import check_parity
from tests.model.parity.fixture import Fixture, load
from tests.model.parity.names import Weights


def fields_of(fixture: Fixture) -> list[str]:
    return list(fixture.options["selected_features"])


def test_parity_sasrec() -> None:
    fixture = load("SASRec")

    def ours(official: Weights) -> Weights:
        return names.item_table(official) | names.tower(official)

    check_parity(fixture, build_model(fixture.config("sasrec"), fixture.info), ours)


def test_parity_sasrecf() -> None:
    fixture = load("SASRecF")
    fields = fields_of(fixture)

    def ours(official: Weights) -> Weights:
        return {
            **names.item_table(official),
            **names.tower(official),
            **names.feature_maps(official, "recommender.projections", fields, fixture.options["pooling_mode"]),
            "recommender.join.weight": names.in_our_order(official["concat_layer.weight"], fields, first=1),
            "recommender.join.bias": official["concat_layer.bias"],
        }

    check_parity(fixture, build_model(fixture.config("sasrecf"), fixture.info), ours)


def gru_knobs(fixture: Fixture) -> dict[str, int | float]:
    options = fixture.options
    return {"hidden_size": options["hidden_size"], "num_layers": options["num_layers"], "dropout": 0.0}


def test_parity_gru4rec() -> None:
    fixture = load("GRU4Rec")

    def ours(official: Weights) -> Weights:
        return {
            **names.item_table(official),
            **names.same(official, "recommender.gru", "gru_layers"),
            **names.same(official, "recommender.output", "dense"),
        }

    check_parity(fixture, build_model(fixture.config("gru4rec", **gru_knobs(fixture)), fixture.info), ours)


def test_parity_gru4recf() -> None:
    fixture = load("GRU4RecF")
    fields = fields_of(fixture)

    def ours(official: Weights) -> Weights:
        found = {
            **names.item_table(official),
            **names.feature_maps(official, "recommender.features.maps", fields, fixture.options["pooling_mode"]),
            **names.same(official, "recommender.id_gru", "item_gru_layers"),
            **names.same(official, "recommender.feature_gru", "feature_gru_layers"),
            **names.same(official, "recommender.output", "dense_layer"),
        }
        first = "recommender.feature_gru.weight_ih_l0"
        return found | {first: names.in_our_order(found[first], fields)}

    check_parity(fixture, build_model(fixture.config("gru4recf", **gru_knobs(fixture)), fixture.info), ours)


def fdsa_towers(official: Weights) -> dict[str, Tensor]:
    return {
        **names.item_table(official),
        "recommender.positions.weight": official["position_embedding.weight"],
        **names.same(official, "recommender.norms.0", "LayerNorm"),
        **names.transformer_layers(official, "recommender.id_layers", "item_trm_encoder"),
        **names.transformer_layers(official, "recommender.feature_layers", "feature_trm_encoder"),
        **names.same(official, "recommender.join", "concat_layer"),
    }


def test_parity_fdsa() -> None:
    fixture = load("FDSA")
    fields = fields_of(fixture)

    def ours(official: Weights) -> Weights:
        return {
            **fdsa_towers(official),
            **names.feature_maps(official, "recommender.features.maps", fields, fixture.options["pooling_mode"]),
            **names.same(official, "recommender.attention.hidden", "feature_att_layer.projection.0"),
            "recommender.attention.score.weight": official["feature_att_layer.projection.2.weight"],
        }

    model = build_model(fixture.config("fdsa", share_norms=True), fixture.info)
    check_parity(fixture, model, ours, without_effect=["feature_att_layer.projection.2.bias"])


def test_parity_fdsa_unisrec() -> None:
    fixture = load("FDSA_UniSRec")

    def ours(official: Weights) -> Weights:
        return fdsa_towers(official) | names.same(official, "recommender.features.maps.0", "adapter.mlp_layers.1")

    knobs = {"features": ("text",), "feature_map": "relu", "share_norms": True}
    model = build_model(fixture.config("fdsa", **knobs), fixture.info)
    check_parity(fixture, model, ours, frozen=["plm_embedding.weight"])
