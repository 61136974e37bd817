"""The life of a study: what is finished stays, graphs are built once, trials are trained, results are written.

Folders: STUDY/graphs/<H, k, fingerprint> are shared by the trials whose graph they are; STUDY/trials/<variant>-s<seed>
are runs like any other; STUDY/failures/<trial>.txt holds the traceback of one that failed.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from configs.knobs import Decides
from configs.schema import Config
from contracts.errors import InputError
from data.dataset import Dataset
from distributed.checkpoints.index import RANKING_GRAPH, DamagedCheckpoint, find_checkpoint
from distributed.checkpoints.run_folder import FIXED_IN_A_RUN, open_run_folder
from distributed.inputs import open_inputs
from distributed.interruption import STOP_FILE
from distributed.placement import device_type
from distributed.training.trainer import check_trainable
from experiments.study.definition import Study, Trial
from experiments.study.report import write_report
from experiments.study.results import is_finished, read_fingerprints, trial_folder
from experiments.study.trials import Job, Outcome, TrialExecutor
from graph_builder.build import build_graph, check_buildable, check_centers, shaping_parameters
from graph_builder.executor import Executor
from graph_builder.store import graph_fingerprint
from storage.durable_files import write_text

# A run may be continued with more epochs; trials that are compared must not differ in them.
_FIXED = FIXED_IN_A_RUN | {Decides.LENGTH}
_MARK = "study.yaml"


def run_study(
    study: Study, trials: Sequence[Trial], folder: Path, start: Callable[[Config], tuple[Executor, TrialExecutor]]
) -> list[Outcome]:
    """Train what is not finished yet, write the results after each trial, and return what is still unfinished.

    Args:
        trials: of `experiments.study.definition.expand`, their dataset set.
        start: called with a trial's config once it is clear that there is something to train; returns what builds
            graphs, and what trains trials.

    Raises:
        InputError: before anything is trained: a dataset, graph, config or folder that cannot be used.
    """
    check_study_folder(folder)
    path = trials[0].config.dataset
    if path is None:
        raise InputError("dataset: not set; add --set dataset=DATASET, a folder written by jobs/prepare_data.py")
    dataset = Dataset.open(path)
    trials = place(trials, folder, dataset)
    check_continued(trials, folder, dataset)
    pending = [trial for trial in trials if not is_finished(folder, trial)]
    if pending:
        dataset.validate()
    with held(folder, study):
        (folder / STOP_FILE).unlink(missing_ok=True)
        write_report(study, trials, folder)
        if not pending:
            return []
        _check_before_start(pending, dataset)
        graph_executor, trial_executor = start(pending[0].config)
        build_graphs(pending, dataset, graph_executor)
        check_variants(pending, "cuda" if trial_executor.use_gpu else "cpu")
        return _train(pending, folder, trial_executor, lambda: write_report(study, trials, folder))


def _check_before_start(trials: Sequence[Trial], dataset: Dataset) -> None:
    """What can be refused while no executor has started: trials without a graph, and graphs that cannot be built.

    Raises:
        InputError: names the trial.
    """
    device = device_type(trials[0].config.cluster)
    check_variants([trial for trial in trials if trial.config.graph is None], device)
    for graph, trial in {trial.config.graph: trial for trial in reversed(trials)}.items():
        if graph is None:
            continue
        options = trial.config.graph_options
        try:
            check_buildable(dataset, graph, options)
            for name, facts in dataset.manifest["modalities"].items():
                check_centers(name, options.num_centers, facts["num_present"], dataset.num_items)
        except InputError as error:
            raise InputError(f"trial {trial.name}, its graph: {error}") from None


def place(trials: Sequence[Trial], folder: Path, dataset: Dataset) -> list[Trial]:
    """The trials with their run, and the graph that theirs is; trials of a model without a graph have none."""
    placed = []
    for trial in trials:
        options, graph = trial.config.graph_options, None
        if trial.config.reads_graph:
            fingerprint = graph_fingerprint(dataset.fingerprint, shaping_parameters(options), trial.graph_seed)
            graph = str(folder / "graphs" / f"h{options.num_neighbors}-k{options.num_centers}-{fingerprint[:12]}")
        moved = {"run": str(trial_folder(folder, trial)), "graph": graph}
        placed.append(replace(trial, config=trial.config.model_copy(update=moved)))
    return placed


def check_continued(trials: Sequence[Trial], folder: Path, dataset: Dataset) -> None:
    """Whether what is in the study's folder was made by these trials on this dataset.

    Raises:
        InputError: it was not; names the first trial that differs, the knob and both values.
    """
    for trial in trials:
        try:
            open_run_folder(trial.config, _FIXED | {Decides.GRAPH} if trial.config.reads_graph else _FIXED)
        except InputError as error:
            raise InputError(
                f"trial {trial.name} is another one than before: {error} (for a study: another --output)"
            ) from None
        wanted = _fingerprints(trial, dataset)
        if is_finished(folder, trial):
            for what, found in read_fingerprints(folder, trial).items():
                if found != wanted.get(what):
                    raise InputError(
                        f"trial {trial.name} in {folder} was trained on another {what} than the study now names; "
                        "restore the study file, the command line or the dataset, or name another --output"
                    )
        elif (trial_folder(folder, trial) / "checkpoints" / "index.json").exists():
            with contextlib.suppress(DamagedCheckpoint):  # training goes on from the one before
                find_checkpoint(str(trial_folder(folder, trial)), "latest", wanted)


def _fingerprints(trial: Trial, dataset: Dataset) -> dict[str, str]:
    found = {"dataset": dataset.fingerprint}
    if trial.config.reads_graph:
        parameters = shaping_parameters(trial.config.graph_options)
        what = "graph" if trial.config.trains_on_graph else RANKING_GRAPH
        found[what] = graph_fingerprint(dataset.fingerprint, parameters, trial.graph_seed)
    return found


@contextlib.contextmanager
def held(folder: Path, study: Study) -> Iterator[None]:
    """The study's folder, made, marked as one, and this process's alone.

    Raises:
        InputError: it cannot be made, or another process works on it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({error.strerror}); name another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--output {folder}: another process works on this study; wait for it") from None
        write_text(folder / _MARK, f"# {study.title}\nbase: {study.base}\n")
        yield


