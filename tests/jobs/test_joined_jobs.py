"""Every job works on a run that was trained on two datasets, in this process: ids have the names of their datasets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import mdsrec
from contracts.errors import InputError
from data.joined import open_datasets
from jobs import case_study, compare, config, evaluate, export, recommend, train

SMALL = [
    "model.dim=8", "model.num_heads=2", "model.max_length=8", "training.batch_size=64", "training.max_epochs=1",
    "training.domains=apart", "evaluation.bootstrap_samples=10", "cluster.num_workers=1", "evaluation.save_ranks=true",
]  # fmt: skip


def command(job, *arguments, status=0):
    result = CliRunner().invoke(job.main, [str(part) for part in arguments])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def trained(folder, run, *more, status=0):
    places = [f"dataset=[{folder}/A,{folder}/B]", f"graph=[{folder}/GA,{folder}/GB]", f"run={run}"]
    return command(train, *(part for one in (*places, *SMALL, *more) for part in ("--set", one)), status=status)


@pytest.fixture(scope="module")
def run(two_domains, tmp_path_factory):
    run = tmp_path_factory.mktemp("joined") / "run"
    trained(two_domains, run)
    return run


@pytest.mark.long
def test_jobs_work_on_a_run_of_two_datasets(two_domains, tmp_path, run):
    data = open_datasets([f"{two_domains}/A", f"{two_domains}/B"])
    items, users = (set(ids.to_pylist()) for ids in (data.item_source_ids(), data.user_source_ids()))
    assert {one.partition("/")[0] for one in items} == {"A", "B"}
    shown = command(config, run)
    assert f'["{two_domains}/A", "{two_domains}/B"]' in shown
    assert "nothing is left to train" in trained(two_domains, run)
    assert "wrote" in command(evaluate, "--run", run, "--set", "evaluation.mask_history=true")

    command(recommend, "--run", run, "--k", 5, "--output", tmp_path / "recs.parquet")
    table = pq.read_table(tmp_path / "recs.parquet")
    assert set(table.column("user").to_pylist()) == users
    assert set(table.column("item").to_pylist()) <= items

    histories = pa.table({"user": ["me", "you"], "history": [sorted(items)[:3], sorted(items)[-2:]]})
    pq.write_table(histories, tmp_path / "histories.parquet")
    for _ in range(2):  # the second one finds that all is done
        files = ("--histories", tmp_path / "histories.parquet", "--output", tmp_path / "recs")
        command(recommend, "--run", run, "--k", 5, *files)
    (part,) = (tmp_path / "recs").glob("*.parquet")
    assert pq.read_table(part).column("user").to_pylist() == ["me"] * 5 + ["you"] * 5

    for what in ("items", "users"):
        command(export, "--run", run, "--what", what, "--output", tmp_path / f"{what}.parquet")
        found = pq.read_table(tmp_path / f"{what}.parquet").column(what[:-1]).to_pylist()
        assert set(found) == (items if what == "items" else users)
    command(case_study, "--run", run, "--items", "B/item-5", "--users", "A/user-3", "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "B/item-5" in page
    assert "A/user-3" in page
    trained(two_domains, tmp_path / "other", "model.name=popularity")
    assert "ndcg@10" in command(compare, "--runs", run, tmp_path / "other", "--baseline", tmp_path / "other")


@pytest.mark.long
def test_a_predictor_knows_items_of_both_datasets(two_domains, run):
    predictor = mdsrec.load(str(run), device="cpu")
    names = predictor.item_ids
    (history,) = predictor.histories_of(["B/user-7"])
    assert history.min() >= 40
    lists = predictor.recommend([history, np.array([0, 84])], k=4, explain=True)
    assert lists.explain(0) is not None
    scores = [predictor.recommend([history], k=85, hide_history=False).scores for _ in range(2)]
    assert np.array_equal(*scores)
    for by in ("vectors", "text", "bought together"):
        assert len(predictor.similar_items(names[50], k=3, by=by).items) == 3
    with pytest.raises(InputError, match="has no image"):
        predictor.similar_items(names[50], k=3, by="image")
    places = {"dataset": [f"{two_domains}/A", f"{two_domains}/B"], "graph": [f"{two_domains}/GA", f"{two_domains}/GB"]}
    again = mdsrec.load(str(run), device="cpu", **places)
    assert np.array_equal(again.recommend([history, np.array([0, 84])], k=4).scores, lists.scores)


@pytest.mark.long
def test_a_dataset_that_has_moved_is_named(two_domains, tmp_path, run):
    moved = tmp_path / "run"
    moved.mkdir()
    (moved / "config.yaml").write_text((run / "config.yaml").read_text().replace(f"{two_domains}/B", "/gone/B"))
    output = command(evaluate, "--run", moved, status=2)
    assert "its dataset /gone/B is not there; if it has moved, say where it is now with " in output
    assert f"--set dataset=[{two_domains}/A,DATASET]" in output


@pytest.mark.long
def test_two_datasets_continue_a_run_and_start_from_one_of_the_first(two_domains, tmp_path):
    """The items of A are the first items of both, so their rows are loaded."""
    first = tmp_path / "first"
    settings = (f"dataset={two_domains}/A", "graph=null", f"run={first}", "model.name=sasrec", *SMALL)
    command(train, *(part for one in settings for part in ("--set", one)))
    output = trained(two_domains, tmp_path / "both", "model.name=sasrec", "graph=null", f"training.start_from={first}")
    assert "loaded: 40 old items; 45 new items are fresh" in output
