"""Reports of invented trials whose means are known."""

import csv
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from configs.loading import dump_config
from contracts.errors import InputError
from experiments.study.definition import Study, expand
from experiments.study.plot import Axis, chosen_metrics
from experiments.study.report import write_report
from experiments.study.results import read_fingerprints, read_results, summarise_variants, trial_folder
from tests.experiments.saved import save_ranks, some_ranks

BASE = {"base": "configs/demo.yaml", "title": "What matters?"}
NAMES = [f"{name}@{k}" for name in ("recall", "ndcg") for k in (10, 20, 50)]


def made(folder, trial, value, epochs=3, best=2):
    """Write a finished run whose test metrics are `value`, and whose valid metrics are twice that."""
    run = trial_folder(folder, trial)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(trial.config))
    records = [{"step": 10 * e, "epoch": e, "seconds": 1.5} for e in range(1, epochs + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    metrics = {
        "valid": dict.fromkeys(NAMES, 2 * value),
        "test": dict.fromkeys(NAMES, value),
        "details": {"test": {"intervals": dict.fromkeys(NAMES, (value - 0.01, value + 0.03))}},
        "epochs": epochs,
        "best_step": 10 * best,
        "fingerprints": {"dataset": "d"},
    }
    (run / "metrics.json").write_text(json.dumps(metrics))


def study_of(**fields):
    study = Study(**BASE, **fields)
    return study, expand(study, "study.yaml")


VARIANTS = {"none": {"ablation": "none"}, "ICA": {"ablation": "ICA"}}


def test_means_errors_and_changes(tmp_path):
    study, trials = study_of(seeds=[0, 1, 2], variants=VARIANTS, baseline="none")
    for trial, value in zip(trials, [0.1, 0.2, 0.3, 0.3, 0.3, 0.3], strict=True):
        made(tmp_path, trial, value)
    baseline, other = summarise_variants(read_results(tmp_path, trials), study.baseline)
    assert baseline.seeds == (0, 1, 2)
    mean = baseline.estimates["test recall@20"]
    assert mean.mean == pytest.approx(0.2)
    assert mean.error == pytest.approx(0.1 / 3**0.5)
    assert mean.change is None
    assert baseline.estimates["valid ndcg@10"].mean == pytest.approx(0.4)
    assert other.estimates["test recall@20"].change == pytest.approx(0.5)
    assert other.estimates["test recall@20"].error == pytest.approx(0, abs=1e-12)


def test_the_files(tmp_path):
    study, trials = study_of(seeds=[0, 1, 2], variants=VARIANTS, baseline="none")
    for trial, value in zip(trials, [0.1, 0.2, 0.3, 0.3, 0.3], strict=False):
        made(tmp_path, trial, value)
    table = write_report(study, trials, tmp_path)
    assert "0.2000 ± 0.0577" in table
    page = (tmp_path / "results.md").read_text()
    assert "5 of 6 trials are finished" in page
    assert "Not finished: ICA-s2." in page
    # Both means are over seeds 0 and 1 only: .3 divided by .15.
    assert "0.3000 ± 0.0000 (+100.0%)" in page
    # Trials of earlier versions have no ranks of single users.
    unsaved = "none-s0, none-s1, none-s2, ICA-s0, ICA-s1"
    assert f"Not compared, because their ranks of single users were not saved: {unsaved}." in page
    assert "jobs/evaluate.py --run STUDY/trials/none-s0" in page
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["missing"] == ["ICA-s2"]
    assert content["paired"] == {"comparisons": [], "without_ranks": unsaved.split(", "), "refused": {}}
    trial = content["trials"][3]
    assert (trial["variant"], trial["seed"], trial["overrides"]) == ("ICA", 0, {"ablation": "ICA"})
    assert (trial["best_epoch"], trial["epochs"], trial["seconds"]) == (2, 3, 4.5)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == 5
    assert (rows[3]["variant"], rows[3]["ablation"], float(rows[3]["test ndcg@10"])) == ("ICA", "ICA", 0.3)
    assert (tmp_path / "results.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(tmp_path.glob(".*unfinished"))


def test_targets_of_item_groups_have_a_table(tmp_path):
    study, trials = study_of(seeds=[0, 1], variants=VARIANTS, baseline="none")
    for number, trial in enumerate(trials):
        made(tmp_path, trial, 0.2)
        path = trial_folder(tmp_path, trial) / "metrics.json"
        metrics = json.loads(path.read_text())
        own = {"targets": 9, "candidates": 5, "chance": dict.fromkeys(NAMES, 0.5)} | dict.fromkeys(NAMES, 0.1 * number)
        metrics["details"]["test"]["slices"] = {
            "history length 1-4": {"targets": 9} | dict.fromkeys(NAMES, 0.9),
            "target cold": {"targets": 9} | dict.fromkeys(NAMES, 0.05),
            "target cold, among cold items": own,
        }
        path.write_text(json.dumps(metrics))
    write_report(study, trials, tmp_path)
    page = (tmp_path / "results.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "target cold" in line]
    assert [row[:3] for row in rows] == [
        ["target cold", "none", "0.0500 ± 0.0000"],
        ["target cold", "ICA", "0.0500 ± 0.0000 (+0.0%)"],
        ["target cold, among cold items", "none", "0.0500 ± 0.0500"],
        ["target cold, among cold items", "ICA", "0.2500 ± 0.0500 (+400.0%)"],
    ]
    assert "history length" not in page


def test_one_seed_has_no_error_and_says_so(tmp_path):
    study, trials = study_of(seeds=[0], variants=VARIANTS)
    made(tmp_path, trials[0], 0.1)
    assert "±" not in write_report(study, trials, tmp_path)
    assert "one seed, so no standard error" in (tmp_path / "results.md").read_text()


def test_nothing_finished_is_a_report_too(tmp_path):
    study, trials = study_of(seeds=[0], variants=VARIANTS)
    write_report(study, trials, tmp_path)
    assert "0 of 2 trials are finished" in (tmp_path / "results.md").read_text()
    assert not (tmp_path / "results.png").exists()


@pytest.mark.parametrize(
    "grid",
    [
        {"graph_options.num_neighbors": [1, 5, 10]},
        {"graph_options.num_neighbors": [1, 5], "model.activation": ["gelu", "relu"]},
        {"graph_options.num_neighbors": [1, 5], "model.activation": ["gelu"], "model.num_layers": [1, 2]},
        {"model.activation": ["gelu", "relu"]},
    ],
    ids=["line", "lines", "three knobs", "words"],
)
def test_grids_are_drawn(tmp_path, grid):
    study, trials = study_of(seeds=[0, 1], grid=grid)
    for number, trial in enumerate(trials[:-1]):  # one trial is missing
        made(tmp_path, trial, 0.1 + 0.01 * number)
    write_report(study, trials, tmp_path)
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_where_values_lie_on_an_axis():
    assert Axis([5, 10, 20]).scale == "linear"
    assert Axis([1, 5, 10, 20, 50]).scale == "log"
    crowded = Axis([1, 0, 0.01])
    assert crowded.scale == "order"
    assert [crowded.place(value) for value in (0, 0.01, 1)] == [0, 1, 2]
    assert Axis([True, False]).scale == Axis(["a", "b"]).scale == Axis([None, 1]).scale == "order"
    assert Axis([3]).place(3) == 3


def test_ticks_are_at_the_values_with_labels_of_fourteen_letters_at_most():
    _, axes = plt.subplots()
    names = ["a" * 14, "b" * 15]
    Axis(names).apply(axes)
    assert axes.get_xticks().tolist() == [0, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a" * 14, "b" * 13 + "…"]
    Axis([1, 10, 100]).apply(axes)
    assert axes.get_xscale() == "log"
    assert axes.get_xticks().tolist() == [1, 10, 100]
    plt.close()


def test_metrics_that_are_drawn(tmp_path):
    _, trials = study_of(seeds=[0], variants=VARIANTS)
    made(tmp_path, trials[0], 0.1)
    (result,) = read_results(tmp_path, trials)
    assert chosen_metrics([result]) == ["recall@20", "ndcg@10"]
    assert chosen_metrics([replace(result, test={"recall@5": 0.1, "ndcg@5": 0.1})]) == ["recall@5", "ndcg@5"]
    assert chosen_metrics([]) == chosen_metrics([replace(result, test={})]) == []


def test_a_trial_of_other_knobs_is_refused(tmp_path):
    _, trials = study_of(seeds=[0], variants={"a": {"model.dim": 16}})
    made(tmp_path, trials[0], 0.1)
    _, changed = study_of(seeds=[0], variants={"a": {"model.dim": 8}})
    with pytest.raises(InputError, match=r"trained with model\.dim=16, but the study says 8"):
        read_results(tmp_path, changed)


def test_damaged_metrics_are_refused(tmp_path):
    _, trials = study_of(seeds=[0], variants=VARIANTS)
    made(tmp_path, trials[0], 0.1)
    for content in ("{", "[]", '{"valid": {}}'):
        (trial_folder(tmp_path, trials[0]) / "metrics.json").write_text(content)
        with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
            read_results(tmp_path, trials)


def test_changes_are_over_the_seeds_that_both_have(tmp_path):
    study, trials = study_of(seeds=[0, 1, 2], variants=VARIANTS, baseline="none")
    for trial, value in zip(trials, [0.1, 0.2, None, 0.3, 0.3, 0.9], strict=True):
        if value is not None:
            made(tmp_path, trial, value)
    _, other = summarise_variants(read_results(tmp_path, trials), study.baseline)
    assert other.seeds == (0, 1, 2)
    assert other.estimates["test recall@20"].mean == pytest.approx(0.5)
    assert other.estimates["test recall@20"].change == pytest.approx(0.6 / 0.3 - 1)


def test_a_metric_that_some_seed_lacks_has_no_mean_and_one_of_zero_no_change(tmp_path):
    _, trials = study_of(seeds=[0, 1], variants=VARIANTS, baseline="none")
    for trial, value in zip(trials, [0.0, 0.0, 0.3, 0.3], strict=True):
        made(tmp_path, trial, value)
    results = read_results(tmp_path, trials)
    more = {**results[2].test, "recall@5": 0.1}  # a metric that seed 1 lacks
    baseline, other = summarise_variants([*results[:2], replace(results[2], test=more), results[3]], "none")
    assert (
        set(other.estimates)
        == set(baseline.estimates)
        == {f"{split} {n}" for split in ("test", "valid") for n in NAMES}
    )
    assert other.estimates["test recall@20"].change is None
    assert other.estimates["test recall@20"].mean == pytest.approx(0.3)


def test_a_trial_is_read_as_it_was_written(tmp_path):
    _, trials = study_of(seeds=[0], variants=VARIANTS)
    made(tmp_path, trials[0], 0.1, epochs=4, best=3)
    made(tmp_path, trials[1], 0.2)
    (trial_folder(tmp_path, trials[1]) / "metrics.jsonl").unlink()  # a model that is not trained has no such file
    first, second = read_results(tmp_path, trials)
    assert first.valid == dict.fromkeys(NAMES, 0.2)
    assert first.test == dict.fromkeys(NAMES, 0.1)
    assert first.intervals["ndcg@10"] == pytest.approx((0.09, 0.13))
    assert (first.best_epoch, first.epochs, first.seconds) == (3, 4, 6.0)
    assert (second.best_epoch, second.seconds) == (None, 0.0)
    assert read_fingerprints(tmp_path, trials[0]) == {"dataset": "d"}


def saved(folder, trial, hits, **more):
    """Write a finished run and its ranks, of which about the share `hits` is among the best ten."""
    made(folder, trial, hits)
    ranks = some_ranks(trial.seed + round(1000 * hits), hits)
    save_ranks(trial_folder(folder, trial), ranks, seed=trial.seed, **more)


def test_variants_are_compared_with_the_baseline_user_by_user(tmp_path):
    variants = {"none": {"ablation": "none"}, "ICA": {"ablation": "ICA"}, "CRE": {"ablation": "CRE"}}
    study, trials = study_of(seeds=[0, 1], variants=variants, baseline="none")
    for trial, hits in zip(trials, [0.2, 0.21, 0.4, 0.41, 0.2, None], strict=True):
        if hits is not None:
            saved(tmp_path, trial, hits)
    said = write_report(study, trials, tmp_path)
    paired = json.loads((tmp_path / "results.json").read_text())["paired"]
    assert (paired["without_ranks"], paired["refused"]) == ([], {})
    found = {(c["system"], c["difference"]["metric"]): c for c in paired["comparisons"]}
    assert list(found) == [(name, metric) for name in ("ICA", "CRE") for metric in ("recall@10", "ndcg@10")]
    assert (found["ICA", "recall@10"]["seeds"], found["CRE", "recall@10"]["seeds"]) == ([0, 1], [0])
    one, other = found["ICA", "recall@10"], found["CRE", "recall@10"]["difference"]
    assert 0 < one["difference"]["low"] < one["difference"]["difference"] < one["difference"]["high"]
    assert one["corrected_p"] == pytest.approx(2 * one["difference"]["p"])
    assert (other["difference"], other["p"]) == (0, 1), "both have the same ranks"
    page = (tmp_path / "results.md").read_text()
    assert "## Differences from `none` on test" in page
    assert f"{one['difference']['low']:+.4f} to {one['difference']['high']:+.4f}" in page
    assert "With one seed (CRE) samples draw users only" in page
    assert "p (Holm)" in said
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["difference recall@10"] for row in rows[:2]] == ["", ""]
    for row in rows[2:4]:
        assert float(row["low recall@10"]) == one["difference"]["low"]
        assert float(row["p_holm recall@10"]) == one["corrected_p"]
    assert float(rows[4]["p ndcg@10"]) == 1


def test_variants_that_cannot_be_compared_are_named_and_the_others_are(tmp_path):
    variants = {name: {"model.dim": dim} for name, dim in (("a", 8), ("b", 16), ("c", 32), ("d", 64), ("e", 128))}
    study, trials = study_of(seeds=[0], variants=variants, baseline="a")
    saved(tmp_path, trials[0], 0.2)
    saved(tmp_path, trials[1], 0.3)
    saved(tmp_path, trials[2], 0.3, mask_history=True)
    made(tmp_path, trials[3], 0.3)
    saved(tmp_path, trials[4], 0.3)
    (trial_folder(tmp_path, trials[4]) / "ranks-test.parquet").write_bytes(b"PAR1")
    write_report(study, trials, tmp_path)
    page = (tmp_path / "results.md").read_text()
    paired = json.loads((tmp_path / "results.json").read_text())["paired"]
    assert {c["system"] for c in paired["comparisons"]} == {"b"}
    assert paired["without_ranks"] == ["d-s0"]
    reason = "a and c were ranked with different settings, evaluation.mask_history=false and true"
    assert f"`c` is not compared: {reason}" in page
    assert "`e` is not compared: " in page
    assert "e-s0/ranks-test.parquet: is not a readable file of ranks" in paired["refused"]["e"]


def test_a_study_without_a_baseline_compares_nothing(tmp_path):
    study, trials = study_of(seeds=[0], variants=VARIANTS)
    saved(tmp_path, trials[0], 0.2)
    write_report(study, trials, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["paired"] is None
    assert "Differences from" not in (tmp_path / "results.md").read_text()
