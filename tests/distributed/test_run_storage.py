"""Runs in object storage, against a real S3 server, with checkpoint folders of a few bytes."""

import json
from pathlib import Path

import pytest

from contracts.errors import InputError
from distributed.checkpoints.run_storage import RunStorage
from tests.s3_server import BUCKET, running_server


@pytest.fixture(scope="module")
def s3():
    with running_server() as server:
        yield server


@pytest.fixture
def node(s3, tmp_path, monkeypatch):
    """`node(name)` returns the storage of this test's run on the node of that name; every node has its own cache."""

    def storage(name: str) -> RunStorage:
        monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / name))
        s3.requests.clear()
        return RunStorage(f"s3://{BUCKET}/{tmp_path.name}/run")

    return storage


def save(storage: RunStorage, step: int, best: int | None, content: str = "weights") -> list[str]:
    """Write a checkpoint as `distributed.checkpoints.saving` does, and return the names of its tensors."""
    folder = storage.local / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    for shard in (1, 2):
        (folder / f"shard-{shard}.safetensors").write_text(f"{content} {step} {shard}")
    (folder / "progress.json").write_text(json.dumps({"step": step, "note": content}))
    (storage.local / "checkpoints/index.json").write_text(json.dumps({"latest": step, "best": best}))
    return [f"checkpoints/{folder.name}/shard-{shard}.safetensors" for shard in (1, 2)]


def push(storage: RunStorage, step: int, best: int | None, content: str = "weights") -> None:
    tensors = save(storage, step, best, content)
    storage.push(tensors, last=(f"checkpoints/step-{step:08d}/progress.json", "checkpoints/index.json"))


def files(folder: Path) -> dict[str, str]:
    return {f.relative_to(folder).as_posix(): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_a_local_run_is_left_alone(tmp_path, s3) -> None:
    s3.requests.clear()
    storage = RunStorage(str(tmp_path / "run"))
    storage.pull()
    storage.push(["config.yaml"], last=["checkpoints/index.json"])
    storage.remove("checkpoints/step-00000001")
    assert storage.fetch("metrics.json") == tmp_path / "run/metrics.json"
    assert storage.local == tmp_path / "run"
    assert not storage.is_remote
    assert not storage.has("stop")
    assert not any(tmp_path.iterdir())
    assert s3.requests == []


def test_another_node_continues_where_the_first_stood(node) -> None:
    first = node("a")
    first.pull()  # the URI is still empty
    (first.local / "config.yaml").write_text("seed: 0")
    (first.local / "metrics.jsonl").write_text('{"step": 1}\n')
    first.push(["config.yaml", "metrics.jsonl"])
    push(first, 1, best=1)
    push(first, 2, best=1)
    push(first, 3, best=1)
    second = node("b")
    second.pull()
    expected = {name: text for name, text in files(first.local).items() if "step-00000002" not in name}
    assert files(second.local) == expected
    second.pull("2")
    assert files(second.local) == files(first.local)


def test_only_one_checkpoint_comes_where_one_is_asked_for(node) -> None:
    push(node("a"), 1, best=1)
    push(node("a"), 2, best=1)
    for which, step in (("best", 1), ("latest", 2), ("2", 2)):
        storage = node(f"b-{which}")
        storage.pull(which)
        assert [path.name for path in (storage.local / "checkpoints").glob("step-*")] == [f"step-{step:08d}"]
    storage = node("c")
    storage.pull("7")
    storage.pull("no such")
    assert list(storage.local.rglob("step-*")) == []


def test_what_is_here_is_not_fetched_again(node, s3) -> None:
    push(node("a"), 1, best=1)
    node("b").pull()
    storage = node("b")
    storage.pull()
    assert not any("shard" in path for _, path in s3.requests)


def test_the_uri_holds_the_truth(node) -> None:
    """Files that a node kept of an earlier run of that name are never mixed with the run that is there now."""
    old = node("a")
    (old.local / "checkpoints").mkdir(parents=True)
    (old.local / "metrics.json").write_text("{}")
    save(old, 1, best=1, content="old")
    push(node("b"), 1, best=1, content="new")
    old.pull()
    assert files(old.local) == {
        name: text for name, text in files(node("b").local).items() if not name.endswith("metrics.json")
    }
    node("b").remove("checkpoints")
    old.pull()
    assert files(old.local) == {}


def test_a_single_file_is_that_of_the_uri(node) -> None:
    first = node("a")
    first.local.mkdir(parents=True)
    (first.local / "ranks-test.parquet").write_text("one")
    first.push(["ranks-test.parquet"])
    other = node("b")
    assert other.fetch("ranks-test.parquet").read_text() == "one"
    assert list(files(other.local)) == ["ranks-test.parquet"]
    (first.local / "ranks-test.parquet").write_text("two")
    first.push(["ranks-test.parquet"])
    assert other.fetch("ranks-test.parquet").read_text() == "two"
    first.discard("ranks-test.parquet")
    assert not other.fetch("ranks-test.parquet").exists(), "a file of an earlier run of that name"


def test_readers_see_whole_checkpoints_only(node, s3) -> None:
    storage = node("a")
    push(storage, 1, best=1)
    written = [path.rpartition("/")[2] for method, path in s3.requests if method == "PUT"]
    assert written[-2:] == ["progress.json", "index.json"]
    storage.push(save(storage, 2, best=1))  # killed before its progress.json
    reader = node("b")
    reader.pull()
    assert [path.name for path in (reader.local / "checkpoints").glob("step-*")] == ["step-00000001"]


def test_removal_begins_with_progress(node, s3, tmp_path) -> None:
    storage = node("a")
    push(storage, 1, best=None)
    push(storage, 10, best=None)
    s3.requests.clear()
    storage.remove("checkpoints/step-00000001")
    deleted = [path for method, path in s3.requests if method in ("DELETE", "POST")]
    assert deleted[0].endswith("step-00000001/progress.json")
    left = s3.names(f"{tmp_path.name}/run/checkpoints/")
    assert sum(name.endswith(("json", "safetensors")) for name in left) == 4
    assert not any("step-00000001" in name for name in left)
    storage.remove("checkpoints/step-00000001")
    for prefix in ("", "..", "a/../..", "/"):
        with pytest.raises(InputError, match="is refused"):
            storage.remove(prefix)


def test_a_damaged_index_is_named(node, s3, tmp_path) -> None:
    push(node("a"), 1, best=1)
    for content in (b"{", b"[1]", b'{"latest": "x"}'):
        s3.write(f"{tmp_path.name}/run/checkpoints/index.json", content)
        with pytest.raises(InputError, match=r"checkpoints/index.json: is not an index of checkpoints"):
            node("b").pull()


def test_has_looks_here_and_there(node, s3, tmp_path) -> None:
    storage = node("a")
    assert not storage.has("stop")
    s3.write(f"{tmp_path.name}/run/stop", b"")
    assert storage.has("stop")


def test_uris_are_checked_at_once() -> None:
    with pytest.raises(InputError, match="is not supported"):
        RunStorage("ftp://host/run")
