"""A run that is interrupted or stopped at any step ends with the same result as an undisturbed run."""

import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.errors import InputError
from distributed import stop_agreement as interruption
from distributed.checkpoints.contents import losses_of_rank, make_optimizer_state, state_of
from distributed.checkpoints.index import steps_in
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import SAMPLED, config_of, records, weights

STEPS = ("training.checkpoint_steps=3",)


class Broken(Exception):
    """Stands for the loss of a process: no code after it runs."""


def breaking(after: int):
    """Return a track that raises after so many items (steps, and rounds of rankings)."""

    def track(loop, total, label):  # noqa: ARG001
        nonlocal after
        for item in loop:
            yield item
            after -= 1
            if after == 0:
                raise Broken

    return track


class Immediately:
    """Stands for the thread that writes checkpoints; writes each checkpoint before the next step begins."""

    def __init__(self, *_, **__):
        pass

    def submit(self, write, *arguments):
        written = Future()
        try:
            written.set_result(write(*arguments))
        except Exception as error:
            written.set_exception(error)
        return written


@pytest.fixture
def written_at_once(monkeypatch):
    monkeypatch.setattr("distributed.checkpoints.saving.ThreadPoolExecutor", Immediately)


@pytest.fixture(scope="module")
def undisturbed(folders, tmp_path_factory):
    """An undisturbed run of SASRec, which tests only read: its folder and its final metrics."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with world_of_one() as world:
        return run, train(config_of(folders, run, "sasrec"), world)


@pytest.fixture(scope="module")
def broken_off(folders, tmp_path_factory):
    """The same run, interrupted in its step 8: its folder, with checkpoints of steps 3 and 6. Tests copy it."""
    run = tmp_path_factory.mktemp("broken-off") / "run"
    with pytest.MonkeyPatch.context() as patch, world_of_one() as world:
        patch.setattr("distributed.checkpoints.saving.ThreadPoolExecutor", Immediately)
        with pytest.raises(Broken):
            train(config_of(folders, run, "sasrec", *STEPS), world, breaking(8))
    return run


def train_until_done(config, breaks):
    """Train in several attempts, each interrupted but the last; return the result of the last."""
    for after in breaks:
        with world_of_one() as world, pytest.raises(Broken):
            train(config, world, breaking(after))
    with world_of_one() as world:
        return train(config, world)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("mdsrec", ("table.sharding=row_wise", *SAMPLED)),
        ("sasrec", ("table.sharding=data_parallel", "training.loader_workers=1")),
        ("unisrec", ("model.unisrec.use_ids=false",)),  # no item table; the gate has noise
        pytest.param(
            "unisrec", ("model.unisrec.use_ids=false", "model.unisrec.objective=contrastive"), marks=pytest.mark.slow
        ),
        pytest.param("msm4sr", ("model.msm4sr.objective=contrastive",), marks=pytest.mark.slow),
        pytest.param(
            "missrec", ("model.missrec.use_ids=false", "model.missrec.objective=contrastive"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_that_broke_off_ends_as_one_that_did_not(folders, tmp_path, model, more):
    straight = config_of(folders, tmp_path / "straight", model, *more)
    with world_of_one() as world:
        whole = train(straight, world)
    config = config_of(folders, tmp_path / "broken", model, *STEPS, *more)
    found = train_until_done(config, (4, 5, 9, 1, 20))
    # Dropout and gate noise are on, and losses are summed over attempts: no step may be lost or counted twice.
    assert records(tmp_path / "broken") == records(tmp_path / "straight")
    assert found["test"] == whole["test"]
    assert found["details"] == whole["details"]
    for one, other in zip(*(weights(c.run, c).items() for c in (straight, config)), strict=True):
        assert torch.equal(one[1], other[1]), one[0]


@pytest.mark.long
@pytest.mark.usefixtures("written_at_once")
def test_a_run_continues_from_a_checkpoint_without_losses_of_channels(folders, tmp_path, monkeypatch, undisturbed):
    """The epoch of the checkpoint gets the whole loss, but not those of channels. Later epochs get both."""
    broken = config_of(folders, tmp_path / "broken", "sasrec", *STEPS)

    def earlier(*arguments):
        found = state_of(*arguments).items()
        return {name: value for name, value in found if not name.startswith("channel_losses")}

    with monkeypatch.context() as patch, world_of_one() as world:
        patch.setattr("distributed.checkpoints.saving.state_of", earlier)
        with pytest.raises(Broken):
            train(broken, world, breaking(5))
    assert steps_in(tmp_path / "broken/checkpoints") == [3]
    with world_of_one() as world:
        train(broken, world)
    whole, found = records(undisturbed[0]), records(tmp_path / "broken")
    assert all("loss_by_channel" in record for record in whole)
    assert "loss_by_channel" not in found[0]
    assert found == [{k: v for k, v in whole[0].items() if k != "loss_by_channel"}, *whole[1:]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_losses_of_an_interrupted_epoch_are_summed_on_another_number_of_ranks(ranks):
    stored = {
        **{f"loss/{rank}": torch.tensor(1.5 + rank, dtype=torch.float64) for rank in range(2)},
        **{f"channel_losses/{rank}": torch.tensor([1.0, rank], dtype=torch.float64) for rank in range(2)},
    }
    found = [losses_of_rank(stored, 2, rank, ranks) for rank in range(ranks)]
    assert np.sum(found, axis=0).tolist() == [4.0, 2.0, 1.0]
    if ranks == 2:
        assert found == [(1.5, 1.0, 0.0), (2.5, 1.0, 1.0)]
    else:
        assert not any(map(any, found[1:]))


@pytest.mark.parametrize("at_end", [False, True], ids=["within", "at the end of an epoch"])
def test_a_stop_takes_effect_after_the_next_step_and_loses_no_step(folders, tmp_path, monkeypatch, undisturbed, at_end):
    monkeypatch.setattr(interruption, "_LOOK_EVERY", -1.0)
    straight, whole = undisturbed
    run = tmp_path / "stopped"
    config = config_of(folders, run, "sasrec")

    steps = []

    def asking(loop, total, label):  # noqa: ARG001
        steps.append(total)
        for number, item in enumerate(loop):
            if number == (total - 1 if at_end else 4):
                (run / "stop").touch()
            yield item

    with world_of_one() as world:
        assert train(config, world, asking) is None
    assert len(steps) == 1  # training stopped without a ranking
    assert (run / "stopped").exists()
    assert not (run / "stop").exists()
    assert not (run / "metrics.json").exists()
    assert json.loads((run / "checkpoints/index.json").read_text())["latest"] == (steps[0] if at_end else 5)
    with world_of_one() as world:
        assert train(config, world)["details"] == whole["details"]
    assert records(run) == records(straight)


def test_one_checkpoint_is_written_before_a_machine_is_taken_away(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "_ASK_EVERY", -1.0)
    config = config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1", "training.keep_checkpoints=9")
    asked = []

    def is_leaving():
        asked.append(1)
        return len(asked) >= 3

    with world_of_one() as world:
        train(config, world, is_leaving=is_leaving)
    steps = sorted(int(path.name[5:]) for path in (tmp_path / "run/checkpoints").glob("step-*"))
    assert steps[0] == 3
    assert len(steps) == 2  # this one and the one after the epoch
    assert len(asked) == 3


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:-7])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "cut", "one bit", "progress"])
@pytest.mark.usefixtures("written_at_once")
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    folders, tmp_path, capsys, undisturbed, broken_off, how
):
    straight, whole = undisturbed
    config = config_of(folders, tmp_path / "run", "sasrec", *STEPS)
    shutil.copytree(broken_off, tmp_path / "run")
    folder = tmp_path / "run/checkpoints/step-00000006"
    file = folder / "progress.json" if how == "progress" else next(folder.glob("*.safetensors"))
    damage(file, "cut" if how == "progress" else how)
    capsys.readouterr()
    with world_of_one() as world:
        found = train(config, world)
    said = capsys.readouterr().out
    assert f"warning: checkpoint {folder}: {file.name}" in said
    assert "continuing from step 3" in said
    assert found["details"] == whole["details"]
    assert records(tmp_path / "run") == records(straight)


def saved(run, config, moments):
    """Make a run folder with checkpoints of the given steps, each with the step that was the best at its time."""
    with world_of_one() as world:
        inputs = open_inputs(config)
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        make_optimizer_state(sharded)
        checkpoints = Checkpoints(str(run), world, keep=2)
        for step, best in moments:
            checkpoints.save(sharded, Progress(step=step, best_step=best))


def resumed(run, config):
    with world_of_one() as world:
        inputs = open_inputs(config)
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        checkpoints = Checkpoints(str(run), world, keep=2)
        checkpoints.bring()
        return checkpoints.resume(sharded, {})[0]


def test_the_best_that_an_earlier_checkpoint_knew_is_kept_for_it(folders, tmp_path):
    run, config = tmp_path / "run", config_of(folders, tmp_path / "run", "sasrec")
    saved(run, config, [(10, 10), (20, 10), (30, 10), (40, 40)])
    assert steps_in(run / "checkpoints") == [10, 30, 40]
    damage(next((run / "checkpoints/step-00000040").glob("*.safetensors")), "cut")
    found = resumed(run, config)
    assert (found.step, found.best_step) == (30, 10)
    shutil.rmtree(run / "checkpoints/step-00000010")
    with pytest.raises(InputError, match=r"step-00000010: progress.json cannot be read .*it is the best so far"):
        resumed(run, config)


def test_a_folder_that_cannot_be_made_is_said(folders, tmp_path):
    run, config = tmp_path / "run", config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1")
    run.mkdir()
    (run / "checkpoints").write_text("")
    with world_of_one() as world, pytest.raises(InputError, match=r"step-\d+: could not be written .*free space"):
        train(config, world)


def test_a_run_without_a_whole_checkpoint_says_so(folders, tmp_path):
    config = config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=2")
    with world_of_one() as world:
        train(config, world)
    best = json.loads((tmp_path / "run/checkpoints/index.json").read_text())["best"]
    for path in (tmp_path / "run/checkpoints").glob("step-*/*.safetensors"):
        damage(path, "one bit")
    with world_of_one() as world, pytest.raises(InputError, match=r"has no undamaged checkpoint .*SHA-256 differs"):
        train(config, world)
    from distributed.inference.evaluate import evaluate
    from distributed.inference.restore import run_config

    with world_of_one() as world, pytest.raises(InputError, match=rf"step-0*{best}: .*SHA-256 differs.*another --chec"):
        evaluate(run_config(str(tmp_path / "run")), world, "best")


@pytest.mark.long
@pytest.mark.usefixtures("written_at_once")
def test_a_full_disk_is_said_and_harms_nothing(folders, tmp_path, monkeypatch):
    config = config_of(folders, tmp_path / "run", "sasrec", *STEPS)
    with world_of_one() as world, pytest.raises(Broken):
        train(config, world, breaking(4))
    before = {p: p.read_bytes() for p in (tmp_path / "run/checkpoints").rglob("*") if p.is_file()}
    import errno

    import torch.distributed.checkpoint as dcp

    def full(*arguments, **options):  # noqa: ARG001
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dcp, "save", full)
    with (
        world_of_one() as world,
        pytest.raises(InputError, match=r"step-00000006: .*No space left on device.*free space"),
    ):
        train(config, world)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in (tmp_path / "run/checkpoints").rglob("*") if p.is_file()} == before
    with world_of_one() as world:
        train(config, world)
