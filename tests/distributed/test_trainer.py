"""The life of a run in one process: it stops, continues and ranks as if nothing had happened."""

import gc
import json
import multiprocessing
import os

import numpy as np
import pytest
import torch

from configs.errors import InputError
from configs.schema import TrainingConfig
from data.batches import assemble
from data.sequences import Targets
from data.spans import spans_before
from distributed.checkpoint_index import Progress
from distributed.encoding import evaluate, run_config
from distributed.inputs import build_system, open_inputs, popularity_order
from distributed.scoring import Scorer, summarise
from distributed.sharding import shard
from distributed.telemetry import Telemetry
from distributed.trainer import train
from distributed.training_loop import decide, ending, note_validation, nothing_inherited_collected
from distributed.world import world_of_one
from jobs.prepare_data import prepare
from tests.distributed.runs import SAMPLED, config_of, records, weights


@pytest.mark.parametrize(
    ("model", "sharding", "more"),
    [
        ("mdsrec", "data_parallel", ()),
        ("sasrec", "data_parallel", ()),
        ("mdsrec", "row_wise", ()),
        ("sasrec", "row_wise", ()),
        ("mdsrec", "row_wise", SAMPLED),
        ("sasrec", "data_parallel", ("training.unit=prefixes",)),
    ],
)
def test_a_run_that_stopped_ends_as_one_that_did_not(folders, tmp_path, model, sharding, more):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    table = (f"table.sharding={sharding}", *more)
    with world_of_one() as world:
        whole = train(config_of(folders, straight, model, *table), world)
    for epochs in (1, 3, 4):
        with world_of_one() as world:
            pieces = train(config_of(folders, broken, model, *table, f"training.max_epochs={epochs}"), world)
    # Dropout and gate noise are on, so this holds only if every random stream continues where it was.
    assert records(broken) == records(straight)
    assert pieces["test"] == whole["test"]
    assert pieces["details"] == whole["details"]
    expected, found = (weights(run, config_of(folders, run, model, *table)) for run in (straight, broken))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name

    with world_of_one() as world:
        again = evaluate(run_config(str(broken)), world, "best")
    assert again["test"] == whole["test"]


@pytest.mark.parametrize("model", ["mdsrec", "sasrec", "popularity"])
def test_ranks_equal_scoring_the_whole_catalogue(folders, tmp_path, model):
    config = config_of(folders, tmp_path / "run", model, "model.init_std=0.5")
    with world_of_one() as world:
        inputs = open_inputs(config)
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        scorer = Scorer(sharded, inputs, config, world)
        ranked = scorer.rank("test")
        system, plan = sharded.system, scorer.planner.catalogue()
        targets = Targets(inputs.dataset, "test")
        spans = spans_before(*targets.locate(np.arange(len(targets))), config.model.max_length)
        batch = assemble(inputs.dataset, spans, len(targets), lambda ids: ids)
        system.eval()
        with torch.inference_mode():
            items = system.item_rows(plan)
            scores = (system.encode_users(items, batch).double() @ system.encode_items(items).double().T).numpy()
    target = scores[np.arange(len(scores)), batch.targets.numpy()]
    # Float32 scores within rounding of the target's are ties that either side may win.
    slack = 1e-5 * np.abs(scores).max()
    assert (ranked.ranks >= 1 + (scores > target[:, None] + slack).sum(1)).all()
    assert (ranked.ranks <= (scores >= target[:, None] - slack).sum(1)).all()
    assert summarise(ranked, inputs, config)["targets"] == inputs.dataset.num_users


def test_a_model_that_samples_its_centres_is_ranked_with_exact_ones(folders, tmp_path):
    found = []
    for more in ((), (*SAMPLED, "evaluation.item_block=7")):
        config = config_of(folders, tmp_path / "run", "mdsrec", "model.init_std=0.5", *more)
        with world_of_one() as world:
            inputs = open_inputs(config)
            sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
            scorer = Scorer(sharded, inputs, config, world)
            found.append(scorer.rank("test").ranks)
    # The same but for float32 rounding, which may turn near-ties round.
    assert (found[0] == found[1]).mean() > 0.95
    assert np.abs(found[0] - found[1]).max() <= 1


def test_popularity_order_is_the_order_of_the_counts(folders):
    dataset = open_inputs(config_of(folders, "unused", "popularity")).dataset
    order, counts = popularity_order(dataset), dataset.popularity()
    assert ((order[:, None] > order) == (counts[:, None] > counts)).all()


