"""The prediction's arithmetic against counts made by hand, and that it moves the way the work does."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from configs.schema import GraphConfig
from graph_builder.cost import ceilings as measuring
from graph_builder.cost.ceilings import H200, Ceilings, measure_ceilings
from graph_builder.cost.plan import Plan, directed_pairs, predict
from graph_builder.cost.plan_tables import comparison, comparison_table, measured_seconds, plan_table, plan_values
from graph_builder.cost.request import ModalitySize, PlanRequest
from graph_builder.cost.stages import num_entries
from kernels.cosine.score_tiles import TILE_ROWS

# One of everything per second, so that seconds are amounts of work.
ONES = Ceilings(
    gemm_tflops=1e-12,
    float64_gemm_tflops=1e-12,
    scan_gscores_per_s=1e-9,
    moffers_per_s=1e-6,
    memory_gb_per_s=1e-9,
    row_gb_per_s=1e-9,
    inject_gb_per_s=1e-9,
    rank_gb_per_s=1e-9,
    mpairs_per_s=1e-6,
    storage_gb_per_s=1e-9,
)
OPTIONS = GraphConfig(num_neighbors=6, include_self=True, rows_per_task=1 << 12, num_centers=8, kmeans_iterations=9)
REQUEST = PlanRequest(num_items=1 << 14, modalities={"text": ModalitySize(32)}, num_pairs=5000, options=OPTIONS)


def terms(plan: Plan, name: str) -> dict[str, float]:
    return dict(next(stage for stage in plan.stages if stage.name == name).terms)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_pairs_are_counted_as_a_loop_would(window: int | None) -> None:
    lengths = np.array([0, 1, 2, 5, 9])
    pairs = sum(1 for n in lengths for i in range(n) for j in range(n) if 0 < abs(i - j) <= (window or n))
    assert directed_pairs(lengths, window) == pairs


def test_stages_come_in_the_order_of_the_build() -> None:
    names = [stage.name for stage in predict(REQUEST, ONES).stages]
    assert names == ["features-text", "cooccurrence", "inject-text", "clusters-text", "neighbors-text"]
    assert [stage.name for stage in predict(replace(REQUEST, modalities={}), ONES).stages] == ["cooccurrence"]


def test_the_search_makes_half_of_all_products() -> None:
    n, tile = 1 << 14, TILE_ROWS
    found = terms(predict(REQUEST, ONES), "neighbors-text")
    # Every pair once, and the lower halves of the tiles on the diagonal.
    assert found["scan"] == pytest.approx(n * (n + tile) / 2)
    assert found["product"] == pytest.approx(2 * 32 * n * (n + tile) / 2)
    assert found["rank"] == pytest.approx(n * (5 + 2) * 2 * 32 * 4)
    # Four ranges: each is fetched in three blocks with another and one with itself.
    assert found["rows"] == pytest.approx(4 * n * 32 * 4)


def test_other_terms_by_hand() -> None:
    plan = predict(REQUEST, ONES)
    n = 1 << 14
    assert terms(plan, "features-text") == {"rows": n * 32 * 4}
    assert terms(plan, "cooccurrence")["pairs"] == pytest.approx(10000)
    # Written and read: 5 bytes; the result: 12 per entry, 8 per row.
    assert terms(plan, "cooccurrence")["files"] == pytest.approx(2 * 10000 * 5 + 12 * 10000 + 8 * n)
    assert terms(plan, "inject-text")["sums"] == pytest.approx(10000 * 32 * 4)
    assert terms(plan, "clusters-text")["product"] == pytest.approx(10 * 2 * n * 8 * 32)
    assert terms(plan, "clusters-text")["memory"] == pytest.approx(10 * 12 * n * 32 * 8)
    assert terms(plan, "clusters-text")["start"] == pytest.approx(8 * (256 * 8) * 32 * 8 * 5)
    assert plan.seconds == pytest.approx(sum(sum(stage.terms.values()) for stage in plan.stages))


def test_entries_are_bounded() -> None:
    assert num_entries(replace(REQUEST, num_items=10)) == 90
    assert num_entries(replace(REQUEST, options=GraphConfig(max_neighbors=2), num_items=100)) == 200
    assert terms(predict(replace(REQUEST, options=GraphConfig(mu=0)), ONES), "inject-text")["sums"] == 0


def test_wide_gaps_take_more_bytes() -> None:
    wide = terms(predict(replace(REQUEST, longest=300), ONES), "cooccurrence")["files"]
    assert wide - terms(predict(REQUEST, ONES), "cooccurrence")["files"] == pytest.approx(2 * 10000)


def test_workers_share_the_work_but_not_below_a_task() -> None:
    alone = terms(predict(REQUEST, ONES), "neighbors-text")
    # Ten blocks in one round: two workers take five blocks each; from ten workers on, each takes at most one.
    assert terms(predict(replace(REQUEST, workers=2), ONES), "neighbors-text")["scan"] == pytest.approx(
        alone["scan"] / 2
    )
    for workers in (10, 1000):
        shared = terms(predict(replace(REQUEST, workers=workers), ONES), "neighbors-text")
        assert shared["scan"] == pytest.approx(alone["scan"] / 10)
        assert shared["files"] == alone["files"]
    threads = replace(REQUEST, workers=4, options=OPTIONS.model_copy(update={"cpus_per_task": 2}))
    assert terms(predict(threads, ONES), "neighbors-text")["scan"] == pytest.approx(alone["scan"] / 4)


def test_one_neighbour_that_is_the_item_itself_needs_no_search() -> None:
    options = GraphConfig(num_neighbors=1, include_self=True)
    assert terms(predict(replace(REQUEST, options=options), ONES), "neighbors-text")["product"] == 0


def test_for_a_gpu_each_task_fetches_a_row_once_at_most() -> None:
    few = replace(REQUEST, gpus=1)
    many = replace(few, num_pairs=1 << 26)
    assert terms(predict(few, ONES), "inject-text")["rows"] == pytest.approx(10000 * 32 * 4)
    assert terms(predict(many, ONES), "inject-text")["rows"] == pytest.approx(8 * (1 << 14) * 32 * 4)  # eight tasks
    assert terms(predict(REQUEST, ONES), "inject-text")["rows"] == 0


def test_a_gpu_has_its_own_rates_and_half_the_bytes() -> None:
    options = GraphConfig(num_neighbors=10)
    on_cores = PlanRequest(
        num_items=10**7, modalities={"text": ModalitySize(512, 2)}, num_pairs=0, options=options, workers=16
    )
    on_gpus = replace(on_cores, gpus=8)
    ceilings = replace(ONES, **H200)
    search = terms(predict(on_gpus, ceilings), "neighbors-text")["product"]
    floor = 1e14 * 512 / 790e12 / 8
    # While the last blocks of a round run, some GPUs are idle.
    assert floor < search < 1.3 * floor
    memory = [stage.memory for stage in predict(on_gpus, ceilings).stages if stage.name == "neighbors-text"]
    assert memory[0] > 2 * (1 << 20) * 512 * 2


def test_values_are_json_and_tables_have_a_line_per_stage() -> None:
    plan = predict(REQUEST, ONES)
    values = json.loads(json.dumps(plan_values(plan)))
    assert values["total"]["seconds"] == pytest.approx(plan.seconds)
    assert [stage["name"] for stage in values["stages"]] == [stage.name for stage in plan.stages]
    lines = plan_table(plan).splitlines()
    assert len(lines) == 2 + len(plan.stages) + 1
    assert lines[-1].startswith("total")


def test_prediction_beside_measurement() -> None:
    plan = predict(replace(REQUEST, modalities={}), ONES)
    seconds = plan.stages[0].seconds
    measured = measured_seconds({"cooccurrence": 2 * seconds, "unheard": 3})
    assert comparison(plan, measured) == [("cooccurrence", seconds, 2 * seconds)]
    assert comparison_table(plan, measured).splitlines()[-1].endswith("2.00")
    assert comparison(plan, {}) == [("cooccurrence", seconds, None)]
    assert comparison_table(plan, {}).splitlines()[2].rstrip().endswith("-")
    labels = {"reading t": 1, "pairs": 2, "cooccurrence": 3, "joining": 4, "inject-t": 5, "k-means-t": 6}
    labels |= {"clusters-t": 7, "neighbors-t": 8, "merge-t": 9, "finish-t": 10}
    stages = {"features-t": 1, "cooccurrence": 9, "inject-t": 5, "clusters-t": 13, "neighbors-t": 27}
    assert measured_seconds(labels) == stages


def test_ceilings_are_measured_or_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_REPEATS", 1)
    measured = measure_ceilings()
    assert all(getattr(measured, rate.name) > 0 for rate in fields(Ceilings))
    nothing: dict[str, float] = {}
    monkeypatch.setattr(measuring, "_MEASUREMENTS", nothing)  # whoever measures now, fails
    assert measure_ceilings(skip=vars(ONES)) == ONES
