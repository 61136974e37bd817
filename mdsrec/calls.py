"""Five jobs as functions, for notebooks: they do what the commands do, and raise errors, not exit."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

import jobs
from configs.loading import as_override
from contracts.errors import InputError, of_missing_ray

if TYPE_CHECKING:
    from data.dataset import Dataset
    from experiments.inspection.facts import DatasetFacts
    from graph_builder.graph import Graph

# Knobs by their names, such as {"model.dim": 64}.
Settings = Mapping[str, Any]


def prepare_data(format: str, output: str, **options: Any) -> Dataset:
    """Do what `jobs/prepare_data.py` does, and return the dataset.

    Args:
        format: the format of the interactions.
        output: the dataset's folder or URI.
        options: the command's other options by name, with _ for -: `input="data.csv"`, `features={"text": "t.npy"}`,
            `min_user_interactions=3`, `overwrite=True`.

    Raises:
        InputError: what the command would print as an error.
    """
    from data.dataset import Dataset

    _call("prepare_data", {"format": format, "output": output, **options})
    return Dataset.open(output)


def inspect_data(dataset: str) -> DatasetFacts:
    """Do what `jobs/inspect_data.py` does, and return the facts that its report is made of.

    Args:
        dataset: the dataset's folder or URI.

    Raises:
        InputError: what the command would print as an error.
    """
    from jobs.inspect_data import inspected

    return inspected(dataset)


def build_graph(
    dataset: str, graph: str, *, config: str | None = None, settings: Settings | None = None, executor: str = "auto"
) -> Graph:
    """Do what `jobs/build_graph.py` does, and return the graph.

    Args:
        dataset: the dataset's folder or URI.
        graph: the graph's folder or URI.
        config: a YAML file.
        settings: knobs, such as {"graph_options.num_neighbors": 10}.
        executor: "ray" starts a Ray on this machine or joins a cluster, "serial" works in this process, on one GPU if
            there is one. "auto" is "ray" if Ray is installed.

    Raises:
        InputError: what the command would print as an error.
    """
    from distributed.inputs import open_graph

    named = {"dataset": dataset, "graph": graph}
    _call("build_graph", {"config": config, "executor": executor, "set": {**(settings or {}), **named}})
    return open_graph(graph)


def train(
    dataset: str | Sequence[str],
    run: str,
    *,
    graph: str | Sequence[str] | None = None,
    config: str | None = None,
    settings: Settings | None = None,
) -> dict[str, Any] | None:
    """Do what `jobs/train.py` does: train a run, or continue it, and evaluate its best checkpoint.

    Args:
        dataset: the dataset's folder or URI, or a list of several.
        run: the run's folder or URI.
        graph: the graph's folder or URI, or a list with that of each dataset; None if the system needs none.
        config: a YAML file.
        settings: knobs, such as {"model.name": "sasrec", "training.max_epochs": 20}.

    Returns:
        The content of RUN/metrics.json; None if training was stopped before its end.

    Raises:
        InputError: what the command would print as an error.
    """
    from distributed.checkpoints.run_storage import RunStorage

    named = {"dataset": dataset, "run": run, **({"graph": graph} if graph is not None else {})}
    try:
        _call("train", {"config": config, "set": {**(settings or {}), **named}})
    except SystemExit:  # stopped, with a checkpoint
        return None
    found: dict[str, Any] = json.loads((RunStorage(run).local / "metrics.json").read_text(encoding="utf-8"))
    return found


def evaluate(run: str, *, checkpoint: str | int = "best", settings: Settings | None = None) -> dict[str, Any]:
    """Do what `jobs/evaluate.py` does, and return the content of the file that it writes.

    Args:
        run: the run's folder or URI.
        checkpoint: "best", "latest" or a step.
        settings: knobs of evaluation, such as {"evaluation.mask_history": True}.

    Raises:
        InputError: what the command would print as an error.
    """
    from distributed.inference.evaluate import evaluation_path
    from distributed.inference.restore import run_config
    from distributed.inputs import open_inputs
    from distributed.job_paths import resolve_paths

    changed = settings or {}
    _call("evaluate", {"run": run, "checkpoint": str(checkpoint), "set": changed})
    config = resolve_paths(run_config(run, [as_override(*one) for one in changed.items()], str(checkpoint)))
    path = evaluation_path(config, str(checkpoint), open_inputs(config))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _call(verb: str, options: Mapping[str, Any]) -> None:
    """Run a job in this process with its options by name."""
    command: click.Command = import_module(f"{jobs.__name__}.{verb}").main
    arguments = [part for name, value in options.items() for part in _arguments(command, name, value)]
    try:
        context = command.make_context(verb, arguments)
    except click.UsageError as error:
        raise InputError(error.format_message()) from None
    assert command.callback is not None
    with context:
        # The function inside of `jobs.cli.job`, which would print an error and exit.
        try:
            command.callback.__wrapped__(**context.params)  # type: ignore[attr-defined]
        except ModuleNotFoundError as error:
            raise of_missing_ray(error) or error from None


def _arguments(command: click.Command, name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    known = {option for param in command.params for option in param.opts}
    if flag not in known:
        close = difflib.get_close_matches(flag, sorted(known), n=1)
        hint = (
            f"did you mean {close[0][2:].replace('-', '_')}?" if close else f"`mdsrec {command.name} --help` lists them"
        )
        raise InputError(f"{name}: is not an option of this function; {hint}")
    if value is None or value is False:
        off = next((param.secondary_opts for param in command.params if flag in param.opts), [])
        return off[:1] if value is False else []
    if value is True:
        return [flag]
    if isinstance(value, Mapping):
        return [part for key, one in value.items() for part in (flag, as_override(key, one))]
    values = value if isinstance(value, list | tuple) else [value]
    return [part for one in values for part in (flag, str(one))]
