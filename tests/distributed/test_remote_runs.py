"""Runs whose folder is a URI, on nodes that share no file system."""

import json
import os

import pytest

from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.inputs import open_inputs
from distributed.training.trainer import check_trainable, train
from distributed.world import world_of_one
from storage.object_cache import work_folder
from storage.object_store import ObjectFolder
from tests.distributed.runs import config_of, records
from tests.distributed.spawn import run_ranks
from tests.distributed.test_resume import Broken, breaking, resumed, saved
from tests.s3_server import BUCKET, running_server


@pytest.fixture(scope="module")
def s3():
    with running_server() as server:
        yield server


def on_nodes(world, folders, root, run, name, breaks_after, out):
    """Run a rank as if it were alone on its node, with its own cache."""
    os.environ.update(LOCAL_RANK="0", MDSREC_CACHE=str(root / f"{name}-{world.rank}"))
    config = config_of(folders, run, "mdsrec", "table.sharding=row_wise", "training.checkpoint_steps=3")
    if breaks_after:
        with pytest.raises(Broken):
            train(config, world, breaking(breaks_after))
        return
    found = train(config, world)
    if world.is_first:
        out.write_text(json.dumps(found["details"]))


@pytest.mark.slow
def test_a_run_at_a_uri_continues_on_other_nodes(folders, tmp_path, s3, monkeypatch):  # noqa: ARG001
    uri, local = f"s3://{BUCKET}/{tmp_path.name}/run", tmp_path / "local"
    run_ranks(2, on_nodes, folders, tmp_path, local, "calm", 0, tmp_path / "calm.json")
    run_ranks(2, on_nodes, folders, tmp_path, uri, "first", 8, None)
    run_ranks(2, on_nodes, folders, tmp_path, uri, "second", 0, tmp_path / "struck.json")
    details = json.loads((tmp_path / "struck.json").read_text())
    assert details == json.loads((tmp_path / "calm.json").read_text())
    # A third machine, which has no files of the run, evaluates it.
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "third"))
    config = run_config(uri)
    with world_of_one() as world:
        assert json.loads(json.dumps(evaluate(config, world, "best")["details"])) == details
    assert records(work_folder(uri)) == records(local)
    kept = {path.name for path in (local / "checkpoints").glob("step-*")}
    there = ObjectFolder(uri).sizes()
    assert {name.split("/")[1] for name in there if name.startswith("checkpoints/step-")} == kept
    assert {"config.yaml", "metrics.json", "metrics.jsonl", "plan.txt", "evaluation-best.json"} < set(there)
    ranks = {f"{start}ranks-{split}.parquet" for start in ("", "evaluation-best-") for split in ("valid", "test")}
    assert {name for name in there if "ranks" in name} == ranks
    assert all((local / name.removeprefix("evaluation-best-")).stat().st_size == there[name] for name in ranks)
    with world_of_one() as world:
        evaluate(run_config(uri, ["evaluation.save_ranks=false"]), world, "best")
    assert {name for name in ObjectFolder(uri).sizes() if "evaluation-best" in name} == {"evaluation-best.json"}


def test_a_run_at_a_uri_starts_from_a_run_at_another(folders, tmp_path, s3, monkeypatch):  # noqa: ARG001
    source, run = (f"s3://{BUCKET}/{tmp_path.name}/{name}" for name in ("source", "new"))
    with monkeypatch.context() as patch, world_of_one() as world:
        patch.setenv("MDSREC_CACHE", str(tmp_path / "first"))
        trained = train(config_of(folders, source, "sasrec", "training.max_epochs=1"), world)
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "second"))
    config = config_of(folders, run, "sasrec", "training.max_epochs=0", f"training.start_from={source}")
    check_trainable(config, open_inputs(config))
    with world_of_one() as world:
        assert train(config, world)["details"] == trained["details"]
    assert {"config.yaml", "metrics.json", "start.txt"} < set(ObjectFolder(run).sizes())


def test_a_damaged_checkpoint_at_a_uri_is_passed_over_on_a_new_node(folders, tmp_path, s3, monkeypatch, capsys):
    name = f"{tmp_path.name}/damaged"
    run = f"s3://{BUCKET}/{name}"
    config = config_of(folders, run, "sasrec")
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "first"))
    saved(run, config, [(10, 10), (20, 10), (30, 30), (40, 40)])
    kept = {path.split("/")[3] for path in s3.names(f"{name}/checkpoints/step-")}
    assert kept == {"step-00000030", "step-00000040"}
    shard = next(path for path in s3.names(f"{name}/checkpoints/step-00000040") if path.endswith("safetensors"))
    content = bytearray(s3.read(shard))
    content[len(content) // 2] ^= 1
    s3.write(shard, bytes(content))
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "second"))
    assert resumed(run, config).step == 30
    assert "SHA-256 differs" in capsys.readouterr().out


@pytest.mark.parametrize("cache", ["first", "second"])
def test_a_checkpoint_whose_upload_was_broken_off_is_none(folders, tmp_path, s3, monkeypatch, cache):
    name = f"{tmp_path.name}/broken"
    run = f"s3://{BUCKET}/{name}"
    config = config_of(folders, run, "sasrec")
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "first"))
    saved(run, config, [(10, 10), (20, 20)])
    s3.write(f"{name}/checkpoints/step-00000030/shard-00001-model-00001-of-00001.safetensors", b"half")
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / cache))
    assert resumed(run, config).step == 20
