"""Studies in this process: which trials are kept, continued and refused, which graphs are built, and the reports."""

import json
import time

import numpy as np
import pytest
import yaml

from contracts.errors import InputError
from distributed.stop_agreement import Interruption
from experiments.study import run_study as study_module
from experiments.study import trials as trials_module
from experiments.study.definition import expand, read_study
from experiments.study.run_study import held, run_study
from experiments.study.trials import SerialTrials
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from jobs.prepare_data import prepare
from tests.distributed.runs import records

BASE = """
graph_options: {num_centers: 4}
model: {dim: 8, num_heads: 2, max_length: 8, dropout: 0.2}
training: {batch_size: 64, learning_rate: 0.01, max_epochs: 2}
evaluation: {user_batch: 50, item_block: 30, bootstrap_samples: 20}
"""
VARIANTS = {
    "none": {"ablation": "none"},
    "ICA": {"ablation": "ICA"},
    "CRE": {"ablation": "CRE"},
    "sasrec": {"model.name": "sasrec"},
}


SHORT = "training.max_steps=3"


class Interrupted(BaseException):
    """Interrupts a study as a kill would: no code catches it."""


@pytest.fixture
def study(tmp_path, folders):
    """A function that runs a study of variants in tmp_path/study and returns the trials that did not finish."""
    (tmp_path / "base.yaml").write_text(BASE)

    def run(variants, *overrides, seeds=(0,)):
        content = {"base": str(tmp_path / "base.yaml"), "title": "What?", "seeds": [*seeds], "variants": variants}
        path = tmp_path / "file.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        found = read_study(str(path))
        trials = expand(found, str(path), [f"dataset={folders}/dataset", *overrides])
        return run_study(found, trials, tmp_path / "study", lambda _: (SerialExecutor(), SerialTrials()))

    return run


