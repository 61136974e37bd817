"""Jobs with s3:// URIs, run as commands against a real S3 server and a local Ray cluster."""

import json

import pyarrow.parquet as pq
import pytest
import ray

from configs.loading import load_config
from contracts.errors import InputError
from distributed.inference.recommend import recommend
from distributed.inference.restore import check_restorable, run_config
from distributed.ray import cluster as ray_cluster
from distributed.training import trainer
from distributed.world import world_of_one
from jobs import build_graph, evaluate, export, prepare_data, train
from tests.jobs.test_graph_jobs import OPTIONS, RATES, invoke, refused
from tests.s3_server import BUCKET, SECRET, running_server

pytestmark = pytest.mark.ray
ROOT = f"s3://{BUCKET}/jobs"
INPUTS = ["--set", f"dataset={ROOT}/dataset", "--set", f"graph={ROOT}/graph"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory, own_ray):  # noqa: ARG001
    """A server with a dataset and its graph. Ray starts here, so that its processes inherit the server's address."""
    with running_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDSREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        said = invoke(
            prepare_data, "--format", "synthetic", "--num-users", 60, "--num-items", 40, "--output", f"{ROOT}/dataset"
        )
        assert f"wrote dataset {ROOT}/dataset: 60 users" in said
        assert f"wrote graph {ROOT}/graph: 40 items" in invoke(build_graph, *INPUTS, *OPTIONS)
        yield server


def test_a_graph_is_published_with_the_uri_of_its_dataset(s3) -> None:
    manifest = json.loads(s3.read("jobs/graph/manifest.json"))
    assert manifest["dataset"]["path"] == f"{ROOT}/dataset"
    assert not any("/work/" in name for name in s3.names("jobs/graph"))


def test_the_same_build_again_does_nothing_and_another_is_refused(s3) -> None:
    s3.requests.clear()
    assert "wrote graph" in invoke(build_graph, *INPUTS, *OPTIONS)
    assert {method for method, _ in s3.requests} <= {"GET", "HEAD"}
    said = refused(build_graph, *INPUTS, *OPTIONS, "--set", "graph_options.mu=0.7")
    assert (
        said == f"error: graph={ROOT}/graph: holds a graph of other data or parameters; delete it or name another URI\n"
    )


@pytest.mark.usefixtures("s3")
def test_training_recommending_and_exporting_read_uris(tmp_path, monkeypatch) -> None:
    # The cache is empty, as on a new node. Ranks start without Ray, because starting Ray takes a minute.
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "cache"))
    run, listed, edges = tmp_path / "run", tmp_path / "r.parquet", tmp_path / "e.parquet"
    small = ("training.max_epochs=1", f"run={run}", "model.dim=8", f"dataset={ROOT}/dataset", f"graph={ROOT}/graph")
    config = load_config(None, small)
    with world_of_one() as world:
        trainer.train(config, world)
        check_restorable(run_config(str(run)), "best")
        recommend(run_config(str(run)), world, "best", 3, str(listed), True)
    assert set(pq.read_table(listed)["rank"].to_pylist()) == {1, 2, 3}
    invoke(export, "--graph", f"{ROOT}/graph", "--what", "cooccurrence", "--to", "parquet", "--output", edges)
    assert pq.read_metadata(edges).num_rows
    copies = sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert copies == ["dataset", "graph"]


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_run_at_a_uri_is_trained_by_ray_and_evaluated(s3, tmp_path, monkeypatch) -> None:
    run = f"{ROOT}/run"
    small = ("model.dim=8", "training.max_epochs=1", "cluster.num_workers=1", "cluster.address=local", f"run={run}")
    sets = [part for setting in small for part in ("--set", setting)]
    said = invoke(train, *INPUTS, *sets)
    assert f"wrote run {run} (mdsrec): " in said
    names = {name.removeprefix("jobs/run/").split("/")[0] for name in s3.names("jobs/run/")}
    assert {"checkpoints", "config.yaml", "metrics.json", "metrics.jsonl", "plan.txt", "tensorboard"} <= names
    # The cache is empty, as on another machine.
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "cache"))
    said = invoke(evaluate, "--run", run, "--set", "cluster.address=null")
    assert said.startswith("running in this process, without Ray")
    assert "recall@10" in said
    assert "jobs/run/evaluation-best.json" in s3.names("jobs/run/")


@pytest.mark.usefixtures("s3")
def test_a_plan_reads_a_dataset_at_a_uri() -> None:
    assert "items" in invoke(build_graph, *INPUTS, *OPTIONS, "--plan", *RATES)


@pytest.mark.usefixtures("s3")
def test_uris_that_are_refused(tmp_path) -> None:
    said = refused(train, "--set", f"dataset=s3://key:{SECRET}@bucket/d", "--set", f"run={tmp_path / 'run'}")
    assert SECRET not in said
    assert "scheme 'ftp' is not supported" in refused(build_graph, "--set", "dataset=ftp://h/d", "--set", "graph=g")
    arguments = ("--graph", f"{ROOT}/graph", "--what", "cooccurrence", "--to", "npz", "--output", "s3://b/o.npz")
    assert refused(export, *arguments).startswith("error: --output: a URI where a file is needed")


@pytest.mark.usefixtures("s3")
def test_a_folder_that_a_node_does_not_see_is_refused(tmp_path, monkeypatch) -> None:
    (node,) = ray.nodes()
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [node, node])
    ray_cluster.check_seen_by_all_nodes(tmp_path / "g", "graph=g")
    monkeypatch.setattr(ray_cluster, "_sees", ray.remote(num_cpus=0)(lambda _: False))
    with pytest.raises(InputError, match=r"^graph=g: is not seen by 2 of 2 nodes"):
        ray_cluster.check_seen_by_all_nodes(tmp_path / "g", "graph=g")
    assert list(tmp_path.iterdir()) == []