def check_study_folder(folder: Path) -> None:
    """Whether a study may be in this folder.

    Raises:
        InputError: it is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; name a folder")
    if folder.exists() and not (folder / _MARK).exists():
        foreign = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
        if foreign:
            raise InputError(
                f"--output {folder}: holds {foreign[0]} and no {_MARK}, so it is no study; name a new folder"
            )


def build_graphs(trials: Sequence[Trial], dataset: Dataset, executor: Executor) -> None:
    """Each graph that some trial needs, once; finished ones are checked and kept.

    Raises:
        InputError: see `graph_builder.build.build_graph`; names the first trial that needs the graph.
    """
    for graph, trial in {trial.config.graph: trial for trial in reversed(trials)}.items():
        if graph is None:
            continue
        try:
            build_graph(dataset, graph, trial.config.graph_options, trial.graph_seed, executor)
        except InputError as error:
            raise InputError(f"trial {trial.name}, its graph: {error}") from None


def check_variants(trials: Sequence[Trial], device: str | None) -> None:
    """What training would refuse of a variant, refused before any trial starts; graphs are built.

    Raises:
        InputError: see `distributed.training.trainer.check_trainable`; names the trial.
    """
    for trial in {trial.variant: trial for trial in reversed(trials)}.values():
        try:
            check_trainable(trial.config, open_inputs(trial.config), device)
        except InputError as error:
            raise InputError(f"trial {trial.name}: {error}") from None


def _train(
    trials: Sequence[Trial], folder: Path, executor: TrialExecutor, report: Callable[[], object]
) -> list[Outcome]:
    """Train the trials, report after each, and return what did not finish."""
    failures = folder / "failures"
    unfinished = []
    jobs = [
        Job(trial=t.name, config=t.config.model_dump(mode="json"), threads=executor.threads, use_gpu=executor.use_gpu)
        for t in trials
    ]
    for number, outcome in enumerate(executor.run_trials(jobs), start=1):
        note = failures / f"{outcome.trial}.txt"
        note.unlink(missing_ok=True)
        if outcome.state != "finished":
            unfinished.append(outcome)
        if outcome.state == "failed":
            failures.mkdir(exist_ok=True)
            write_text(note, outcome.traceback or outcome.error + "\n")
        print(f"{number} of {len(jobs)}: trial {outcome.trial} {outcome.state}", flush=True)
        report()
    return unfinished
