"""A run that starts from another run or freezes weights: what is loaded, fresh, frozen, printed and recorded."""

import json
import re
import shutil
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor

from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from distributed.checkpoints.index import find_checkpoint, steps_in
from distributed.checkpoints.run_folder import open_run_folder
from distributed.checkpoints.start import START, open_start
from distributed.inference.scoring import SPLITS, Scorer
from distributed.inference.summaries import summarise
from distributed.inputs import build_system, open_inputs
from distributed.training.start import plan_start, start
from distributed.training.trainer import check_trainable, train
from distributed.world import world_of_one
from tests.distributed.runs import config_of, records
from tests.distributed.spawn import run_ranks
from tests.distributed.start_runs import (
    POSITIONS,
    SHARDINGS,
    TABLE,
    fresh_weights,
    make_sources,
    make_unisrec,
    own_values,
    same_bytes,
    started,
    system_for,
    weights_at,
)
from tests.distributed.test_resume import STEPS, Broken, Immediately, breaking, train_until_done


@pytest.fixture(scope="module")
def sources(folders, tmp_path_factory):
    return make_sources(folders, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def unisrec(folders, tmp_path_factory):
    return make_unisrec(folders, tmp_path_factory.mktemp("unisrec"))


@pytest.mark.parametrize("theirs", SHARDINGS)
@pytest.mark.parametrize("own", SHARDINGS)
def test_what_matches_no_pattern_is_loaded_and_the_rest_is_fresh(folders, tmp_path, sources, theirs, own):
    config = started(
        folders, tmp_path / "new", sources / theirs, f"table.sharding={own}", "training.leave_out=[recommender.*norm*]"
    )
    with world_of_one() as world:
        inputs, sharded = system_for(config, world)
        plan = start(config, inputs, sharded, world)
        found = own_values(sharded)
    best, fresh = weights_at(sources / theirs), fresh_weights(config)
    assert len(found) == len(best) == 32
    for name, (_, value) in found.items():
        assert same_bytes(value, (fresh if "norm" in name else best)[name]), name
    assert plan.loaded == {name for name in best if "norm" not in name}
    # A weight that both had from the beginning would show nothing.
    assert not same_bytes(best[TABLE], fresh[TABLE])


def starting_on_ranks(world, folders, tmp_path, sources, expected):
    whole = np.load(expected)
    for own in SHARDINGS:
        for theirs in SHARDINGS:
            config = started(folders, tmp_path / "new", sources / theirs, f"table.sharding={own}")
            inputs, sharded = system_for(config, world)
            start(config, inputs, sharded, world)
            for name, (first, value) in own_values(sharded).items():
                of_all = whole[f"{theirs}/{name}"]
                assert same_bytes(value, of_all[first : first + len(value)]), (own, theirs, name)
                if name == TABLE:
                    assert len(value) == (35 if own == "row_wise" else 70)


def test_two_ranks_load_their_parts_of_what_one_rank_wrote(folders, tmp_path, sources):
    best = {f"{how}/{name}": value for how in SHARDINGS for name, value in weights_at(sources / how).items()}
    np.savez(tmp_path / "best.npz", **best)
    run_ranks(2, starting_on_ranks, folders, tmp_path, sources, tmp_path / "best.npz")


FROZEN = {
    "table": ("table.*",),
    "part of the recommender": ("recommender.encoder.positions.*", "recommender.encoder.layers.0.*"),
    "both": ("table.*", "*.bias"),
    "all but the table": ("recommender.*",),
}


def frozen_config(folders, run, source, sharding, what):
    patterns = f"training.freeze={json.dumps(FROZEN[what])}"
    # Weight decay and clipping change weights apart from the gradient's direction.
    return started(
        folders, run, source, patterns, f"table.sharding={sharding}", "training.weight_decay=0.1",
        "training.gradient_clip=0.5", "training.keep_checkpoints=9",
    )  # fmt: skip


def train_frozen(world, folders, root, sources, cases):
    for sharding, what in cases:
        train(frozen_config(folders, root / f"{sharding} {what}", sources / "data_parallel", sharding, what), world)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_frozen_weights_stay_bit_for_bit_and_the_others_move(folders, tmp_path, sources, ranks):
    cases = [(sharding, what) for sharding in SHARDINGS for what in FROZEN]
    if ranks == 1:
        with world_of_one() as world:
            train_frozen(world, folders, tmp_path, sources, cases)
    else:
        run_ranks(ranks, train_frozen, folders, tmp_path, sources, cases)
    begun = weights_at(sources / "data_parallel")
    for sharding, what in cases:
        found = weights_at(tmp_path / f"{sharding} {what}", "latest")
        for name, value in found.items():
            is_frozen = any(fnmatchcase(name, pattern) for pattern in FROZEN[what])
            assert same_bytes(value, begun[name]) == is_frozen, (sharding, what, name)
    if ranks == 2:  # one rank starts from what two wrote
        source = tmp_path / "row_wise all but the table"
        with world_of_one() as world:
            config = started(folders, tmp_path / "new", source, "table.sharding=data_parallel")
            inputs, sharded = system_for(config, world)
            start(config, inputs, sharded, world)
            found = own_values(sharded)
        for name, value in weights_at(source).items():
            assert same_bytes(value, found[name][1]), name


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        ("mdsrec", "recommender.encoders.0.*"),
        ("mdsrec", "table.*"),
        ("unisrec", "recommender.adaptor.*"),  # no item table
    ],
)
def test_random_weights_may_be_frozen_without_another_run(folders, tmp_path, model, pattern, capsys):
    more = ("model.unisrec.use_ids=false",) if model == "unisrec" else ()
    config = config_of(folders, tmp_path / "run", model, "training.max_epochs=1", f"training.freeze=[{pattern}]", *more)
    before = fresh_weights(config)
    capsys.readouterr()
    with world_of_one() as world:
        metrics = train(config, world)
    assert "started_from" not in metrics
    assert "frozen" in capsys.readouterr().out
    stem = pattern.removesuffix("*")
    for name, value in weights_at(tmp_path / "run", "latest").items():
        assert same_bytes(value, before[name]) == name.startswith(stem), name


