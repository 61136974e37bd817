"""Run a study: keep finished trials, build each graph once, train the other trials and write the results.

STUDY/graphs/h<H>-k<k>-<fingerprint> holds a graph, shared by all trials that need it. STUDY/trials/<variant>-s<seed> is
the run folder of a trial. STUDY/failures/<trial>.txt holds the traceback of a failed trial.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from configs.knobs import Decides
from configs.places import listed, one_or_several
from configs.schema import Config
from contracts.errors import InputError
from data.dataset import Dataset
from data.joined import RunDataset
from data.sampling.user_share import UserShare
from distributed.checkpoints.index import RANKING_GRAPH, DamagedCheckpoint, find_checkpoint
from distributed.checkpoints.run_folder import FIXED_IN_A_RUN, open_run_folder, recorded_start
from distributed.checkpoints.start import open_start
from distributed.inputs import open_dataset_of, open_inputs
from distributed.run_location import device_type
from distributed.stop_agreement import STOP_FILE
from distributed.training.trainer import check_trainable
from experiments.study.definition import Study, Trial
from experiments.study.report import write_report
from experiments.study.results import is_finished, read_fingerprints, trial_folder
from experiments.study.trials import Job, Outcome, TrialExecutor
from graph_builder.build import build_graph, check_buildable, check_centers, shaping_parameters
from graph_builder.build_inputs import OfChosenUsers
from graph_builder.executor import Executor
from graph_builder.graph import graph_fingerprint
from storage.durable_files import write_text
from storage.fingerprints import joined_digest

# A single run may be continued with more epochs, but trials of a study must have the same number of epochs.
_FIXED = FIXED_IN_A_RUN | {Decides.LENGTH}
_MARK = "study.yaml"


def run_study(
    study: Study, trials: Sequence[Trial], folder: Path, start: Callable[[Config], tuple[Executor, TrialExecutor]]
) -> list[Outcome]:
    """Train what is not finished yet, write the results after each trial, and return what is still unfinished.

    Args:
        study: the study.
        trials: from `experiments.study.definition.expand`, with their dataset.
        folder: the study's folder.
        start: called with a trial's config, but only if some trial is unfinished. Returns the executor that builds
            graphs and the executor that trains trials.

    Raises:
        InputError: a dataset, graph, config or folder cannot be used. Nothing has been trained then.
    """
    check_study_folder(folder)
    dataset = open_dataset_of(trials[0].config)
    trials = place(trials, folder, dataset)
    check_continued(trials, folder, dataset)
    pending = [trial for trial in trials if not is_finished(folder, trial)]
    if pending:
        dataset.validate()
        check_same_starts(trials, pending, folder)
    with held(folder, study):
        (folder / STOP_FILE).unlink(missing_ok=True)
        write_report(study, trials, folder)
        if not pending:
            return []
        _check_before_start(pending, dataset)
        graph_executor, trial_executor = start(pending[0].config)
        build_graphs(pending, dataset, graph_executor)
        check_variants(pending)
        return _train(pending, folder, trial_executor, lambda: write_report(study, trials, folder))


def _check_before_start(trials: Sequence[Trial], dataset: RunDataset) -> None:
    """Check, before an executor starts, the trials that need no graph, and whether the graphs can be built.

    Raises:
        InputError: a trial cannot be trained, or its graph cannot be built. The message names the trial.
    """
    device_type(trials[0].config.cluster)  # raises if the requested GPUs are not available
    check_variants([trial for trial in trials if trial.config.graph is None])
    for graph, part, trial in _graphs(trials, dataset):
        options = trial.config.graph_options
        try:
            check_buildable(part, graph, options)
            for name, facts in part.manifest["modalities"].items():
                check_centers(name, options.num_centers, facts["num_present"], part.num_items)
        except InputError as error:
            raise InputError(f"trial {trial.name}, its graph: {error}") from None


def place(trials: Sequence[Trial], folder: Path, dataset: RunDataset) -> list[Trial]:
    """Return the trials with their run folders and the folders of their graphs, one for each dataset.

    A model that reads no graph gets none.
    """
    placed = []
    for trial in trials:
        options, graphs = trial.config.graph_options, None
        if trial.config.reads_graph:
            start = folder / "graphs" / f"h{options.num_neighbors}-k{options.num_centers}"
            graphs = one_or_several([f"{start}-{fingerprint[:12]}" for fingerprint in _of_graphs(trial, dataset)])
        moved = {"run": str(trial_folder(folder, trial)), "graph": graphs}
        placed.append(replace(trial, config=trial.config.model_copy(update=moved)))
    return placed


def check_continued(trials: Sequence[Trial], folder: Path, dataset: RunDataset) -> None:
    """Check that the runs in the study's folder belong to these trials and this dataset.

    Raises:
        InputError: a run does not. The message names the first trial that differs, the knob and both values.
    """
    for trial in trials:
        try:
            open_run_folder(trial.config, _FIXED | {Decides.GRAPH} if trial.config.reads_graph else _FIXED)
        except InputError as error:
            raise InputError(
                f"trial {trial.name} differs from its run in --output: {error} (for a study: another --output)"
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
            with contextlib.suppress(DamagedCheckpoint):  # training then resumes from an earlier checkpoint
                find_checkpoint(str(trial_folder(folder, trial)), "latest", wanted)


def check_same_starts(trials: Sequence[Trial], pending: Sequence[Trial], folder: Path) -> None:
    """Check that trials that start from one run all start from the same checkpoint of it.

    Raises:
        InputError: the run has another best checkpoint than when an earlier trial started from it.
    """
    # A trial that has checkpoints continues from those and does not read the other run, which may be gone.
    new = [t for t in pending if not (trial_folder(folder, t) / "checkpoints" / "index.json").exists()]
    for run in sorted({trial.config.training.start_from or "" for trial in new} - {""}):
        now = open_start(run).fingerprint
        for trial in trials:
            recorded = None
            if trial.config.training.start_from == run:
                with contextlib.suppress(DamagedCheckpoint):  # training then resumes from an earlier checkpoint
                    recorded = recorded_start(trial_folder(folder, trial))
            if recorded not in (None, now):
                raise InputError(
                    f"trial {trial.name} in {folder} started from another checkpoint than is now the best of "
                    f"training.start_from={run}; restore that run, or name another --output"
                )


def _fingerprints(trial: Trial, dataset: RunDataset) -> dict[str, str]:
    found = {"dataset": dataset.fingerprint}
    if trial.config.reads_graph:
        what = "graph" if trial.config.trains_on_graph else RANKING_GRAPH
        found[what] = joined_digest(_of_graphs(trial, dataset))
    return found


def _of_graphs(trial: Trial, dataset: RunDataset) -> list[str]:
    """Return the fingerprint that the graph of each dataset will have."""
    parameters = shaping_parameters(trial.config.graph_options, trial.config.training.user_share)
    return [graph_fingerprint(part.fingerprint, parameters, trial.graph_seed) for part in dataset.parts]


def _graphs(trials: Sequence[Trial], dataset: RunDataset) -> list[tuple[str, Dataset, Trial]]:
    """Return each graph that trials need, once: its folder, its dataset, and the first trial that needs it."""
    first = {graphs: trial for trial in reversed(trials) if (graphs := listed(trial.config.graph))}
    return [
        (graph, part, trial)
        for graphs, trial in first.items()
        for graph, part in zip(graphs, dataset.parts, strict=True)
    ]


@contextlib.contextmanager
def held(folder: Path, study: Study) -> Iterator[None]:
    """Create the study's folder, mark it as a study, and lock it against other processes.

    Raises:
        InputError: the folder cannot be created, or another process has locked it.
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
            raise InputError(f"--output {folder}: another process works on this study; wait until it ends") from None
        write_text(folder / _MARK, f"# {study.title}\nbase: {study.base}\n")
        yield


