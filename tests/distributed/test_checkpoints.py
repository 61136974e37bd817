"""Guarantees of a run's checkpoints. Ranks are threads here: no process group and no process is started."""

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
import torch

from contracts.errors import InputError
from distributed.checkpoints import saving as checkpoint
from distributed.checkpoints.contents import find_damage, make_optimizer_state, state_of
from distributed.checkpoints.index import find_checkpoint, steps_in
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints, _Pending
from distributed.world import World, world_of_one
from storage.fingerprints import file_digest
from tests.distributed.test_sharding import build, config_of


@dataclass(frozen=True)
class Threads(World):
    """A rank that is a thread; `shared` holds the values that ranks exchange."""

    shared: dict = field(default_factory=dict)

    def barrier(self):
        self.shared["barrier"].wait()

    def gather(self, value):
        self.shared[self.rank] = json.dumps(value)
        self.barrier()
        values = [json.loads(self.shared[rank]) for rank in range(self.size)]
        self.barrier()
        return values


def on_threads(size, function):
    """Call function(World) on `size` ranks at once, and return the result of each."""
    shared = {"barrier": threading.Barrier(size, timeout=30)}
    worlds = [Threads(rank, size, torch.device("cpu"), shared) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return [done.result() for done in [pool.submit(function, world) for world in worlds]]


def finish_by_hand(run, step):
    """Return a function with which each rank writes its own file and then finishes the checkpoint."""

    def finish(world):
        checkpoints = Checkpoints(str(run), world)
        progress = Progress(step=step, best_step=step)
        aside = checkpoints._aside(progress)
        file = aside / f"shard-{world.rank + 1:05d}.safetensors"
        file.write_text(f"of rank {world.rank}")
        written = Future()
        written.set_result({file.name: file_digest(file)})
        checkpoints._pending = _Pending(aside, progress, written)
        checkpoints.finish()
        return aside

    return finish


def test_a_checkpoint_knows_the_files_and_the_number_of_its_ranks(tmp_path):
    left = tmp_path / "checkpoints/.step-00000003.1.unfinished"
    left.mkdir(parents=True)
    asides = on_threads(3, finish_by_hand(tmp_path, 5))
    assert len(set(asides)) == 1, "all ranks write to one folder"
    path, progress = find_checkpoint(str(tmp_path), "latest", {})
    assert progress.world == 3
    files = [f"shard-{rank:05d}.safetensors" for rank in (1, 2, 3)]
    assert progress.files == {name: file_digest(path / name) for name in files}
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["index.json", "step-00000005"]


@pytest.mark.parametrize("damaged", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_file_is_checked_by_some_rank_and_all_ranks_hear_of_it(tmp_path, damaged, size):
    on_threads(4, finish_by_hand(tmp_path, 5))
    path, progress = find_checkpoint(str(tmp_path), "latest", {})
    (path / f"shard-{damaged:05d}.safetensors").write_text("of nobody")
    said = on_threads(size, lambda world: find_damage(path, progress, world))
    expected = f"{path}: shard-{damaged:05d}.safetensors is damaged (SHA-256 differs from progress.json)"
    assert said == [expected] * size


@pytest.fixture
def world():
    with world_of_one() as one:
        yield one


def built(world, **changes):
    config = config_of("sasrec", "data_parallel", "adam")
    sharded, _, _ = build(config.model_copy(update=changes), world)
    make_optimizer_state(sharded)
    return sharded


def values_of(sharded):
    return {key: value.clone() for key, value in sharded.system.state_dict().items()}


def test_a_checkpoint_is_of_the_moment_it_was_started(tmp_path, world, monkeypatch):
    """Training continues while a checkpoint is written. It must contain no weights and no progress of later steps."""
    sharded, checkpoints, begin = built(world), Checkpoints(str(tmp_path), world), threading.Event()
    original = checkpoint.write_tensors
    monkeypatch.setattr(checkpoint, "write_tensors", lambda *given: (begin.wait(30), original(*given))[1])
    before, progress = values_of(sharded), Progress(step=5, best_step=None, epoch_steps=5)
    checkpoints.start(sharded, progress, losses=(2.5,))
    assert checkpoints.is_pending
    assert checkpoints.is_writing
    progress.step, progress.epoch_steps = 6, 6
    with torch.no_grad():
        for value in sharded.dense_parameters:
            value.add_(1)
    begin.set()
    checkpoints.finish()
    found, losses = checkpoints.load("latest", sharded, {})
    assert (found.step, found.epoch_steps, losses) == (5, 5, (2.5,))
    after = values_of(sharded)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_checkpoint_that_is_being_written_is_finished_before_the_next(tmp_path, world):
    sharded, checkpoints = built(world), Checkpoints(str(tmp_path), world)
    checkpoints.start(sharded, Progress(step=1, best_step=1))
    checkpoints.start(sharded, Progress(step=2, best_step=1))
    checkpoints.save(sharded, Progress(step=3, best_step=1))
    assert not checkpoints.is_pending
    assert steps_in(tmp_path / "checkpoints") == [1, 2, 3]
    index = json.loads((tmp_path / "checkpoints/index.json").read_text())
    assert index == {"latest": 3, "best": 1}
    assert checkpoints.resume(sharded, {})[0].step == 3


@pytest.mark.parametrize(("keep", "left"), [(1, [40]), (2, [10, 30, 40]), (3, [10, 20, 30, 40])])
def test_the_latest_are_kept_and_the_best_that_each_of_them_knew(tmp_path, world, keep, left):
    sharded, checkpoints = built(world), Checkpoints(str(tmp_path), world, keep=keep)
    for step, best in [(10, 10), (20, 10), (30, 10), (40, 40)]:
        checkpoints.save(sharded, Progress(step=step, best_step=best))
    assert steps_in(tmp_path / "checkpoints") == left


def test_losses_of_an_epoch_under_way_are_counted_once_on_another_number_of_ranks(tmp_path, world, monkeypatch):
    sharded = built(world)
    assert "loss/4" in state_of(sharded, (1.0,), rank=4)
    others = {f"loss/{rank}": torch.tensor(0.25 * rank, dtype=torch.float64) for rank in (1, 2)}
    monkeypatch.setattr(checkpoint, "state_of", lambda *given: {**state_of(*given), **others})
    Checkpoints(str(tmp_path), world).save(sharded, Progress(step=5, best_step=5), losses=(1.0,))
    monkeypatch.undo()
    path, _ = find_checkpoint(str(tmp_path), "latest", {})
    progress = json.loads((path / "progress.json").read_text())
    for wrote, rank, loss in [(3, 0, 1.75), (3, 1, 0.0), (1, 0, 1.0)]:
        (path / "progress.json").write_text(json.dumps({**progress, "world": wrote}))
        assert Checkpoints(str(tmp_path), replace(world, rank=rank)).load("latest", sharded, {})[1] == (loss,)


def test_weights_alone_leave_the_optimisers_as_they_are(tmp_path, world):
    sharded, checkpoints = built(world), Checkpoints(str(tmp_path), world)
    checkpoints.save(sharded, Progress(step=5, best_step=5))
    states = [x for state in sharded.optimizer.states().values() for x in state.values()]
    for value in states:
        value.fill_(3)
    checkpoints.load("best", sharded, {}, weights_only=True)
    assert all(bool((value == 3).all()) for value in states)
    checkpoints.load("best", sharded, {})
    found = [x for state in sharded.optimizer.states().values() for x in state.values()]
    assert not any(bool((value == 3).all()) for value in found)


def test_what_could_not_be_written_leaves_no_folder(tmp_path, world, monkeypatch):
    sharded, checkpoints = built(world), Checkpoints(str(tmp_path), world)
    checkpoints.save(sharded, Progress(step=1, best_step=1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(InputError, match=r"step-00000002: could not be written .*No space left on device"):
        checkpoints.save(sharded, Progress(step=2, best_step=1))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["index.json", "step-00000001"]
