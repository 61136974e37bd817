"""The benchmark of all systems takes real steps, and counts the items that go through maps of raw features."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.systems import REFERENCE, compare, config_of, inputs_of, main, names_of, write_catalogue
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from distributed.inputs import Inputs
from tests.systems import TRAINED

ITEMS = 3000
SMALL = ("model.dim=16", "model.num_heads=2", "training.batch_size=32", "model.max_length=10")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs_of(write_catalogue(str(tmp_path_factory.mktemp("systems")), 60, ITEMS), None)


@pytest.mark.long
def test_sampled_steps_map_the_features_of_their_own_items_and_not_of_the_catalogue(inputs: Inputs) -> None:
    configs = {name: config_of(name, None, SMALL, draws=40) for name in names_of("all")}
    found = compare(configs, inputs, steps=2, warmup=1, rounds=1)
    assert list(found) == [REFERENCE, *(name for name in TRAINED if name != REFERENCE)]
    for name, row in found.items():
        assert row["seconds per epoch"] > row["of these before it"] >= 0
        assert row["items of a step"] < ITEMS / 4
        expected = row["items of a step"] if SYSTEMS[name].reads_features else None
        assert row["items mapped in a step"] == expected, name
    assert found[REFERENCE][f"over {REFERENCE}"] == 1


def test_the_catalogue_is_mapped_where_every_item_is_a_candidate(inputs: Inputs) -> None:
    configs = {name: config_of(name, None, SMALL, draws=0) for name in (REFERENCE, "unisrec")}
    found = compare(configs, inputs, steps=1, warmup=1, rounds=1)
    assert found["unisrec"]["items mapped in a step"] == ITEMS


def test_the_command_prints_json_last_and_refuses_unknown_systems(tmp_path: Path) -> None:
    dataset = write_catalogue(str(tmp_path), 40, 300)
    sizes = ["--rounds", "1", "--steps", "1", "--warmup", "0", "--draws", "20"]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    result = CliRunner().invoke(main, ["--dataset", dataset, "--systems", "gru4rec", *sizes, *settings])
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.splitlines()[-1])
    assert list(last["systems"]) == [REFERENCE, "gru4rec"]
    with pytest.raises(InputError, match=r"--systems popularity: is not a trained system.*sasrec"):
        names_of("sasrec,popularity")
