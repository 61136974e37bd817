"""A loss of power at any moment: everything that a checkpoint depends on is on disk before the checkpoint."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from contracts.errors import InputError
from distributed.checkpoints.contents import make_optimizer_state
from distributed.checkpoints.index import steps_in
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import config_of
from tests.storage.disk import Disk


def test_the_record_of_an_epoch_and_all_files_are_on_disk_before_its_checkpoint_counts(folders, tmp_path, monkeypatch):
    disk, found, original = Disk(monkeypatch), [], os.replace

    def replace(source, target):
        original(source, target)
        if Path(target).name.startswith("step-"):
            epoch = json.loads((Path(target) / "progress.json").read_text())["epoch"]
            records = [json.loads(line) for line in disk.read(tmp_path / "run/metrics.jsonl").splitlines()]
            found.append((epoch, [record["epoch"] for record in records]))

    def replace_written(source, target):
        if Path(target).name.startswith("step-"):
            for file in Path(source).iterdir():
                assert disk.read(file) == file.read_bytes(), f"{file.name} is not on disk when the checkpoint counts"
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_written)
    for epochs in (2, 3):  # the second attempt rewrites the file without records of steps that it repeats
        with world_of_one() as world:
            train(config_of(folders, tmp_path / "run", "sasrec", f"training.max_epochs={epochs}"), world)
    assert found == [(1, [1]), (2, [1, 2]), (3, [1, 2, 3])]


class Killed(BaseException):
    """Stands for the end of the process."""


def opened(config, world):
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    make_optimizer_state(sharded)
    return sharded


def checkpoints_of(run, world):
    checkpoints = Checkpoints(str(run), world, keep=1)
    checkpoints.bring()
    return checkpoints


def failing(monkeypatch, owner, name, number, error):
    """Make the n-th call fail of those calls of a function that concern the checkpoint of step 10."""
    original, calls = getattr(owner, name), []

    def call(path, *more, **options):
        if "step-00000010" in Path(path).name:
            calls.append(path)
            if len(calls) == number:
                raise error
        return original(path, *more, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
    ("owner", "name", "number"), [(os, "replace", 1), (os, "replace", 2), (shutil, "rmtree", 1), (shutil, "rmtree", 2)]
)
def test_a_step_that_is_saved_again_is_whole_at_any_moment(folders, tmp_path, monkeypatch, owner, name, number):
    """A run that stopped at the last step of an epoch validates in its next attempt and saves the same step again."""
    config = config_of(folders, tmp_path / "run", "sasrec")
    with world_of_one() as world:
        sharded, checkpoints = opened(config, world), checkpoints_of(tmp_path / "run", world)
        checkpoints.save(sharded, Progress(step=10, best_step=10, epoch=0))
        with monkeypatch.context() as patch:
            failing(patch, owner, name, number, Killed())
            with contextlib.suppress(Killed):
                checkpoints.save(sharded, Progress(step=10, best_step=10, epoch=1))
        again = checkpoints_of(tmp_path / "run", world)
        assert again.exists()
        assert not list((tmp_path / "run/checkpoints").glob(".*.replaced"))
        progress, _ = again.resume(sharded, {})
        assert (progress.step, progress.epoch) in ((10, 0), (10, 1))
        again.save(sharded, Progress(step=10, best_step=10, epoch=1))
        assert again.resume(sharded, {})[0].epoch == 1
        again.save(sharded, Progress(step=20, best_step=20, epoch=2))
    assert steps_in(tmp_path / "run/checkpoints") == [20]
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["index.json", "step-00000020"]


def test_a_step_that_cannot_be_saved_again_stays_as_it_was(folders, tmp_path, monkeypatch):
    config = config_of(folders, tmp_path / "run", "sasrec")
    with world_of_one() as world:
        sharded, checkpoints = opened(config, world), checkpoints_of(tmp_path / "run", world)
        checkpoints.save(sharded, Progress(step=10, best_step=10, epoch=0))
        with monkeypatch.context() as patch:
            failing(patch, os, "replace", 2, OSError(errno.EIO, "Input/output error"))
            with pytest.raises(InputError, match=r"step-00000010: could not be written .*Input/output error"):
                checkpoints.save(sharded, Progress(step=10, best_step=10, epoch=1))
        assert checkpoints.resume(sharded, {})[0].epoch == 0
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["index.json", "step-00000010"]
