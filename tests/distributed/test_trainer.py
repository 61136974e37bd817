"""Training in one process: stopped runs end as undisturbed ones, rankings are exact, and errors are named."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.schema import ModelConfig, TrainingConfig
from contracts.errors import InputError
from data.dataset import write_dataset
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from data.sampling.batches import TrainBatches, assemble
from data.sampling.item_planner import ItemPlanner
from data.sampling.negatives import CandidateSampler
from data.sampling.spans import spans_before
from data.sequences import Targets
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.run_folder import open_run_folder
from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.inference.scoring import Scorer
from distributed.inference.summaries import summarise
from distributed.inputs import Inputs, build_system, open_inputs, popularity_order
from distributed.sharding import shard
from distributed.telemetry import Telemetry
from distributed.training.trainer import candidate_sampler, check_trainable, train
from distributed.training.training_loop import decide, ending, note_validation
from distributed.world import world_of_one
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare
from model.protocol import CatalogueInfo
from model.zoo import build_model
from tests.distributed.runs import SAMPLED, config_of, records, weights
from tests.packages import ROOT


@pytest.mark.long
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
    table = (f"table.sharding={sharding}", "training.batch_size=128", *more)
    with world_of_one() as world:
        whole = train(config_of(folders, straight, model, *table), world)
    for epochs in (1, 3, 4):
        with world_of_one() as world:
            resumed = train(config_of(folders, broken, model, *table, f"training.max_epochs={epochs}"), world)
    # Dropout and gate noise are on, so this holds only if every random stream continues where it was.
    assert records(broken) == records(straight)
    assert resumed["test"] == whole["test"]
    assert resumed["details"] == whole["details"]
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
        scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world)
        ranked = scorer.rank("test")
        system, plan = sharded.system, scorer.encoder.planner.catalogue()
        targets = Targets(inputs.dataset, "test")
        spans = spans_before(*targets.locate(np.arange(len(targets))), config.model.max_length)
        batch = assemble(inputs.dataset, spans, len(targets), lambda ids: ids)
        system.eval()
        with torch.inference_mode():
            items = system.item_rows(plan)
            scores = (system.encode_users(items, batch).double() @ system.encode_items(items).double().T).numpy()
    target = scores[np.arange(len(scores)), batch.targets.numpy()]
    # Float32 scores that differ from the target's by rounding only may rank above or below it.
    slack = 1e-5 * np.abs(scores).max()
    assert (ranked.ranks >= 1 + (scores > target[:, None] + slack).sum(1)).all()
    assert (ranked.ranks <= (scores >= target[:, None] - slack).sum(1)).all()
    assert summarise(ranked, inputs, config)["targets"] == inputs.dataset.num_users


def test_the_loss_of_each_channel_is_recorded_and_adds_up_to_the_loss(folders, tmp_path):
    rho = ("model.mdsrec.rho={image: 0.4, text: 0.9}", "training.max_epochs=2")
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "run", "mdsrec", *rho), world)
    found = records(tmp_path / "run")
    for record in found:
        by_channel = record["loss_by_channel"]
        assert list(by_channel) == ["id", "image", "text"]
        whole = by_channel["id"] + 0.4 * by_channel["image"] + 0.9 * by_channel["text"]
        assert record["loss"] == pytest.approx(whole, rel=1e-6)
    # Rows are close to 0 at the start, so each channel's loss starts near ln(items), and the whole loss near
    # ln(items) * (1 + .4 + .9).
    assert list(found[0]["loss_by_channel"].values()) == pytest.approx([np.log(70)] * 3, rel=0.05)
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    values = [event.value for event in board.Scalars("loss_by_channel/text")]
    assert values == pytest.approx([record["loss_by_channel"]["text"] for record in found])


def test_a_model_that_samples_its_centres_is_ranked_with_exact_ones(folders, tmp_path):
    found = []
    for more in ((), (*SAMPLED, "evaluation.item_block=7")):
        config = config_of(folders, tmp_path / "run", "mdsrec", "model.init_std=0.5", *more)
        with world_of_one() as world:
            inputs = open_inputs(config)
            sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
            scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world)
            found.append(scorer.rank("test").ranks)
    # The ranks agree except for float32 rounding, which may swap scores that are nearly equal.
    assert (found[0] == found[1]).mean() > 0.95
    assert np.abs(found[0] - found[1]).max() <= 1


def test_popularity_order_is_the_order_of_the_counts(folders):
    dataset = open_inputs(config_of(folders, "unused", "popularity")).dataset
    order, counts = popularity_order(dataset.popularity()), dataset.popularity()
    assert ((order[:, None] > order) == (counts[:, None] > counts)).all()


def test_a_feature_called_popularity_is_the_users_own(tmp_path):
    """A model requests popularity apart from features, so a feature of that name does not replace it."""
    data = synthetic_content(SyntheticSpec(num_users=40, num_items=20, modalities=(("popularity", 3),)))
    dataset = write_dataset(str(tmp_path / "dataset"), data)
    inputs = Inputs(dataset, None)
    model = build_model(
        ModelConfig(name="sasrecf", dim=8, num_heads=2),
        CatalogueInfo(num_items=20, modalities=(), feature_dims={"popularity": 3}),
    )
    plan = inputs.planner(model.needs).catalogue()
    assert torch.equal(plan.features["popularity"], torch.from_numpy(dataset.features("popularity").astype(np.float32)))
    assert plan.popularity is None
    own = build_model(ModelConfig(name="popularity"), CatalogueInfo(num_items=20))
    plan = inputs.planner(own.needs).catalogue()
    assert not plan.features
    assert plan.popularity.flatten().tolist() == popularity_order(dataset.popularity()).tolist()


DRAWN = ("training.negatives.draws=15",)
HARD = (*DRAWN, "training.negatives.hard_share=0.5")


def test_hard_negatives_come_from_the_models_own_modalities(folders):
    def neighbors(*more):
        config = config_of(folders, "unused", "mdsrec", *more)
        return candidate_sampler(config, open_inputs(config))._neighbors

    graph = open_inputs(config_of(folders, "unused")).graph
    assert [rows.tolist() for rows in neighbors(*HARD)] == [graph.neighbors(m).tolist() for m in ("image", "text")]
    (only,) = neighbors(*HARD, "model.mdsrec.modalities=[text]")
    assert only.tolist() == graph.neighbors("text").tolist()
    assert not neighbors(*DRAWN, "model.mdsrec.modalities=[]")
    with pytest.raises(InputError, match=r"hard_share=0\.5.*model\.mdsrec\.modalities=\[\]"):
        neighbors(*HARD, "model.mdsrec.modalities=[]")


def test_errors_of_the_sampler_are_raised_before_any_rank_starts(folders, monkeypatch):
    config = config_of(folders, "unused", "sasrec", *DRAWN)
    inputs = open_inputs(config)
    check_trainable(config, inputs)
    monkeypatch.setattr(type(inputs.dataset), "popularity", lambda dataset: np.zeros(dataset.num_items, np.int64))
    with pytest.raises(InputError, match="popularity"):
        check_trainable(config, inputs)


@pytest.mark.parametrize("model", ["mdsrec", "sasrec", "popularity"])
def test_nothing_is_built_only_to_be_refused(folders, monkeypatch, model):
    def refuse(*_, **__):
        raise AssertionError("built before any rank is started")

    config = config_of(folders, "unused", model, *(HARD if model == "mdsrec" else DRAWN))
    inputs = open_inputs(config)
    for built in (TrainBatches, CandidateSampler, ItemPlanner):
        monkeypatch.setattr(built, "__init__", refuse)
    check_trainable(config, inputs)


def test_a_sampler_of_nothing_to_train_on_is_refused_like_a_full_softmax(folders, monkeypatch):
    for more in ((), DRAWN):
        config = config_of(folders, "unused", "sasrec", *more)
        inputs = open_inputs(config)
        dataset = inputs.dataset
        monkeypatch.setattr(dataset, "train_end", np.minimum(dataset.train_end, 1))
        counts = np.bincount(dataset.items[dataset.offsets[:-1]], minlength=dataset.num_items)
        monkeypatch.setattr(type(dataset), "popularity", lambda _, counts=counts: counts)
        with pytest.raises(InputError, match="nothing to train on"):
            check_trainable(config, inputs)


def test_stopping_is_decided_by_validation():
    training, progress = TrainingConfig(patience=2, max_epochs=10), Progress()
    seen = []
    for metric in (0.1, 0.2, 0.15, 0.2, 0.3):
        seen.append((note_validation(progress, metric), decide(progress, training)))
    assert seen == [(True, "train"), (True, "train"), (False, "train"), (False, "stop"), (True, "train")]
    assert decide(Progress(epoch=10), training) == "stop"
    assert decide(Progress(step=5), TrainingConfig(max_steps=5)) == "stop"


def test_a_run_is_not_continued_with_another_score(folders, tmp_path):
    """Otherwise the best checkpoint would be chosen among metrics that cannot be compared."""
    config = config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1", "evaluation.cooccurrence_weight=1")
    with world_of_one() as world:
        train(config, world)
    for setting in ("evaluation.mask_history=true", "evaluation.cooccurrence_weight=2", "evaluation.ties=id"):
        other = config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=2", setting)
        with pytest.raises(
            InputError, match=r"was begun with evaluation\.\w+=.* to rank a trained run otherwise: jobs/eva"
        ):
            open_run_folder(other)
    longer = (
        "training.max_epochs=2",
        "training.patience=3",
        "evaluation.cooccurrence_weight=1",
        "evaluation.user_batch=9",
    )
    longer_config = config_of(folders, tmp_path / "run", "sasrec", *longer)
    open_run_folder(longer_config)

    # The same knobs, but scores from another graph.
    dataset = open_inputs(config).dataset
    options = config.graph_options.model_copy(update={"normalization": "row_l1", "num_centers": 4})
    build_graph(dataset, str(tmp_path / "graph"), options, 0, SerialExecutor())
    moved = longer_config.model_copy(update={"graph": str(tmp_path / "graph")})
    with pytest.raises(InputError, match=r"was validated with graph .*, but the given graph"), world_of_one() as world:
        train(moved, world)
    (progress,) = tmp_path.glob("run/checkpoints/step-*/progress.json")
    assert json.loads(progress.read_text())["fingerprints"]["ranking_graph"] == open_inputs(config).graph.fingerprint
    with world_of_one() as world:  # a trained run may be ranked with another graph
        evaluate(run_config(str(tmp_path / "run"), [f"graph={tmp_path}/graph"]), world, "best")
        assert len(list((tmp_path / "run").glob("evaluation-best-graph=*.json"))) == 1
        train(longer_config, world)


def test_a_run_of_earlier_versions_did_not_note_the_graph_of_its_ranking(folders, tmp_path):
    settings = ("training.max_epochs=1", "evaluation.cooccurrence_weight=1")
    with world_of_one() as world:
        train(config_of(folders, tmp_path, "sasrec", *settings), world)
        for path in (*tmp_path.glob("checkpoints/*/progress.json"), tmp_path / "metrics.json"):
            content = json.loads(path.read_text())
            del content["fingerprints"]["ranking_graph"]
            path.write_text(json.dumps(content))
        evaluate(run_config(str(tmp_path)), world, "best")
        assert [path.name for path in tmp_path.glob("evaluation-*.json")] == ["evaluation-best.json"]
        longer = config_of(folders, tmp_path, "sasrec", "training.max_epochs=2", "evaluation.cooccurrence_weight=1")
        assert train(longer, world)["epochs"] == 2


def test_results_say_their_settings_and_do_not_replace_each_other(folders, tmp_path):
    with world_of_one() as world:
        metrics = train(config_of(folders, tmp_path, "sasrec", "training.max_epochs=1"), world)
        evaluate(run_config(str(tmp_path)), world, "best")
        kept = (tmp_path / "evaluation-best.json").read_bytes()
        evaluate(run_config(str(tmp_path), ["evaluation.mask_history=true", "evaluation.ks=[10, 3]"]), world, "best")
    assert (tmp_path / "evaluation-best.json").read_bytes() == kept
    other = json.loads((tmp_path / "evaluation-best-ks=10+3,mask_history=true.json").read_text())
    assert (other["settings"]["mask_history"], other["settings"]["ks"]) == (True, [10, 3])
    for found in (metrics, json.loads(kept)):
        assert found["settings"]["mask_history"] is False
        assert set(found["details"]["test"]["slices"]) >= {"target in the history", "target new to the user"}
        share = found["details"]["test"]["repeat_share"]
        repeated = found["details"]["test"]["slices"]["target in the history"]["targets"]
        assert 0 < share < 1
        assert share == repeated / found["details"]["test"]["targets"]


def test_a_run_that_is_over_has_nothing_left_to_train(folders, tmp_path, capsys):
    config = config_of(folders, tmp_path, "sasrec", "training.max_epochs=1")
    with world_of_one() as world:
        train(config, world)
        capsys.readouterr()
        train(config, world)
    said = capsys.readouterr().out
    assert "nothing is left to train: the run is at step" in said
    assert "continuing from" not in said


def test_the_end_of_a_training_says_why_and_which_epoch_was_best(folders, tmp_path, capsys, monkeypatch):
    valid = iter([0.1, 0.3, 0.2, 0.3])
    monkeypatch.setattr(
        "distributed.training.validation.summarise",
        lambda *_: {"metrics": {"ndcg@10": next(valid)}, "slices": {}},
    )
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


def test_telemetry_removes_records_of_steps_that_are_repeated(tmp_path):
    with world_of_one() as world:
        first = Telemetry(run=str(tmp_path), world=world, resumed_step=0, epochs=0)
        for epoch in (1, 2, 3):
            first.record(10 * epoch, epoch=epoch, loss=1.0)
        first.close()
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 40, "lo')  # the process was killed while it wrote this line
        Telemetry(run=str(tmp_path), world=world, resumed_step=25, epochs=2).close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [10, 20]


@pytest.mark.parametrize("damaged", ["\0\0\0\0", "[1]", '{"step": 3}', '{"epoch": null}'])
def test_a_damaged_record_is_named(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"epoch": 1}}\n{damaged}\n')
    with world_of_one() as world, pytest.raises(InputError, match=r"metrics\.jsonl: line 2 is .*delete it"):
        Telemetry(run=str(tmp_path), world=world, resumed_step=5, epochs=2)
    assert path.read_text().endswith(f"{damaged}\n")


def test_inputs_that_do_not_belong_together_are_named(folders, tmp_path):
    other = prepare("synthetic", str(tmp_path / "other"), num_users=60, num_items=40, seed=4)
    config = config_of(folders, tmp_path / "run")
    with pytest.raises(InputError, match="graph"):
        open_inputs(config.model_copy(update={"dataset": str(tmp_path / "other")}))
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1"), world)
        with pytest.raises(InputError, match=rf"trained on dataset .*{other.fingerprint[:12]} "):
            train(
                config_of(folders, tmp_path / "run", "sasrec").model_copy(update={"dataset": str(tmp_path / "other")}),
                world,
            )


@pytest.mark.long
def test_a_forked_process_does_not_finalise_unreachable_objects_of_its_parent(tmp_path):
    """Such an object may wait for threads that the fork lacks. Here the object only records that it was finalised.

    This happens in a process of its own, because the collection of all objects of earlier tests takes half a minute.
    """
    code = """
import gc, multiprocessing, os, sys
from pathlib import Path
from distributed.training.loader import no_collection_in_forks

destroyed = Path(sys.argv[1])

class Forgotten:
    def __init__(self):
        self.own = self
    def __del__(self):
        (destroyed / str(os.getpid())).touch()

def collect():
    gc.collect()
    os._exit(0)

gc.disable()
Forgotten()
with no_collection_in_forks():
    process = multiprocessing.get_context("fork").Process(target=collect)
    process.start()
process.join()
assert process.exitcode == 0
assert not list(destroyed.iterdir())
gc.collect()
assert [path.name for path in destroyed.iterdir()] == [str(os.getpid())]
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=120)


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
