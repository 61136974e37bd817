"""Trainings on a real Ray cluster of two nodes, which lose workers, nodes and drivers."""

import json

import pytest

from benchmarks.faults import (
    Strike,
    Trial,
    add_node,
    interrupt_driver,
    kill_worker,
    make_inputs,
    take_node,
)

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disturbed_training_ends_as_an_undisturbed_one(inputs, two_nodes):
    calm, struck = (Trial(inputs, "mdsrec", name, two_nodes) for name in ("calm", "struck"))
    calm.run([])
    struck.run([Strike("Ctrl-C", 9, interrupt_driver), Strike("worker", 31, kill_worker, delay=0.1)])
    assert struck.outcome.commands == 2
    log = (struck.folder / "log.txt").read_text()
    assert "stopped, with a checkpoint of the latest step" in log
    assert "starting again from the latest checkpoint, restart 1 of 10 (cluster.max_failures)" in log
    assert struck.result() == calm.result()
    assert struck.coverage() == calm.coverage() == (0, 0)
    # Check that the comparison and the count of windows are able to fail.
    trace = min(struck.traces.iterdir())
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join(lines[1:]) + "\n")
    assert struck.coverage()[0] > 0
    trace.write_text("\n".join([lines[0], *lines]) + "\n")
    assert struck.coverage()[1] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_shrinks_when_a_node_leaves_and_grows_when_one_comes(inputs, two_nodes):
    elastic = (
        "cluster.num_workers=[1,2]",
        "cluster.resize_seconds=3",
        "training.max_epochs=60",
        "training.patience=60",
    )
    trial = Trial(inputs, "sasrec", "elastic", two_nodes, elastic)
    trial.run([Strike("node leaves", 20, take_node), Strike("node comes", 40, add_node, ranks=1)])
    attempts: dict[str, int] = {}
    for path in sorted(trial.traces.iterdir()):
        attempts[path.name.split("-")[0]] = attempts.get(path.name.split("-")[0], 0) + 1
    assert list(attempts.values()) == [2, 1, 2]
    assert trial.coverage() == (0, 0)
    assert json.loads((trial.folder / "run/metrics.json").read_text())["epochs"] == 60