def check_study_folder(folder: Path) -> None:
    """Check that a study may be written to this folder.

    Raises:
        InputError: the path is a file, or the folder holds files but no study.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; name a folder")
    if folder.exists() and not (folder / _MARK).exists():
        foreign = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
        if foreign:
            raise InputError(
                f"--output {folder}: holds {foreign[0]} and no {_MARK}, so it is not a study; name a new folder"
            )


def build_graphs(trials: Sequence[Trial], dataset: RunDataset, executor: Executor) -> None:
    """Build each graph that trials need, once. Finished graphs are checked and kept.

    Raises:
        InputError: as `graph_builder.build.build_graph`. The message names the first trial that needs the graph.
    """
    for graph, part, trial in _graphs(trials, dataset):
        users = UserShare(trial.config.training.user_share, trial.graph_seed)
        source = part if users.is_all else OfChosenUsers(part, users.chosen(part))
        options = trial.config.graph_options
        try:
            build_graph(source, graph, options, trial.graph_seed, executor, user_share=users.share)
        except InputError as error:
            raise InputError(f"trial {trial.name}, its graph: {error}") from None


def check_variants(trials: Sequence[Trial]) -> None:
    """Check, before any trial starts, that every variant can be trained. The graphs must be built already.

    Raises:
        InputError: as `distributed.training.trainer.check_trainable`. The message names the trial.
    """
    for trial in {trial.variant: trial for trial in reversed(trials)}.values():
        try:
            check_trainable(trial.config, open_inputs(trial.config))
        except InputError as error:
            raise InputError(f"trial {trial.name}: {error}") from None


def _train(
    trials: Sequence[Trial], folder: Path, executor: TrialExecutor, report: Callable[[], object]
) -> list[Outcome]:
    """Train the trials, call `report` after each, and return the outcomes of those that did not finish."""
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
