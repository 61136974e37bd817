"""jobs/build_graph.py on files, jobs/build_graph.py --plan, and jobs/export.py, run as commands."""

import json
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import scipy.sparse
from click.testing import CliRunner

from graph_builder.cost.ceilings import Ceilings
from graph_builder.graph import Graph
from jobs import build_graph, export, prepare_data

OPTIONS = ["--set", "graph_options.num_centers=3", "--set", "graph_options.num_neighbors=4"]
# All rates are given, so that nothing is measured.
RATES = [part for rate in fields(Ceilings) for part in (f"--{rate.name.replace('_', '-')}", "1")]


def invoke(command, *arguments, status=0):
    result = CliRunner().invoke(command.main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def refused(command, *arguments):
    output = invoke(command, *arguments, status=2)
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    return output


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with text.npy, img.npy, wide.npy (float64) and seq.parquet, of 60 items, and a small dataset."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.save(root / "text.npy", rng.normal(size=(60, 8)).astype(np.float32))
    np.save(root / "img.npy", rng.normal(size=(60, 6)).astype(np.float16))
    np.save(root / "wide.npy", rng.normal(size=(60, 8)))
    lists = [rng.integers(0, 60, n).tolist() for n in rng.integers(1, 12, 50)]
    pq.write_table(pa.table({"items": pa.array(lists, pa.list_(pa.int32()))}), root / "seq.parquet")
    invoke(prepare_data, "--format", "synthetic", "--num-users", 60, "--num-items", 40, "--output", root / "dataset")
    return root


@pytest.fixture(scope="module")
def graph(files, shared_ray):  # noqa: ARG001
    """A graph that was built from features and sequences on a real local Ray cluster."""
    inputs = ["--features", files / "text.npy", "--features", f"image={files}/img.npy"]
    said = invoke(
        build_graph, *inputs, "--sequences", files / "seq.parquet", "--set", f"graph={files}/new/graph", *OPTIONS
    )
    assert "60 items" in said
    assert "image (60 items, 4 neighbours" in said
    return files / "new/graph"


@pytest.mark.ray
def test_a_graph_of_files(files, graph):
    opened = Graph.open(graph)
    assert opened.modalities == ("image", "text")
    assert opened.manifest["cooccurrence"]["num_pairs"] > 0
    assert [path.name for path in graph.parent.iterdir()] == ["graph"]
    # With the same files again, the job has nothing to do.
    before = (graph / "manifest.json").stat().st_mtime_ns
    inputs = ["--features", f"image={files}/img.npy", "--features", files / "text.npy"]
    again = [*inputs, "--sequences", files / "seq.parquet", "--set", f"graph={graph}", *OPTIONS]
    invoke(build_graph, *again)
    assert (graph / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.ray
def test_features_or_sequences_alone(files, graph, tmp_path):
    said = invoke(build_graph, "--features", files / "text.npy", "--set", f"graph={tmp_path}/a", *OPTIONS)
    assert "60 items, 0 co-occurrences, text (60 items" in said
    arguments = ["--sequences", files / "seq.parquet", "--num-items", 70, "--set", f"graph={tmp_path}/b"]
    assert ", no modality" in invoke(build_graph, *arguments)
    found, expected = Graph.open(tmp_path / "b"), Graph.open(graph)
    assert found.num_items == 70
    for part, whole in zip(
        found.cooccurrence_rows(np.arange(60)), expected.cooccurrence_rows(np.arange(60)), strict=True
    ):
        np.testing.assert_array_equal(part, whole)


def test_mistakes_are_one_clear_line(files, tmp_path):
    target = ["--set", f"graph={tmp_path}/graph"]
    dataset = ["--set", f"dataset={files}/dataset"]
    text = ["--features", files / "text.npy"]
    assert "--features FILE or --sequences FILE" in refused(build_graph, *target)
    assert "graph: not set" in refused(build_graph, *text)
    assert "leave out --features, or the dataset" in refused(build_graph, *target, *dataset, *text)
    assert "leave out --sequences" in refused(build_graph, *target, *dataset, "--sequences", files / "seq.parquet")
    assert "leave out --num-items" in refused(build_graph, *target, *dataset, "--num-items", 40)
    assert "np.ascontiguousarray" in refused(build_graph, *target, "--features", files / "wide.npy")
    assert "NAME=FILE" in refused(build_graph, *target, "--features", "2024.npy")
    assert "names no file" in refused(build_graph, *target, "--features", "text=")
    assert "named twice" in refused(build_graph, *target, *text, "--features", f"text={files}/img.npy")
    assert "none.npy: cannot be read" in refused(build_graph, *target, "--features", f"{tmp_path}/none.npy")
    assert "is only for --plan" in refused(build_graph, *target, *text, "--workers", 2)
    assert not (tmp_path / "graph").exists()


def test_a_relative_input_is_refused_under_job_submit(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    message = refused(build_graph, "--set", f"graph={tmp_path}/graph", "--features", "text.npy")
    assert message.startswith("error: features=text.npy: a relative path")


@pytest.mark.ray
def test_export(graph, tmp_path):
    said = invoke(export, "--graph", graph, "--what", "cooccurrence", "--to", "npz", "--output", tmp_path / "o.npz")
    matrix = scipy.sparse.load_npz(tmp_path / "o.npz")
    assert f"wrote {tmp_path}/o.npz: cooccurrence of {graph} as npz, 60 items, {matrix.nnz:,} edges" in said
    neighbors = ["--graph", graph, "--what", "neighbors:text", "--output", tmp_path / "n.parquet"]
    assert "240 edges" in invoke(export, *neighbors, "--to", "parquet")
    assert "add --overwrite" in refused(export, *neighbors, "--to", "parquet")
    assert "call it n.npz" in refused(export, *neighbors, "--to", "npz", "--overwrite")
    (tmp_path / "n.parquet").rename(tmp_path / "n.npz")
    other = [*neighbors[:-1], tmp_path / "n.npz"]
    assert "is never replaced" in refused(export, *other, "--to", "npz", "--overwrite")
    assert "jobs/build_graph.py" in refused(export, "--graph", tmp_path / "none", *other[2:], "--to", "npz")


def test_plan_of_sizes_runs_nothing(monkeypatch):
    def forbidden(*_arguments, **_options):
        raise AssertionError("Ray is not needed here")

    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    sizes = ["--num-items", 10_000_000, "--width", 512, "--width", "text=384", "--num-pairs", 10**9]
    said = invoke(build_graph, "--plan", *sizes, "--workers", 64, "--gpus", 8, *RATES)
    assert "10,000,000 items, modalities: features 512, text 384, 1,000,000,000 pairs, on 8 GPUs and 64 cores" in said
    assert "neighbors-features" in said
    assert "given" in said


def test_plan_of_what_is_there(files, tmp_path):
    output = tmp_path / "plan.json"
    inputs = ["--features", files / "img.npy", "--sequences", files / "seq.parquet"]
    said = invoke(build_graph, "--plan", *inputs, *RATES, "--plan-output", output, "--set", f"graph={tmp_path}/graph")
    assert f"wrote plan {output}" in said
    planned = json.loads(output.read_text())
    lengths = [len(items) for items in pq.read_table(files / "seq.parquet")["items"].to_pylist()]
    assert planned["request"]["num_pairs"] == sum(n * (n - 1) // 2 for n in lengths)
    assert planned["request"]["modalities"] == {"img": {"width": 6, "itemsize": 2}}
    assert [stage["name"] for stage in planned["stages"]][-1] == "neighbors-img"
    assert "60 items" in said
    assert not (tmp_path / "graph").exists()
    assert "40 items" in invoke(build_graph, "--plan", "--set", f"dataset={files}/dataset", *RATES)
    assert "name a new file" in refused(build_graph, "--plan", *inputs, "--plan-output", output)


def test_plans_that_are_refused(files):
    assert "or give --num-items" in refused(build_graph, "--plan")
    sized = ["--plan", "--num-items", 10]
    assert "--width x=-3: expected a whole number" in refused(build_graph, *sized, "--width", "x=-3")
    assert "named twice" in refused(build_graph, *sized, "--width", 3, "--width", 4)
    assert "--gemm-tflops nan" in refused(build_graph, *sized, "--gemm-tflops", "nan")
    assert "leave out --width" in refused(build_graph, "--plan", "--features", files / "text.npy", "--width", 3)
