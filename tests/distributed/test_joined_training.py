"""Training on several datasets: as on one dataset with their users and items, in batches mixed or apart."""

import json

import pytest
import torch

from configs.loading import load_config
from contracts.errors import InputError
from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.inputs import open_inputs
from distributed.training.start import start
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import SAMPLED, config_of, records, weights
from tests.distributed.spawn import run_ranks
from tests.distributed.start_runs import TABLE, own_values, system_for
from tests.distributed.test_resume import STEPS, train_until_done

TEXT = "model.unisrec.modality=text"
APART = "training.domains=apart"


def both(folder, run, model, *more, names="AB"):
    places = [
        f"{what}=[{','.join(f'{folder}/{start}{name}' for name in names)}]"
        for what, start in (("dataset", ""), ("graph", "G"))
    ]
    return config_of(folder, run, model, *places, "training.max_epochs=1", *more)


def one(folder, run, model, *more, name="one"):
    places = (f"dataset={folder}/{name}", f"graph={folder}/G{name}")
    return config_of(folder, run, model, *places, "training.max_epochs=1", *more)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("sasrec", ("training.negatives.draws=15", "evaluation.cooccurrence_weight=0.5")),
        ("mdsrec", ("training.negatives.hard_share=0.3", *SAMPLED)),
        pytest.param("mdsrec", (), marks=pytest.mark.slow),  # exact centres
        pytest.param("unisrec", (TEXT,), marks=pytest.mark.slow),
    ],
)
def test_an_epoch_on_two_datasets_is_one_on_both_written_as_one(two_domains, tmp_path, model, more):
    with world_of_one() as world:
        expected = train(one(two_domains, tmp_path / "one", model, *more), world)
        found = train(both(two_domains, tmp_path / "both", model, *more), world)
        again = evaluate(run_config(str(tmp_path / "both")), world, "best")
    assert records(tmp_path / "both") == records(tmp_path / "one")
    for split in ("valid", "test"):
        assert found[split] == expected[split] == again[split]
    theirs, ours = (
        weights(tmp_path / name, make(two_domains, tmp_path / name, model, *more))
        for name, make in (("one", one), ("both", both))
    )
    for name, value in theirs.items():
        assert torch.equal(value, ours[name]), name


# What is trained are the rows of the item table, by SGD, and a step's candidates are its targets. So a step of one
# dataset neither reads nor changes a row of the other. A new row depends on its number: each dataset is first once.
ROWS_ALONE = (
    "training.optimizer=sgd", "table.optimizer=sgd", "training.learning_rate=0.5", "training.freeze=[recommender.*]",
    "training.negatives.draws=0", "training.negatives.in_batch=true", "training.max_epochs=3", "training.patience=9",
    "model.dropout=0",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "unit"),
    [
        ("AB", "windows"),
        ("BA", "windows"),
        pytest.param("AB", "prefixes", marks=pytest.mark.slow),
        pytest.param("BA", "prefixes", marks=pytest.mark.slow),
    ],
)
def test_rows_of_datasets_that_share_nothing_are_those_of_separate_runs(two_domains, tmp_path, names, unit):
    more = (*ROWS_ALONE, f"training.unit={unit}")
    joined = both(two_domains, tmp_path / "joined", "sasrec", APART, *more, names=names)
    alone = one(two_domains, tmp_path / "alone", "sasrec", *more, name=names[0])
    with world_of_one() as world:
        begun = {}
        for config in (joined, alone):
            inputs, sharded = system_for(config, world)
            start(config, inputs, sharded, world)
            begun[config.run] = torch.from_numpy(own_values(sharded)[TABLE][1])
            train(config, world)
    together, separate = (weights(config.run, config)[TABLE] for config in (joined, alone))
    count = len(separate)
    assert len(together) == 85
    assert torch.equal(begun[joined.run][:count], begun[alone.run])
    assert (separate != begun[alone.run]).any(dim=1).sum() > count // 2  # training has changed them
    assert (together[count:] != begun[joined.run][count:]).any()
    assert torch.equal(together[:count], separate)


@pytest.mark.long
def test_mixed_batches_do_not_give_the_rows_of_separate_runs(two_domains, tmp_path):
    """The test above can fail."""
    joined = both(two_domains, tmp_path / "joined", "sasrec", *ROWS_ALONE)
    alone = one(two_domains, tmp_path / "alone", "sasrec", *ROWS_ALONE, name="A")
    with world_of_one() as world:
        for config in (joined, alone):
            train(config, world)
    together, separate = (weights(config.run, config)[TABLE] for config in (joined, alone))
    assert not torch.allclose(together[: len(separate)], separate)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("sasrec", (APART, *SAMPLED[:1])),
        pytest.param("mdsrec", (APART, *SAMPLED), marks=pytest.mark.slow),
        pytest.param("unisrec", (TEXT,), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_broke_off_ends_as_one_that_did_not(two_domains, tmp_path, model, more):
    more = (*more, "training.max_epochs=2")
    straight = both(two_domains, tmp_path / "straight", model, *more)
    with world_of_one() as world:
        whole = train(straight, world)
    config = both(two_domains, tmp_path / "broken", model, *STEPS, *more)
    found = train_until_done(config, (4, 9))
    assert records(tmp_path / "broken") == records(tmp_path / "straight")
    assert found["details"] == whole["details"]
    for name, value in weights(straight.run, straight).items():
        assert torch.equal(value, weights(config.run, config)[name]), name


def on_ranks(world, folder, tmp_path):
    for domains in ("mixed", "apart"):
        run = tmp_path / f"{domains}-{world.size}"
        train(both(folder, run, "sasrec", f"training.domains={domains}", "model.dropout=0", *SAMPLED[:1]), world)


@pytest.mark.slow
@pytest.mark.ranks
def test_one_two_and_three_ranks_agree(two_domains, tmp_path):
    for world in (1, 2, 3):
        run_ranks(world, on_ranks, two_domains, tmp_path)
    for domains in ("mixed", "apart"):
        (first,), *others = (records(tmp_path / f"{domains}-{world}") for world in (1, 2, 3))
        for (other,) in others:
            assert (other["step"], other["epoch"]) == (first["step"], first["epoch"])
            assert other["loss"] == pytest.approx(first["loss"], rel=1e-6)
            assert other["valid"] == pytest.approx(first["valid"], rel=1e-3)
    assert json.loads((tmp_path / "mixed-1/metrics.json").read_text())["fingerprints"].keys() == {"dataset"}


def test_each_graph_may_have_its_own_number_of_centers(two_domains):
    places = [f"dataset=[{two_domains}/A, {two_domains}/B]", f"graph=[{two_domains}/GA, {two_domains}/GB]"]
    config = load_config(None, ["model.name=mdsrec", *places])
    assert open_inputs(config, {"num_centers": 999}).graph is not None
    with pytest.raises(InputError, match="num_neighbors"):
        open_inputs(config, {"num_neighbors": 999})
    alone = {"dataset": f"{two_domains}/A", "graph": f"{two_domains}/GA"}
    with pytest.raises(InputError, match="num_centers"):  # one graph must have what the config says
        open_inputs(config.model_copy(update=alone), {"num_centers": 999})
