"""Mutated configs: an error or a config, never another exception."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.loading import dump_config, load_config
from contracts.errors import InputError
from tests.mutation import mutated

TEXT = (Path(__file__).resolve().parents[2] / "configs" / "demo.yaml").read_bytes()
WORDS = st.text(st.characters(codec="utf-8"), max_size=9)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner))
KNOBS = ("seed", "model", "model.dim", "model.mdsrec.rho", "evaluation.ks", "training.negatives", "cluster.address")


def refused_or_the_same_again(path: str | None, *overrides: str) -> None:
    """What loads can be saved and loaded."""
    try:
        config = load_config(path, overrides)
    except InputError:
        return
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved.yaml"
        saved.write_text(dump_config(config))
        assert load_config(str(saved)) == config


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(mutated({"config.yaml": TEXT}))
def test_a_mutated_config_is_refused_or_loads(contents):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(contents["config.yaml"])
        refused_or_the_same_again(str(path))


@pytest.mark.long
@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(st.sampled_from(KNOBS), TREES)
def test_any_value_of_a_knob_is_refused_or_loads(knob, value):
    refused_or_the_same_again(None, f"{knob}={json.dumps(value, ensure_ascii=False)}")