TRAINED = [name for name, system in SYSTEMS.items() if system.is_trained]


@pytest.mark.long
@pytest.mark.parametrize("model", TRAINED)
def test_weights_of_any_system_may_be_frozen(folders, tmp_path, model):
    """Every second parameter is frozen, so that each module has both kinds."""
    plain = config_of(folders, tmp_path / "run", model)
    parameters = [name for name, _ in build_system(plain, open_inputs(plain)).named_parameters()]
    names = parameters[::2]
    patterns = f"training.freeze={json.dumps(names)}"
    config = config_of(folders, tmp_path / "run", model, "training.max_steps=3", "training.weight_decay=0.1", patterns)
    before = fresh_weights(config)
    with world_of_one() as world:
        train(config, world)
    moved = {name for name, value in weights_at(tmp_path / "run").items() if not same_bytes(value, before[name])}
    assert not moved & set(names)
    assert moved >= {name for name in parameters if name not in names and name.endswith("weight")}


def test_a_run_says_once_what_it_starts_from_and_records_it(folders, tmp_path, sources, capsys):
    source = sources / "data_parallel"
    config = started(
        folders, tmp_path / "new", source, "training.leave_out=[table.*]", 'training.freeze=["*positions*"]'
    )
    capsys.readouterr()
    with world_of_one() as world:
        metrics = train(
            config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 1})}), world
        )
    said = capsys.readouterr().out
    step = find_checkpoint(str(source), "best", {})[1].step
    assert f"starting from the best checkpoint of {source} (step {step}, fingerprint " in said
    rows = {line.split()[0]: line for line in (tmp_path / "new/start.txt").read_text().splitlines()}
    assert rows[TABLE].split(maxsplit=3)[3] == "fresh: left out  trained"
    assert rows[POSITIONS].split(maxsplit=3)[3].split() == ["loaded", "frozen"]
    assert set(weights_at(source)) <= set(rows)  # every weight is listed in the file, and printed by module
    begun, _, _ = said.partition("Where the rows of the item table are")
    assert [line.split()[0] for line in begun.splitlines()[4:]] == [
        TABLE, POSITIONS, "recommender.encoder.input_norm.*", "recommender.encoder.layers.*",
    ]  # fmt: skip
    (progress,) = tmp_path.glob("new/checkpoints/step-*/progress.json")
    fingerprint = open_start(str(source)).fingerprint
    assert json.loads(progress.read_text())["fingerprints"][START] == fingerprint
    assert metrics["started_from"] == {"run": str(source), "checkpoint": fingerprint}
    text = (tmp_path / "new/start.txt").read_text()
    with world_of_one() as world:  # continues
        again = train(config, world)
    assert "starting from" not in capsys.readouterr().out
    assert (tmp_path / "new/start.txt").read_text() == text
    assert again["started_from"] == metrics["started_from"]


def test_a_long_table_is_printed_in_part(folders):
    config = config_of(folders, "unused", "mdsrec", "model.num_layers=4", 'training.freeze=["*.bias"]')
    inputs = open_inputs(config)
    system = build_system(config, inputs)
    plan = plan_start(config, inputs.dataset.fingerprint, system, None)
    names = set(system.state_dict())
    listed = {line.split()[0] for line in plan.text(by_module=False).splitlines()}
    assert names < listed
    printed = plan.text(by_module=True).splitlines()
    assert len(printed) == 2 + 40 + 1
    assert re.fullmatch(r"and \d+ more rows", printed[-1])


