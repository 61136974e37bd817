"""How a study handles its trials; the trials here train nothing and end at once in a given state."""

import json
from pathlib import Path

import pytest

from configs.loading import dump_config, parse_config
from contracts.errors import InputError
from data.dataset import Dataset
from distributed.checkpoints.progress import Progress
from experiments.study.definition import Study, expand
from experiments.study.results import read_fingerprints, trial_folder
from experiments.study.run_study import (
    build_graphs,
    check_continued,
    check_study_folder,
    check_variants,
    held,
    place,
    run_study,
)
from experiments.study.trials import Outcome
from graph_builder.build import shaping_parameters
from graph_builder.executor import SerialExecutor
from graph_builder.graph import graph_fingerprint
from tests.distributed.test_checkpoint_index import index, write

SASREC = {"model.name": "sasrec"}
MDSREC = {"model.name": "mdsrec"}


class Told:
    """A TrialExecutor whose trials end in the given states. A finished trial writes a config and metrics."""

    threads, use_gpu = 1, False

    def __init__(self, fingerprints, states=()):
        self.fingerprints, self.states, self.begun = fingerprints, dict(states), []

    def run_trials(self, jobs):
        for job in jobs:
            self.begun.append(job.trial)
            state = self.states.get(job.trial, "finished")
            run = Path(job.config["run"])
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.yaml").write_text(dump_config(parse_config(job.config, job.trial)))
            if state == "finished":
                finish(run, self.fingerprints)
            yield Outcome(trial=job.trial, state=state, error="no luck", traceback="")


def finish(run, fingerprints):
    metrics = {"recall@20": 0.1, "ndcg@10": 0.1}
    details = {"test": {"intervals": dict.fromkeys(metrics, (0.0, 0.2))}}
    content = {"valid": metrics, "test": metrics, "details": details, "epochs": 1, "fingerprints": fingerprints}
    (run / "metrics.json").write_text(json.dumps(content))


@pytest.fixture
def dataset(folders):
    return Dataset.open(str(folders / "dataset"))


@pytest.fixture
def trials_of(folders):
    """A function that makes a study and its trials."""

    def made(variants, *overrides, seeds=(0,)):
        study = Study(base="configs/demo.yaml", title="What?", seeds=seeds, variants=variants)
        return study, expand(study, "study.yaml", [f"dataset={folders}/dataset", *overrides])

    return made


def run(study, folder, executor):
    return run_study(*study, folder, lambda _: (SerialExecutor(), executor))


def test_what_is_finished_stays_and_the_rest_is_trained_again(tmp_path, trials_of, dataset):
    study = trials_of({"a": SASREC, "b": {"model.name": "popularity"}}, seeds=(0, 1))
    first = Told({"dataset": dataset.fingerprint}, {"a-s1": "failed", "b-s0": "stopped"})
    unfinished = run(study, tmp_path / "study", first)
    assert [(outcome.trial, outcome.state) for outcome in unfinished] == [("a-s1", "failed"), ("b-s0", "stopped")]
    assert first.begun == ["a-s0", "a-s1", "b-s0", "b-s1"]
    assert [path.name for path in (tmp_path / "study/failures").iterdir()] == ["a-s1.txt"]
    assert (tmp_path / "study/failures/a-s1.txt").read_text() == "no luck\n"
    (tmp_path / "study/stop").touch()  # left by an earlier command; the next command continues all the same
    second = Told({"dataset": dataset.fingerprint})
    assert run(study, tmp_path / "study", second) == []
    assert second.begun == ["a-s1", "b-s0"]
    assert list((tmp_path / "study/failures").iterdir()) == []
    assert not (tmp_path / "study/stop").exists()


def test_results_are_written_before_the_first_and_after_each_trial(tmp_path, trials_of, dataset):
    study, seen = trials_of({"a": SASREC, "b": SASREC}), []

    class Watching(Told):
        def run_trials(self, jobs):
            seen.append(missing())
            for outcome in super().run_trials(jobs):
                yield outcome
                seen.append(missing())

    def missing():
        return json.loads((tmp_path / "study/results.json").read_text())["missing"]

    run(study, tmp_path / "study", Watching({"dataset": dataset.fingerprint}))
    assert seen == [["a-s0", "b-s0"], ["b-s0"], []]


def test_a_damaged_dataset_is_refused_before_anything_is_started(tmp_path, trials_of, monkeypatch):
    def damaged(_):
        raise InputError("damaged")

    monkeypatch.setattr(Dataset, "validate", damaged)
    with pytest.raises(InputError, match="damaged"):
        run_study(*trials_of({"a": SASREC}), tmp_path / "study", lambda _: pytest.fail("it was started"))
    assert not (tmp_path / "study").exists()


