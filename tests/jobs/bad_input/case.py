"""A case of bad input, and how a test runs its command."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner

from configs.schema import ClusterConfig
from distributed.inference.evaluate import evaluate as evaluate_run
from distributed.inference.recommend import recommend as recommend_from_run
from distributed.ray.cluster import connect
from distributed.world import world_of_one
from graph_builder.executor import SerialExecutor
from jobs import (
    build_graph,
    build_index,
    case_study,
    compare,
    config,
    demo,
    encode_items,
    evaluate,
    export,
    inspect_data,
    knobs,
    prepare_data,
    recommend,
    study,
    train,
)
from tests.fingerprints import differing, fingerprints

JOBS = {
    "prepare_data": prepare_data.main,
    "encode_items": encode_items.main,
    "inspect_data": inspect_data.main,
    "build_graph": build_graph.main,
    "build_index": build_index.main,
    "train": train.main,
    "evaluate": evaluate.main,
    "recommend": recommend.main,
    "export": export.main,
    "study": study.main,
    "compare": compare.main,
    "case_study": case_study.main,
    "demo": demo.main,
    "knobs": knobs.main,
    "config": config.main,
}
SHOWN_FOLDER = "/data"


def nothing(_here: Path) -> None:
    """Damage nothing: the files are right, and the command is wrong."""


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        what: the mistake in plain words, for the table; no two cases have the same.
        command: the command; `{here}` is the folder with the inputs (`world.make_world`).
        damage: damages the inputs before the command runs.
        environment: environment variables of the command.
    """

    what: str
    command: str
    damage: Callable[[Path], None] = field(default=nothing)
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Group:
    """Cases under one heading of the table."""

    title: str
    cases: tuple[Case, ...]


def run_case(case: Case, here: Path) -> tuple[int, str]:
    """Damage the inputs and run the command; return its exit status and its standard error.

    The text has `SHOWN_FOLDER` for `here`. A job may have printed lines about its progress to standard output
    before. An exception other than an exit is raised, since a person would see a traceback.
    """
    case.damage(here)
    before = fingerprints(here)
    name, *arguments = shlex.split(case.command.format(here=here))
    result = CliRunner().invoke(JOBS[name], arguments, env=dict(case.environment))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    changed = differing(before, fingerprints(here))
    assert not changed, f"the command changed files: {changed}"
    shown = result.stderr.replace(str(here), SHOWN_FOLDER)
    return result.exit_code, re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "<fingerprint>", shown)


def message_of(output: str) -> str:
    """Return the line that says what is wrong. Click prints its own such line below the command's usage."""
    lines = output.strip().splitlines()
    if lines[0].startswith("Usage: "):
        return lines[-1]
    assert len(lines) == 1, output
    assert re.match("error: ", lines[0]), output
    return lines[0]


@contextmanager
def without_a_cluster() -> Iterator[None]:
    """Run jobs in this process within the block: without Ray, with one rank, and without training."""
    stand_ins = {
        "jobs.ray_build.connect": _join_only,
        "jobs.ray_build.check_seen_by_all_nodes": lambda _folder, _what: None,
        "jobs.ray_build.RayExecutor": lambda _options: SerialExecutor(),
        "jobs.train.run_on_workers": _one_rank,
        "jobs.study.connect": _no_study,
        "jobs.evaluate.run_on_workers": _one_rank,
        "jobs.recommend.run_on_workers": _one_rank,
    }
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch(name, stand_in))
        stack.enter_context(mock.patch.dict(os.environ))
        os.environ.pop("RAY_ADDRESS", None)
        yield


def _join_only(cluster: ClusterConfig) -> None:
    """Stand for `connect`: connect to the given address, but start no Ray cluster if there is none."""
    if cluster.address or os.environ.get("RAY_ADDRESS"):
        connect(cluster)


def _no_study(_cluster: ClusterConfig) -> None:
    raise AssertionError("nothing was wrong with the input: trials would begin")


def _one_rank(task: str, config: Any, **arguments: Any) -> None:
    _join_only(config.cluster)
    assert task != "train", "the input was accepted, and training would begin"
    with world_of_one() as world:
        {"evaluate": evaluate_run, "recommend": recommend_from_run}[task](config, world, **arguments)