def test_a_small_model_and_names_that_are_not_loaded_are_listed(folders, tmp_path, sources, capsys):
    config = started(folders, tmp_path / "new", sources / "row_wise", "model.num_layers=1", "training.max_epochs=0")
    capsys.readouterr()
    with world_of_one() as world:
        train(config, world)
    said = capsys.readouterr().out
    assert "not loaded, because this model has no such weight: recommender.encoder.layers.1.*\n" in said
    listed = (tmp_path / "new/start.txt").read_text().splitlines()[-1]
    assert "recommender.encoder.layers.1.query.weight" in listed
    assert listed.count(" recommender.") == 14


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_optimisers_begin_anew(folders, tmp_path, sources, sharding):
    config = started(folders, tmp_path / "new", sources / sharding, f"table.sharding={sharding}")
    with world_of_one() as world:
        inputs, sharded = system_for(config, world)
        before = sharded.optimizer.states()
        start(config, inputs, sharded, world)
        after = sharded.optimizer.states()
    assert before.keys() == after.keys()
    for name, state in after.items():
        for key, value in state.items():
            local = value.local_tensor() if isinstance(value, ShardedTensor) else torch.as_tensor(value)
            assert not local.any(), (name, key)


@pytest.mark.long
@pytest.mark.parametrize(
    ("sharding", "pattern"), [("data_parallel", "table.*"), ("row_wise", "table.*"), ("row_wise", "*layers.0.*")]
)
def test_a_broken_run_ends_as_an_undisturbed_one_and_needs_the_other_run_only_at_its_start(
    folders, tmp_path, monkeypatch, sources, sharding, pattern
):
    monkeypatch.setattr("distributed.checkpoints.saving.ThreadPoolExecutor", Immediately)
    source = tmp_path / "source"
    shutil.copytree(sources / "data_parallel", source)
    more = (f"table.sharding={sharding}", f'training.freeze=["{pattern}"]', "training.weight_decay=0.1", *STEPS)
    with world_of_one() as world:
        whole = train(started(folders, tmp_path / "straight", source, *more), world)
    config = started(folders, tmp_path / "broken", source, *more)
    for after, steps in ((2, []), (5, [3])):  # before the first checkpoint, the other run is read again
        with world_of_one() as world, pytest.raises(Broken):
            train(config, world, breaking(after))
        assert steps_in(tmp_path / "broken/checkpoints") == steps
    shutil.rmtree(source)
    open_run_folder(config)
    check_trainable(config, open_inputs(config))
    found = train_until_done(config, (5, 9))
    assert found["details"] == whole["details"]
    assert found["started_from"] == whole["started_from"]
    assert records(tmp_path / "broken") == records(tmp_path / "straight")
    straight = weights_at(tmp_path / "straight", "latest")
    for name, value in weights_at(tmp_path / "broken", "latest").items():
        assert same_bytes(value, straight[name]), name


def test_text_encoders_of_one_dataset_are_loaded_for_another(folders, tmp_path, unisrec):
    """Without an epoch, a run ranks as the loaded weights do."""
    source = unisrec / "source"
    own = ("model.unisrec.use_ids=true", f"dataset={unisrec}/dataset", "training.leave_out=[table.*]")
    config = started(folders, tmp_path / "new", source, *own, "training.max_epochs=0", model="unisrec")
    check_trainable(config, open_inputs(config))
    with world_of_one() as world:
        metrics = train(config, world)
    best, fresh = weights_at(source), fresh_weights(config)
    with world_of_one() as world:
        inputs, sharded = system_for(config, world)
        state = sharded.system.state_dict()
        for name, value in best.items():
            if name != TABLE:
                state[name].copy_(torch.from_numpy(value))
        assert same_bytes(state[TABLE].numpy(), fresh[TABLE])
        scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world)
        expected = {split: summarise(scorer.rank(split), inputs, config)["metrics"] for split in SPLITS}
    assert {split: metrics[split] for split in SPLITS} == expected
    assert metrics["epochs"] == 0

    inductive = started(
        folders, tmp_path / "inductive", source, f"dataset={unisrec}/dataset", "training.max_epochs=1",
        "model.unisrec.use_ids=false", "training.freeze=[recommender.adaptor.*]", model="unisrec",
    )  # fmt: skip
    check_trainable(inductive, open_inputs(inductive))
    with world_of_one() as world:
        train(inductive, world)
    assert (
        f"not loaded, because this model has no such weight: {TABLE}\n"
        in (tmp_path / "inductive/start.txt").read_text()
    )
    for name, value in weights_at(tmp_path / "inductive", "latest").items():
        assert same_bytes(value, best[name]) == name.startswith("recommender.adaptor."), name


