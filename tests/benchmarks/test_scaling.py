"""The scaling benchmark measures real steps on real ranks; these tests start the ranks without Ray."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cases import PARTS, Point, case_of, points_of_curves
from benchmarks.hashed_graph import HashedGraph
from benchmarks.rank_measurement import measure
from benchmarks.scaling import numbers, ratios, summary, write_catalogue
from benchmarks.scaling_report import write_table
from configs.loading import load_config
from contracts.errors import InputError
from tests.distributed.spawn import run_ranks

SHAPE = {"steps": 3, "warmup": 1, "neighbors": 3, "cooccurrences": 4, "centers": 4}


def measure_case(world, case, names):
    for name, overrides in names.items():
        config = load_config(None, [f"dataset={case.config['dataset']}", *overrides])
        measure(replace(case, config=config.model_dump(mode="json"), output=f"{case.output}.{name}"), world)


def test_a_measured_point_is_what_the_cost_model_says(tmp_path):
    dataset = write_catalogue(tmp_path, users=200, items=3000)
    small = ["model.dim=32", "training.batch_size=60", "training.negatives.draws=300"]
    sampled = [*small, "model.mdsrec.center_samples=8"]
    names = {
        "row_wise": [*sampled, "table.sharding=row_wise"],
        "replicated": [*small, "table.sharding=data_parallel", "model.name=sasrec", "training.negatives.draws=100"],
    }
    point = Point(2, 60, 3000)
    case = case_of(point, load_config(None, sampled), dataset, str(tmp_path), **SHAPE)
    run_ranks(2, measure_case, case, names)
    found = {}
    for name, overrides in names.items():
        ranks = json.loads((tmp_path / f"{point.name}.json.{name}").read_text())["ranks"]
        assert len(ranks) == 2
        for rank in ranks:
            assert 0 < sum(rank[part] for part in PARTS) <= rank["seconds"]
            assert rank["peak_bytes"] > rank["start_bytes"] > 1e8
            assert rank["towers"] > 0
            assert rank["flops"] > 0
        found[name] = summary(point, load_config(None, overrides), case, ranks)
        assert abs(found[name]["bytes_error"]) < 0.05
        assert found[name]["union_predicted"] == pytest.approx(found[name]["union"], rel=0.05)
    assert found["row_wise"]["row_wise"]
    assert not found["replicated"]["row_wise"]
    content = {"strong": [found["row_wise"]], "weak": [found["row_wise"]], "catalogue": list(found.values())}
    assert ratios(content)["bytes_prediction_error"] == max(abs(x["bytes_error"]) for x in found.values())
    write_table(content, tmp_path / "table.md")
    assert len((tmp_path / "table.md").read_text().splitlines()) == 2 + 4


def test_points_of_the_curves():
    curves = points_of_curves([1, 2, 4], [1000, 9000], 64)
    assert curves["strong"] == [Point(1, 64, 1000), Point(2, 64, 1000), Point(4, 64, 1000)]
    assert [point.batch_size for point in curves["weak"]] == [64, 128, 256]
    assert curves["catalogue"] == [Point(4, 64, 1000), Point(4, 64, 9000)]
    assert numbers("4,1,4", "--workers") == [1, 4]
    for text in ("", "0,1", "two"):
        with pytest.raises(InputError, match="--workers"):
            numbers(text, "--workers")


def test_a_hashed_graph_is_a_graph_spread_over_the_catalogue():
    graph = HashedGraph(50_000, ("image", "text"), 5, 7, 16)
    items = np.array([3, 17, 49_999])
    image, text = graph.neighbors("image")[items], graph.neighbors("text")[items]
    assert image.shape == (3, 5)
    assert (image[:, 0] == items).all()
    assert (image[:, 1:] != text[:, 1:]).any()
    np.testing.assert_array_equal(graph.neighbors("image")[items[1:]], image[1:])
    indptr, columns, weights = graph.cooccurrence_rows(items)
    assert indptr.tolist() == [0, 7, 14, 21]
    assert len(columns) == len(weights) == 21
    everyone = graph.neighbors("text")[np.arange(50_000)][:, 1:]
    counts = np.bincount(everyone.ravel(), minlength=50_000)
    assert counts.size == 50_000, "no id outside the catalogue"
    assert counts.var() == pytest.approx(counts.mean(), rel=0.05), "as uniform draws"
    assert np.bincount(graph.clusters("text")).size == 16
