"""The comparison names what differs, whichever part of a fixture it is."""

from __future__ import annotations

import pytest

from model.zoo import build_model
from tests.model.parity import names
from tests.model.parity.comparison import check_parity
from tests.model.parity.fixture import Fixture, load
from tests.model.parity.names import Weights


def compare(fixture: Fixture, left_out: str = "") -> None:
    def ours(official: Weights) -> Weights:
        found = names.item_table(official) | names.tower(official)
        return {name: x for name, x in found.items() if name != left_out}

    check_parity(fixture, build_model(fixture.config("sasrec"), fixture.info), ours)


@pytest.mark.parametrize(
    "key", ["user_states", "scores_without_pad", "loss_without_pad", "grad_without_pad/LayerNorm.weight"]
)
def test_parity_fails_for_a_difference_of_one_in_a_million(key: str) -> None:
    fixture = load("SASRec")
    compare(fixture)
    fixture.outputs[key] = fixture.outputs[key] * (1 + 1e-6)
    name = key.removeprefix("grad_without_pad/")
    with pytest.raises(AssertionError, match=rf"SASRec: (gradient of )?{name}"):
        compare(fixture)


def test_parity_compares_the_norm_of_every_gradient() -> None:
    fixture = load("SASRec")
    norms = fixture.meta["grad_norms"]["loss_without_pad"]
    for name in norms:
        norms[name], before = norms[name] * 1.001 + 1e-9, norms[name]
        with pytest.raises(AssertionError, match=f"norm of the gradient of {name}"):
            compare(fixture)
        norms[name] = before


def test_parity_names_parameters_that_were_not_mapped() -> None:
    with pytest.raises(AssertionError, match=r"not set: \['system.recommender.encoder.input_norm.bias'\]"):
        compare(load("SASRec"), left_out="recommender.encoder.input_norm.bias")