@pytest.mark.long
def test_a_run_keeps_the_encoders_of_its_dataset_and_other_ones_are_refused(folders, tmp_path, unisrec):
    def with_encoder(name, revision):
        """A copy of the dataset whose manifest names an encoder; the content and its fingerprint are as before."""
        folder = tmp_path / name
        shutil.copytree(f"{unisrec}/dataset", folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        for modality in manifest["modalities"].values():
            modality["encoder"] = {"name": name, "revision": revision, "pooling": "mean"}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return f"dataset={folder}"

    own, short = "model.unisrec.use_ids=true", "training.max_epochs=1"
    first, same, other = with_encoder("first", "a"), with_encoder("renamed", "a"), with_encoder("other", "b")
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "run", "unisrec", own, short, first), world)
        # Resuming compares content alone, as before.
        train(config_of(folders, tmp_path / "run", "unisrec", own, "training.max_epochs=2", other), world)
    begun = started(folders, tmp_path / "new", tmp_path / "run", own, short, same, model="unisrec")
    check_trainable(begun, open_inputs(begun))
    refused = started(folders, tmp_path / "new", tmp_path / "run", own, short, other, model="unisrec")
    with pytest.raises(InputError, match=r"are of the encoder first [0-9a-f]{12}, and those of dataset=.* of other "):
        check_trainable(refused, open_inputs(refused))


@pytest.mark.long
@pytest.mark.parametrize("share", [True, False], ids=["one tower", "three towers"])
def test_a_tower_is_loaded_under_other_names(folders, tmp_path, unisrec, share):
    """Of three towers, two begin with the same weights of the other run, and one is fresh."""
    wanted = ("0",) if share else ("0", "2")
    names = {f"recommender.encoders.{number}": "recommender.encoder" for number in wanted}
    config = started(
        folders, tmp_path / "new", unisrec / "source", f"training.rename={json.dumps(names)}", "training.max_epochs=0",
        f"model.mdsrec.share_modalities={str(share).lower()}", "training.leave_out=[table.*]", model="mdsrec",
    )  # fmt: skip
    check_trainable(config, open_inputs(config))
    with world_of_one() as world:
        train(config, world)
    theirs, fresh = weights_at(unisrec / "source"), fresh_weights(config)
    found = weights_at(tmp_path / "new")
    assert len(found) > 20
    for name, value in found.items():
        begins = [ours for ours in names if name.startswith(f"{ours}.")]
        expected = theirs[name.replace(begins[0], "recommender.encoder")] if begins else fresh[name]
        assert same_bytes(value, expected), name
    text = (tmp_path / "new/start.txt").read_text()
    assert "recommender.adaptor" in text.splitlines()[-1], "the weights that were not loaded are listed"
    assert "recommender.encoder." not in text
    settings = ("training.leave_out=[table.*]", f"model.mdsrec.share_modalities={str(share).lower()}")
    other = started(folders, tmp_path / "new", unisrec / "source", *settings, model="mdsrec")
    with pytest.raises(InputError, match=r"was begun with training\.rename="):
        open_run_folder(other)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"recommender.encoders.0": "recommender.tower"},
         r"rename: no weight of training\.start_from=.* begins with recommender\.tower; .*s are recommender\.e"),
        ({"recommender.tower": "recommender.encoder"}, r"rename=\[recommender\.tower\*\]: matches no weight; the most"),
    ],
)  # fmt: skip
def test_names_that_nothing_has_are_refused(folders, tmp_path, unisrec, names, said):
    config = started(
        folders, tmp_path / "new", unisrec / "source", f"training.rename={json.dumps(names)}", model="mdsrec"
    )
    with pytest.raises(InputError, match=said):
        check_trainable(config, open_inputs(config))


def test_interests_of_another_number_are_found_anew(folders, tmp_path):
    """A pre-training has fewer interests than a fine-tuning on the same dataset."""
    own = ("model.missrec.use_ids=false", "training.max_epochs=1")
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "source", "missrec", *own, "model.missrec.interest_ratio=0.1"), world)
        config = started(folders, tmp_path / "new", tmp_path / "source", *own, "training.max_epochs=0", model="missrec")
        train(config, world)
    text = (tmp_path / "new/start.txt").read_text()
    assert re.search(r"interests .*fresh: computed before each epoch", text)
    assert re.search(r"interest_of .*fresh: computed before each epoch", text)
    found = weights_at(tmp_path / "new")
    assert len(found["recommender.interests"]) > 2 * len(weights_at(tmp_path / "source")["recommender.interests"])
    assert found["recommender.interest_of"].max() == len(found["recommender.interests"]) - 1
