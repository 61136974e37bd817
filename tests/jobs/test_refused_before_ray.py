"""Mistakes are refused before Ray starts, since starting takes half a minute. Here every way to start Ray fails."""

import shlex

import pytest
import ray
from click.testing import CliRunner

from configs.loading import load_config
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare
from tests.jobs.bad_input.case import JOBS, message_of
from tests.jobs.bad_input.world import GRAPH_SETTINGS, make_world

_STUDY = """base: configs/demo.yaml
title: t
seeds: [0]
variants: {one: {model.dropout: 0.1}}
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the inputs of tests/jobs/bad_input, and with a dataset and graph without features."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    (folder / "study.yaml").write_text(_STUDY)
    plain = prepare("table", str(folder / "plain"), str(folder / "raw.parquet"))
    build_graph(plain, folder / "plain-graph", load_config(None, GRAPH_SETTINGS).graph_options, 0, SerialExecutor())
    return folder


TRAIN = "train --set dataset={here}/dataset --set graph={here}/graph --set run={here}/new --set cluster.num_workers=2"
STUDY = "study --study {here}/study.yaml --set dataset={here}/dataset --output {here}/study"
STUDY += " --set graph_options.num_centers=3"
BUILD = "build_graph --set dataset={here}/dataset --set graph={here}/new --set graph_options.num_centers=3"
ROWS = "--set table.sharding=row_wise --set table.optimizer=adam"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (f"{TRAIN} --set model.mdsrec.modalities=[sound]", "'sound'"),
        (f"{TRAIN} {ROWS}", "not for a row_wise table"),
        (f"{TRAIN} {ROWS} --set cluster.use_gpu=false", "not for a row_wise table"),
        (f"{TRAIN} --set cluster.use_gpu=true", "cluster.use_gpu=true: this machine has 0 GPUs that torch can use"),
        (f"{TRAIN} --set cluster.use_gpu=true --set cluster.num_workers=1", "this machine has 0 GPUs"),
        ("evaluate --run {here}/run --set cluster.use_gpu=true", "this machine has 0 GPUs"),
        (
            "recommend --run {here}/run --output {here}/r.parquet --set cluster.use_gpu=true",
            "this machine has 0 GPUs",
        ),
        (f"{BUILD} --set graph_options.cpus_per_task=999", "graph_options.cpus_per_task=999: this machine has"),
        (f"{BUILD} --set graph_options.num_centers=9999", "graph_options.num_centers=9999: only"),
        (f"{BUILD.replace('/new', '/unisrec')}", "which no graph has"),
        (f"{STUDY} --cpus-per-trial 999", "--cpus-per-trial 999: this machine has"),
        (f"{STUDY} --set model.name=sasrec {ROWS}", "not for a row_wise table"),
        (f"{STUDY} --set cluster.use_gpu=true", "this machine has 0 GPUs"),
        (f"{STUDY} --set graph_options.num_centers=9999", "graph_options.num_centers=9999: only"),
        ("train --set dataset={here}/plain --set graph={here}/plain-graph --set run={here}/new", "has no modality"),
    ],
)
def test_refused_before_ray_starts(here, command, expected, monkeypatch):
    def forbidden(*_arguments, **_options):
        raise AssertionError("Ray was started")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    name, *arguments = shlex.split(command.format(here=here))
    result = CliRunner().invoke(JOBS[name], arguments)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert expected in message_of(result.output)