def finished(tmp_path):
    """Return when each trial's metrics were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "study/trials").glob("*/metrics.json")}


@pytest.mark.long
def test_trials_share_graphs_and_are_kept(tmp_path, study, monkeypatch):
    built = []
    original = study_module.build_graph

    def recorded(source, path, *given, **more):
        built.append(path)
        return original(source, path, *given, **more)

    monkeypatch.setattr(study_module, "build_graph", recorded)
    assert study(VARIANTS, SHORT, seeds=(0, 1)) == []
    assert len(finished(tmp_path)) == 8
    # The variants none and ICA share a graph, CRE (mu = 0) has another one, and sasrec has none.
    assert len(built) == len(set(built)) == len(list((tmp_path / "study/graphs").glob("*/manifest.json"))) == 2
    results = json.loads((tmp_path / "study/results.json").read_text())
    assert [(trial["variant"], trial["seed"]) for trial in results["trials"]][:3] == [
        ("none", 0),
        ("none", 1),
        ("ICA", 0),
    ]
    assert all(trial["epochs"] == trial["best_epoch"] == 1 for trial in results["trials"])
    graphs = {
        json.loads(path.read_text())["fingerprints"].get("graph")
        for path in (tmp_path / "study/trials").glob("*/metrics.json")
    }
    assert len(graphs) == 3

    before = finished(tmp_path)
    assert study({**VARIANTS, "deeper": {"model.name": "sasrec", "model.num_layers": 3}}, SHORT, seeds=(0, 1)) == []
    after = finished(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"deeper-s0", "deeper-s1"}
    assert len(built) == 2  # none of the missing trials needs a graph


@pytest.mark.long
def test_trials_of_several_datasets_have_a_graph_of_each(tmp_path, study, two_domains):
    both = f"dataset=[{two_domains}/A,{two_domains}/B]"
    variants = {"none": {"ablation": "none"}, "sasrec": {"model.name": "sasrec", "training.domains": "apart"}}
    for _ in range(2):  # the second time, all is finished
        assert study(variants, SHORT, both, "graph_options.num_centers=3") == []
        assert finished(tmp_path).keys() == {"none-s0", "sasrec-s0"}
    graphs = [Graph.open(path.parent) for path in (tmp_path / "study/graphs").glob("*/manifest.json")]
    assert sorted(graph.manifest["dataset"]["path"] for graph in graphs) == [f"{two_domains}/A", f"{two_domains}/B"]
    with pytest.raises(InputError, match="was trained on another dataset than the study now names"):
        study(variants, SHORT, f"dataset=[{two_domains}/B,{two_domains}/A]", "graph_options.num_centers=3")


@pytest.mark.long
def test_an_interrupted_trial_goes_on_from_its_checkpoint(tmp_path, study, monkeypatch):
    variants = {"a": {"model.name": "sasrec"}, "b": {"model.name": "sasrec", "model.num_layers": 1}}
    assert study(variants, "training.max_epochs=3") == []
    whole = records(tmp_path / "study/trials/b-s0")
    (tmp_path / "study").rename(tmp_path / "whole")

    epochs = []
    original = trials_module.train.__globals__["TrainingLoop"]._end_epoch

    def end_epoch(loop):
        original(loop)
        epochs.append(loop.config.run)
        if len(epochs) == 5:  # the second epoch of trial b
            raise Interrupted

    monkeypatch.setattr(trials_module.train.__globals__["TrainingLoop"], "_end_epoch", end_epoch)
    with pytest.raises(Interrupted):
        study(variants, "training.max_epochs=3")
    before = finished(tmp_path)
    assert set(before) == {"a-s0"}
    assert "1 of 2 trials are finished" in (tmp_path / "study/results.md").read_text()
    assert study(variants, "training.max_epochs=3") == []
    assert finished(tmp_path)["a-s0"] == before["a-s0"]
    assert len(epochs) == 6  # one more epoch: training was continued
    assert records(tmp_path / "study/trials/b-s0") == whole


def test_a_trial_that_fails_is_reported_and_the_others_finish(tmp_path, study, monkeypatch):
    original, broken = trials_module.train, []

    def train(config, world):
        if broken and config.model.num_layers == 3:
            raise RuntimeError("no\nluck")
        return original(config, world)

    monkeypatch.setattr(trials_module, "train", train)
    broken.append(True)
    variants = {"bad": {"model.name": "sasrec", "model.num_layers": 3}, "good": {"model.name": "sasrec"}}
    (failed,) = study(variants)
    assert (failed.trial, failed.state, failed.error) == ("bad-s0", "failed", "RuntimeError: no luck")
    assert "Traceback" in (tmp_path / "study/failures/bad-s0.txt").read_text()
    assert set(finished(tmp_path)) == {"good-s0"}
    assert "Not finished: bad-s0." in (tmp_path / "study/results.md").read_text()
    broken.clear()
    assert study(variants) == []
    assert set(finished(tmp_path)) == {"bad-s0", "good-s0"}
    assert not (tmp_path / "study/failures/bad-s0.txt").exists()


@pytest.mark.long
def test_a_file_stop_ends_a_trial_that_the_next_command_continues(tmp_path, study):
    def stop(*_):
        (tmp_path / "study/trials/a-s0/stop").touch()
        time.sleep(1.1)  # ranks look for the file once per second
        return original(*_)

    original = Interruption.agreed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interruption, "agreed", stop)
        (stopped,) = study({"a": {"model.name": "sasrec"}})
    assert (stopped.trial, stopped.state) == ("a-s0", "stopped")
    assert study({"a": {"model.name": "sasrec"}}) == []
    assert set(finished(tmp_path)) == {"a-s0"}


@pytest.mark.long
def test_a_file_stop_in_the_study_lets_no_other_trial_begin(tmp_path, study, monkeypatch):
    def train(*arguments):
        (tmp_path / "study/stop").touch()
        return original(*arguments)

    original = trials_module.train
    monkeypatch.setattr(trials_module, "train", train)
    variants = {"a": {"model.name": "sasrec"}, "b": {"model.name": "sasrec", "model.dim": 16}}
    (stopped,) = study(variants)
    assert (stopped.trial, stopped.state) == ("b-s0", "stopped")
    assert not (tmp_path / "study/trials/b-s0").exists()
    assert set(finished(tmp_path)) == {"a-s0"}
    monkeypatch.undo()
    assert study(variants) == []
    assert set(finished(tmp_path)) == {"a-s0", "b-s0"}


@pytest.mark.parametrize(
    ("variants", "overrides", "message"),
    [
        ({"a": {"model.name": "sasrec", "model.dim": 16}}, [], "model.dim=8 and the command says 16"),
        ({"a": {"model.name": "sasrec"}}, ["training.max_epochs=5"], "training.max_epochs=2 and the command says 5"),
        ({"a": {"model.name": "sasrec"}}, ["evaluation.mask_history=true"], "evaluation.mask_history=false"),
    ],
)
def test_a_changed_trial_is_refused(tmp_path, study, variants, overrides, message):
    study({"a": {"model.name": "sasrec"}})
    before = finished(tmp_path)
    with pytest.raises(InputError) as refused:
        study(variants, *overrides)
    assert message in str(refused.value)
    assert "trial a-s0 differs from its run in --output" in str(refused.value)
    assert finished(tmp_path) == before


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        (
            "sasrec",
            ["evaluation.cooccurrence_weight=16"],
            "cooccurrence_weight=1.0 and the command says 16.0",
        ),
        ("sasrec", ["evaluation.cooccurrence_decay=0.1"], "cooccurrence_decay=0.9 and the command says 0.1"),
        ("sasrec", ["evaluation.cooccurrence_cap=3"], "evaluation.cooccurrence_cap=null and the command says 3"),
        ("itemknn", ["graph_options.normalization=row_l1"], "graph_options.normalization=row_l2 and the command says"),
        (
            "itemknn",
            ["evaluation.cooccurrence_decay=0.1"],
            "cooccurrence_decay=0.9 and the command says 0.1",
        ),
    ],
)
def test_finished_trials_are_not_taken_for_those_of_another_score(study, model, overrides, message):
    variants = {"a": {"model.name": model, "evaluation.cooccurrence_weight": 1}}
    assert study(variants, SHORT) == []
    given = dict(override.split("=") for override in overrides)
    if "evaluation.cooccurrence_weight" in given:  # the study varies this knob, so the test changes the study's file
        variants, overrides = {"a": {**variants["a"], "evaluation.cooccurrence_weight": 16}}, []
    with pytest.raises(InputError) as refused:
        study(variants, SHORT, *overrides)
    assert message in str(refused.value)
    assert study({"a": {"model.name": model, "evaluation.cooccurrence_weight": 1}}, SHORT) == []


def test_graph_knobs_that_no_trial_reads_may_change(tmp_path, study):
    variants = {"a": {"model.name": "sasrec"}}
    assert study(variants, SHORT) == []
    before = finished(tmp_path)
    assert study(variants, SHORT, "graph_options.num_neighbors=9") == []
    assert finished(tmp_path) == before


def test_another_graph_or_dataset_is_refused(tmp_path, study):
    study({"a": {"graph_options.num_neighbors": 1}}, "training.max_steps=2")
    (graph,) = (tmp_path / "study/graphs").iterdir()
    for modality in (opened := Graph.open(graph)).modalities:  # configs/studies/neighbors.yaml describes such a graph
        assert np.array_equal(opened.neighbors(modality), np.arange(70)[:, None])
    with pytest.raises(InputError, match=r"graph_options\.num_neighbors=1 and the command says 4"):
        study({"a": {"graph_options.num_neighbors": 4}}, "training.max_steps=2")
    (tmp_path / "base.yaml").write_text(f"seed: 5\n{BASE}")  # the seed of the graphs
    with pytest.raises(InputError, match=r"a-s0 in .* was trained on another graph than the study now names"):
        study({"a": {"graph_options.num_neighbors": 1}}, "training.max_steps=2")
    (tmp_path / "base.yaml").write_text(BASE)
    prepare("synthetic", str(tmp_path / "other"), num_users=60, num_items=40, seed=4)
    with pytest.raises(InputError, match=r"was trained on another dataset"):
        study({"a": {"graph_options.num_neighbors": 1}}, "training.max_steps=2", f"dataset={tmp_path}/other")


def test_what_cannot_be_trained_is_refused_before_any_trial(tmp_path, study):
    good = {"model.name": "sasrec"}
    with pytest.raises(InputError, match=r"trial b-s0, its graph: graph_options\.num_centers=500: only 53 of 70"):
        study({"a": good, "b": {"graph_options.num_centers": 500}})
    with pytest.raises(InputError, match=r"trial b-s0: model\.mdsrec\.modalities: .*'smell'"):
        study({"a": good, "b": {"model.mdsrec.modalities": ["smell"]}})
    with pytest.raises(InputError, match="dataset nowhere"):
        study({"a": good}, "dataset=nowhere")
    assert not (tmp_path / "study/trials").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, study):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds thesis\.tex and no study\.yaml, so it is not a study"):
        study({"a": {"model.name": "sasrec"}})
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["thesis.tex"]


def test_one_process_at_a_time(tmp_path, study):
    study({"a": {"model.name": "popularity"}})
    found = read_study(str(tmp_path / "file.yaml"))
    with held(tmp_path / "study", found), pytest.raises(InputError, match="another process works on this study"):
        study({"a": {"model.name": "popularity"}})
