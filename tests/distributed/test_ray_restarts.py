"""When the driver starts lost workers again. Ray is replaced here; test_ray_training.py kills real workers."""

import pytest
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from configs.loading import load_config
from distributed.checkpoints.run_storage import RunStorage
from distributed.rank_task import RankError
from distributed.ray import launch as ray_train

pytestmark = pytest.mark.long  # the first test of a process waits for Ray Train's import

LOST = WorkerGroupError("lost", {1: ConnectionError("the actor died"), 0: RuntimeError("connection\nclosed by peer")})


class Attempts:
    """Stands for Ray Train: attempts end with the given errors; None: without an error."""

    def __init__(self, *ends):
        self.ends, self.count = list(ends), 0

    def __call__(self, *_arguments):
        return self

    def fit(self):
        self.count += 1
        if (end := self.ends.pop(0)) is not None:
            raise end


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a task whose attempts end with the given errors, and returns the number of attempts."""
    monkeypatch.setattr(ray_train.time, "sleep", lambda _: None)
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    monkeypatch.setenv("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")

    def attempts(task, max_failures, *ends):
        made = Attempts(*ends)
        monkeypatch.setattr(ray_train, "_trainer", made)
        config = load_config(None, [f"run={tmp_path}/run", f"cluster.max_failures={max_failures}"])
        try:
            ray_train.run_on_ray(task, config, RunStorage(config.run))
        finally:
            attempts.count = made.count

    return attempts


def test_lost_workers_are_started_again_as_often_as_allowed(run, capsys):
    run("train", 2, LOST, LOST, None)
    assert run.count == 3
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "lost workers (rank 0: RuntimeError: connection closed by peer; rank 1: ConnectionError: the actor died); "
        "starting again from the latest checkpoint, restart 1 of 2 (cluster.max_failures)"
    )
    assert "restart 2 of 2" in second
    with pytest.raises(RankError, match=r"^workers were lost, .* cluster\.max_failures=1 allows$") as caught:
        run("train", 1, LOST, LOST)
    assert run.count == 2
    assert "Training failed due to worker errors" in caught.value.report


@pytest.mark.slow
def test_without_a_limit_they_are_started_again_each_time(run):
    run("train", -1, *[LOST] * 7, None)
    assert run.count == 8


def test_an_error_of_a_rank_ends_the_task_also_beside_lost_peers(run, capsys):
    own = RankError("ValueError: ours", "rank 1: ...", False)
    with pytest.raises(RankError, match="ours") as caught:
        run("train", 5, WorkerGroupError("failed", {0: RuntimeError("connection closed"), 1: own}))
    assert caught.value is own
    assert run.count == 1
    assert capsys.readouterr().out == ""


def test_evaluation_is_not_started_again(run):
    with pytest.raises(RankError, match=r"^workers were lost; repeat the command$"):
        run("evaluate", 5, LOST)
    assert run.count == 1


def test_an_error_of_rays_controller_ends_the_task(run):
    with pytest.raises(RankError, match=r"^Ray Train failed: ControllerError: .*no room$"):
        run("train", 5, ControllerError(OSError("no room")))
    assert run.count == 1