def test_trials_have_the_graph_that_theirs_is(tmp_path, trials_of, dataset):
    variants = {
        "plain": SASREC,
        "ranked": {**SASREC, "evaluation.cooccurrence_weight": 0.5},
        "mdsrec": MDSREC,
        "more": {**MDSREC, "graph_options.num_neighbors": 3},
    }
    trials = place(trials_of(variants, seeds=(0, 1))[1], tmp_path, dataset)
    graphs = {trial.name: trial.config.graph for trial in trials}
    assert graphs["plain-s0"] is None
    assert graphs["ranked-s0"] == graphs["mdsrec-s0"] == graphs["mdsrec-s1"] != graphs["more-s0"]
    assert Path(graphs["more-s0"]).parent == tmp_path / "graphs"
    assert [Path(trial.config.run) for trial in trials] == [trial_folder(tmp_path, trial) for trial in trials]


def test_the_first_trial_is_named_whose_graph_or_config_is_refused(tmp_path, trials_of, dataset):
    trials = place(trials_of({"a": MDSREC, "b": MDSREC}, "graph_options.num_centers=500")[1], tmp_path, dataset)
    with pytest.raises(InputError, match=r"trial a-s0, its graph: graph_options\.num_centers=500"):
        build_graphs(trials, dataset, SerialExecutor())
    refused = {"table.sharding": "row_wise", "table.optimizer": "adam"}
    trials = trials_of({"a": {**SASREC, **refused}}, seeds=(3, 4))[1]
    with pytest.raises(InputError, match=r"trial a-s3: table\.optimizer=adam"):
        check_variants(trials)


def begun(folder, trial, progress, **roles):
    """Write a config and a checkpoint to a trial's folder."""
    run = trial_folder(folder, trial)
    write(run, progress.step, progress)
    index(run, {"latest": progress.step, "best": None, **roles})
    (run / "config.yaml").write_text(dump_config(trial.config))
    return run


def test_a_trial_begun_on_other_data_is_refused_and_a_damaged_checkpoint_is_not(tmp_path, trials_of, dataset):
    trials = place(trials_of({"a": SASREC})[1], tmp_path, dataset)
    same = {"dataset": dataset.fingerprint}
    run = begun(tmp_path, trials[0], Progress(step=5, fingerprints=same))  # not validated yet, so there is no best step
    check_continued(trials, tmp_path, dataset)
    (run / "checkpoints/step-00000005/progress.json").write_text("{")
    check_continued(trials, tmp_path, dataset)  # training then resumes from an earlier checkpoint
    begun(tmp_path, trials[0], Progress(step=5, fingerprints={"dataset": "another"}))
    with pytest.raises(InputError, match="was trained on dataset another"):
        check_continued(trials, tmp_path, dataset)


def test_a_finished_trial_of_another_graph_is_refused(tmp_path, trials_of, dataset):
    trials = place(trials_of({"a": MDSREC})[1], tmp_path, dataset)
    (trial,) = trials
    run = begun(tmp_path, trial, Progress(step=5))
    graph = graph_fingerprint(dataset.fingerprint, shaping_parameters(trial.config.graph_options), trial.graph_seed)
    same = {"dataset": dataset.fingerprint, "graph": graph}
    finish(run, same)
    assert read_fingerprints(tmp_path, trial) == same
    check_continued(trials, tmp_path, dataset)
    for what in ("dataset", "graph", "something"):
        finish(run, {**same, what: "another"})
        with pytest.raises(InputError, match=f"a-s0 in .* was trained on another {what} than the study now names"):
            check_continued(trials, tmp_path, dataset)


@pytest.mark.parametrize("setting", ["training.patience=1", "training.max_epochs=77", "evaluation.ks=[7,10]"])
def test_trials_that_are_compared_do_not_differ_in_when_they_stop_or_what_is_measured(
    tmp_path, trials_of, dataset, setting
):
    trials = place(trials_of({"a": SASREC})[1], tmp_path, dataset)
    begun(tmp_path, trials[0], Progress(step=5, fingerprints={"dataset": dataset.fingerprint}))
    check_continued(trials, tmp_path, dataset)
    changed = place(trials_of({"a": SASREC}, setting)[1], tmp_path, dataset)
    with pytest.raises(InputError, match=rf"trial a-s0 differs from its run in --output: .*{setting.split('=')[0]}"):
        check_continued(changed, tmp_path, dataset)


def test_a_folder_is_held_by_one_process_and_is_a_study_from_then_on(tmp_path, trials_of):
    study, _ = trials_of({"a": SASREC})
    (tmp_path / "study").mkdir()
    (tmp_path / "study/.lock").touch()  # a process that is killed at the very start leaves only this file
    check_study_folder(tmp_path / "study")
    refused = pytest.raises(InputError, match="another process works on this study")
    with held(tmp_path / "study", study), refused, held(tmp_path / "study", study):
        pass
    with held(tmp_path / "study", study):
        (tmp_path / "study/anything").touch()
    check_study_folder(tmp_path / "study")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file"):
        check_study_folder(tmp_path / "file")