def test_stopping_is_decided_by_validation():
    training, progress = TrainingConfig(patience=2, max_epochs=10), Progress()
    seen = []
    for metric in (0.1, 0.2, 0.15, 0.2, 0.3):
        seen.append((note_validation(progress, metric), decide(progress, training)))
    assert seen == [(True, "train"), (True, "train"), (False, "train"), (False, "stop"), (True, "train")]
    assert decide(Progress(epoch=10), training) == "stop"
    assert decide(Progress(step=5), TrainingConfig(max_steps=5)) == "stop"


def test_the_end_of_a_training_says_why_and_which_epoch_was_best(folders, tmp_path, capsys, monkeypatch):
    valid = iter([0.1, 0.3, 0.2, 0.3])
    monkeypatch.setattr("distributed.training_loop.summarise", lambda *_: {"metrics": {"ndcg@10": next(valid)}})
    settings = ("training.max_epochs=9", "training.patience=2")
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "run", "sasrec", *settings), world)
    steps = [record["step"] for record in records(tmp_path / "run")]
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("epoch 4: ")
    assert said[-1] == (
        f"training ends after epoch 4, step {steps[3]}: ndcg@10 was no better for 2 epochs (training.patience); "
        "best: epoch 2, valid ndcg@10 0.3000"
    )


@pytest.mark.parametrize(
    ("progress", "training", "best", "line"),
    [
        (
            Progress(epoch=3, step=30, best_metric=0.25, best_step=20),
            TrainingConfig(max_epochs=3),
            2,
            "training ends after epoch 3, step 30: training.max_epochs=3; best: epoch 2, valid ndcg@10 0.2500",
        ),
        (
            Progress(epoch=1, step=5, best_step=5),
            TrainingConfig(max_steps=5),
            1,
            "training ends after epoch 1, step 5: training.max_steps=5; without users to validate on the latest "
            "epoch, 1, counts as the best",
        ),
        (
            Progress(),
            TrainingConfig(max_epochs=0),
            None,
            "training ends after epoch 0, step 0: training.max_epochs=0; no epoch was trained",
        ),
    ],
)
def test_each_reason_to_end_is_named(progress, training, best, line):
    assert ending(progress, training, best) == line


def test_telemetry_forgets_the_steps_that_will_be_taken_again(tmp_path):
    with world_of_one() as world:
        first = Telemetry(str(tmp_path), world, 0, 0)
        for epoch in (1, 2, 3):
            first.record(10 * epoch, epoch=epoch, loss=1.0)
        first.close()
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 40, "lo')  # the writer was killed here
        Telemetry(str(tmp_path), world, 25, 2).close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [10, 20]


def test_inputs_that_do_not_belong_together_are_named(folders, tmp_path):
    other = prepare("synthetic", str(tmp_path / "other"), num_users=60, num_items=40, seed=4)
    config = config_of(folders, tmp_path / "run")
    with pytest.raises(InputError, match="graph"):
        open_inputs(config.model_copy(update={"dataset": str(tmp_path / "other")}))
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1"), world)
        with pytest.raises(InputError, match=rf"trained on dataset .*{other.fingerprint}"):
            train(
                config_of(folders, tmp_path / "run", "sasrec").model_copy(update={"dataset": str(tmp_path / "other")}),
                world,
            )


def test_a_forked_process_does_not_destroy_what_its_parent_forgot(tmp_path):
    """Threads of such garbage would be waited for, and are not there: here, it only says that it was destroyed."""
    destroyed = tmp_path / "destroyed"

    class Forgotten:
        def __init__(self):
            self.own = self

        def __del__(self):
            (destroyed / str(os.getpid())).touch()

    def collect():
        gc.collect()
        os._exit(0)

    destroyed.mkdir()
    gc.disable()
    try:
        Forgotten()
        with nothing_inherited_collected():
            process = multiprocessing.get_context("fork").Process(target=collect)
            process.start()
        process.join()
    finally:
        gc.enable()
    assert process.exitcode == 0
    assert not list(destroyed.iterdir())
    gc.collect()
    assert [path.name for path in destroyed.iterdir()] == [str(os.getpid())]


def test_loader_processes_change_no_bit(folders, tmp_path):
    found = []
    for workers in (0, 1):
        more = (f"training.loader_workers={workers}", "training.max_epochs=3", "model.dropout=0.3")
        config = config_of(folders, tmp_path / str(workers), "sasrec", *more)
        with world_of_one() as world:
            train(config, world)
        lines = (tmp_path / str(workers) / "metrics.jsonl").read_text().splitlines()
        found.append([(json.loads(line)["loss"], json.loads(line)["valid"]) for line in lines])
    assert len(found[0]) == 3
    assert found[0] == found[1]
