"""Finding a checkpoint by its role or step, and errors in progress records and the index, without any tensor."""

import json
from dataclasses import asdict

import pytest

from contracts.errors import InputError
from distributed.checkpoints.index import DamagedCheckpoint, find_checkpoint, step_folder, steps_in, steps_of
from distributed.checkpoints.progress import Progress


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of steps 9, 10 and 200, of which 10 is the best."""
    for step in (9, 10, 200):
        write(tmp_path, step, Progress(step=step, best_step=10, fingerprints={"dataset": "d", "graph": "g"}))
    index(tmp_path, {"latest": 200, "best": 10})
    return tmp_path


def write(run, step, progress):
    folder = step_folder(run / "checkpoints", step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").write_text(json.dumps(asdict(progress)))


def index(run, content):
    (run / "checkpoints/index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("which", "step"), [("latest", 200), ("best", 10), ("9", 9), ("010", 10)])
def test_a_checkpoint_is_found_by_its_role_or_step(run, which, step):
    path, progress = find_checkpoint(str(run), which, {"dataset": "d"})
    assert (path, progress.step) == (run / f"checkpoints/step-{step:08d}", step)


def test_names_of_folders_are_what_they_always_were(tmp_path):
    assert step_folder(tmp_path, 670) == tmp_path / "step-00000670"
    assert step_folder(tmp_path, 10**9) == tmp_path / "step-1000000000"


def test_steps_are_ascending_numbers_and_nothing_else(run):
    names = ["step-00000200", "step-9", "step-1000000000", "step-00000010", "step-", "step-1a", "step-1.old", "step-²"]
    assert steps_of([*names, ".step-00000007.1.unfinished", "other-3"]) == [9, 10, 200, 10**9]
    (run / "checkpoints/.step-00000007.1.unfinished").mkdir()
    (run / "checkpoints/step-copy").mkdir()
    assert steps_in(run / "checkpoints") == [9, 10, 200]


@pytest.mark.parametrize("which", ["11", "newest", "9x", "-9", "", "٩"])
def test_another_name_is_refused_with_those_there_are(run, which):
    with pytest.raises(InputError, match=r"name latest, best, or one of the steps \[9, 10, 200\]") as refused:
        find_checkpoint(str(run), which, {})
    assert not isinstance(refused.value, DamagedCheckpoint)


def test_there_is_no_best_before_the_first_validation(run):
    index(run, {"latest": 200, "best": None})
    with pytest.raises(InputError, match=r"--checkpoint best: run .* was not validated yet"):
        find_checkpoint(str(run), "best", {})
    assert find_checkpoint(str(run), "latest", {})[1].step == 200


@pytest.mark.parametrize("step", [10, 300])
def test_a_folder_of_another_step_is_damaged(run, step):
    write(run, 200, Progress(step=step))
    with pytest.raises(DamagedCheckpoint, match=rf"its step is {step}, but its folder is of step 200"):
        find_checkpoint(str(run), "latest", {})


def test_a_latest_whose_folder_is_gone_is_damaged(run):
    """Training then continues from the checkpoint before it, so the error must not be that of a wrong name."""
    index(run, {"latest": 201, "best": 10})
    with pytest.raises(DamagedCheckpoint, match=r"step-00000201: progress\.json cannot be read"):
        find_checkpoint(str(run), "latest", {})


@pytest.mark.parametrize(
    ("fingerprints", "said"),
    [({"dataset": "e"}, "dataset d, but the given dataset is e"), ({"other": "x"}, "other none")],
)
def test_other_inputs_are_refused(run, fingerprints, said):
    with pytest.raises(InputError, match=rf"was trained on {said}"):
        find_checkpoint(str(run), "latest", fingerprints)


@pytest.mark.parametrize("latest", [-1, 2**63, "200", None, 1.0])
def test_an_index_with_what_is_no_step_is_refused(run, latest):
    index(run, {"latest": latest, "best": 10})
    with pytest.raises(InputError, match=r"index\.json: cannot be read .*latest.*steps of \[9, 10, 200\]"):
        find_checkpoint(str(run), "best", {})
