"""Recommending for a table of histories: the lists of the predictor, part by part, continued after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from configs.schema import Config
from jobs import recommend
from serving import batch, batch_plan
from serving.loading import load
from serving.predictor import Predictor
from tests.packages import ROOT
from tests.serving.runs import trained

K, USERS, PART = 5, 230, 50
ROWS_PER_GROUP = 90


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return trained(folders, tmp_path_factory.mktemp("trained") / "run", "sasrec")


@pytest.fixture(scope="module")
def table(run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two files, with empty histories, unknown items, and filters for each user."""
    rng = np.random.default_rng(6)
    names = [*load(str(run.run)).item_ids, "unknown"]

    def lists(longest: int) -> list[list[str]]:
        return [[names[i] for i in rng.integers(0, len(names), size)] for size in rng.integers(0, longest, USERS)]

    content = pa.table(
        {
            "user": [f"new{number}" for number in range(USERS)],
            "other": np.arange(USERS),
            "history": lists(12),
            "exclude": lists(4),
            "allow": lists(40),
        }
    )
    folder = tmp_path_factory.mktemp("table")
    pq.write_table(content.slice(0, 200), folder / "a.parquet", row_group_size=ROWS_PER_GROUP)
    (folder / "deeper").mkdir()
    pq.write_table(content.slice(200), folder / "deeper/b.parquet")
    return folder


def arguments(run: Config, table: Path, output: Path, *more: str) -> list[str]:
    options = {"run": run.run, "histories": table, "output": output, "k": K, "users-per-part": PART}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [*given, "--set", "cluster.num_workers=1", *more]


def invoke(*given: str, status: int = 0) -> str:
    result = CliRunner().invoke(recommend.main, given)
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_lists_are_those_of_the_predictor_for_the_same_rows(run: Config, table: Path, tmp_path: Path) -> None:
    said = invoke(*arguments(run, table, tmp_path / "out"))
    # A file of 200 rows has row groups of 90, 90 and 20 rows; each is divided on its own.
    assert f"wrote {tmp_path}/out: up to 5 items for each of 230 users, in 6 files" in said
    predictor, rows = load(str(run.run)), pq.read_table(table, partitioning=None)
    bounds = [0, 50, 90, 140, 180, 200, 230]
    unknown = popular = 0
    for number, (start, stop) in enumerate(pairwise(bounds)):
        part = rows.slice(start, stop - start)
        found = predictor.recommend(
            part.column("history"), K, exclude=part.column("exclude"), allow=part.column("allow")
        )
        wanted = found.to_table(part.column("user").to_pylist())
        assert pq.read_table(tmp_path / f"out/part-{number:08d}.parquet").equals(wanted)
        unknown, popular = unknown + int(found.unknown.sum()), popular + int(found.is_popular.sum())
    finished = json.loads((tmp_path / "out/_finished.json").read_text())
    chosen = [*rows["exclude"].to_pylist(), *rows["allow"].to_pylist()]
    choices = sum(one.count("unknown") for one in chosen)
    assert finished == {
        "parts": 6, "users": USERS, "unknown_ids": unknown, "unknown_choices": choices, "popular": popular,
        "numbers": 0,
    }  # fmt: skip
    assert f"note: {choices:,} ids of exclude and allow are not in the catalogue" in said
    assert unknown > 0
    assert popular > 0
    assert f"note: {unknown:,} ids of histories are not in the catalogue" in said
    assert f"note: {popular:,} users have no known item" in said
    assert pq.read_table(tmp_path / "out").num_rows == sum(
        pq.read_table(path).num_rows for path in (tmp_path / "out").glob("part-*")
    )


@pytest.mark.long
def test_a_killed_job_is_continued_to_the_same_bytes(run: Config, table: Path, tmp_path: Path) -> None:
    invoke(*arguments(run, table, tmp_path / "calm", "--users-per-part", "3"))
    command = [sys.executable, "jobs/recommend.py", *arguments(run, table, tmp_path / "out", "--users-per-part", "3")]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while len(list((tmp_path / "out").glob("part-*"))) < 4 and job.poll() is None:
        time.sleep(0.002)
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL, "it ended before it was killed"
    begun = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert not (tmp_path / "out/_finished.json").exists()
    said = invoke(*arguments(run, table, tmp_path / "out", "--users-per-part", "3"))
    assert f"continuing: {len(begun):,} of 77 parts are there" in said
    assert content(tmp_path / "out") == content(tmp_path / "calm")
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == when for name, when in begun.items())


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_workers_write_the_same_files(run: Config, table: Path, tmp_path: Path) -> None:
    invoke(*arguments(run, table, tmp_path / "one"))
    more = ["--set", "cluster.num_workers=2", "--set", "cluster.address=local"]
    invoke(*arguments(run, table, tmp_path / "two", *more))
    assert content(tmp_path / "two") == content(tmp_path / "one")
    shutil.copytree(table, tmp_path / "table")
    broken = pq.read_table(tmp_path / "table/a.parquet").slice(0, 3).to_pylist()
    broken[1]["history"] = [None]
    pq.write_table(pa.Table.from_pylist(broken), tmp_path / "table/a.parquet")
    said = invoke(*arguments(run, tmp_path / "table", tmp_path / "three", *more), status=2)
    assert (
        f"error: --histories {tmp_path}/table/a.parquet, row group 0, rows 0 to 2: histories: item 0 of list 1" in said
    )


def test_another_command_does_not_continue_a_folder(run: Config, table: Path, tmp_path: Path) -> None:
    invoke(*arguments(run, table, tmp_path / "out"))
    before = content(tmp_path / "out")
    for more, said in (
        (["--k", "4"], "was begun with another k, 5 instead of 4"),
        (["--keep-history"], "was begun with another hide_history, True instead of False"),
        (["--users-per-part", "7"], "was begun with another --users-per-part; repeat that command"),
    ):
        assert said in invoke(*arguments(run, table, tmp_path / "out", *more), status=2)
        assert content(tmp_path / "out") == before
    invoke(*arguments(run, table, tmp_path / "out", "--k", "4", "--overwrite"))
    assert pq.read_table(tmp_path / "out").column("rank").to_numpy().max() == 4


def test_settings_of_evaluation_count_and_are_part_of_the_command(run: Config, folders: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"], "history": [[3, 4, 5]]}), tmp_path / "t.parquet")
    invoke(*arguments(run, tmp_path / "t.parquet", tmp_path / "own"))
    more = ["--set", "evaluation.cooccurrence_weight=5", "--set", f"graph={folders}/graph"]
    assert "was begun with another" in invoke(
        *arguments(run, tmp_path / "t.parquet", tmp_path / "own", *more), status=2
    )
    invoke(*arguments(run, tmp_path / "t.parquet", tmp_path / "other", *more))
    changed = load(str(run.run), graph=str(folders / "graph"), settings={"evaluation.cooccurrence_weight": 5})
    wanted = changed.recommend([[3, 4, 5]], K).to_table(["u"])
    assert pq.read_table(tmp_path / "other/part-00000000.parquet").equals(wanted)
    assert not pq.read_table(tmp_path / "own/part-00000000.parquet").equals(wanted)


def test_a_table_that_is_gone_is_named(run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"user": ["u", "v"], "history": [[3], [4]]}), tmp_path / "t.parquet")
    opened = batch.open_predictor

    def open_and_remove(request: batch_plan.Request) -> Predictor:
        (tmp_path / "t.parquet").unlink()
        return opened(request)

    monkeypatch.setattr(batch, "open_predictor", open_and_remove)
    said = invoke(*arguments(run, tmp_path / "t.parquet", tmp_path / "out"), status=2)
    assert f"error: --histories {tmp_path}/t.parquet: row group 0 cannot be read" in said


def test_a_copied_table_and_a_damaged_part_are_no_obstacle(run: Config, table: Path, tmp_path: Path) -> None:
    invoke(*arguments(run, table, tmp_path / "out"))
    before = content(tmp_path / "out")
    for file in table.rglob("*.parquet"):
        os.utime(file)
    part = tmp_path / "out/part-00000002.parquet"
    whole = part.read_bytes()
    for damaged in (b"", whole[:100], *(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in (40, 90, 200))):
        part.write_bytes(damaged)
        assert "continuing: 5 of 6 parts are there" in invoke(*arguments(run, table, tmp_path / "out"))
        assert content(tmp_path / "out") == before


def test_files_use_one_kind_of_ids(run: Config, tmp_path: Path) -> None:
    for name, history in (("a", [["x"]]), ("b", [[1]]), ("c", [[]])):
        pq.write_table(pa.table({"user": ["u"], "history": history}), tmp_path / f"{name}.parquet")
    said = invoke(*arguments(run, tmp_path, tmp_path / "out"), status=2)
    assert (
        f"{tmp_path}/b.parquet: gives items as whole numbers, which are dense ids, and {tmp_path}/a.parquet as" in said
    )


def test_a_table_that_changed_is_not_continued(run: Config, table: Path, tmp_path: Path) -> None:
    shutil.copytree(table, tmp_path / "table")
    invoke(*arguments(run, tmp_path / "table", tmp_path / "out"))
    rows = pq.read_table(tmp_path / "table/a.parquet")
    pq.write_table(rows, tmp_path / "table/a.parquet", row_group_size=ROWS_PER_GROUP, compression="none")
    assert "another table of histories, or this one has changed since" in invoke(
        *arguments(run, tmp_path / "table", tmp_path / "out"), status=2
    )


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("user", None, "has no column user, only history, exclude, allow"),
        ("history", None, "has no column history"),
        ("history", ["a", "b"], "column history holds string; expected lists of item ids"),
        ("exclude", [1, 2], "column exclude holds int64; expected lists of item ids"),
        (
            "history",
            [["a"], None],
            "row group 0, rows 0 to 1: column history is missing in row 1; give an empty",
        ),
        ("user", ["x", None], "column user is missing in row 1; give every user an id"),
        ("user", [0.5, 1.0], "column user holds double; expected text or whole numbers"),
        ("history", [["a"], ["b", None]], "histories: item 1 of list 1 is missing (None)"),
        ("history", [[0.5], [1.5]], "histories: holds values of type double, such as 0.5"),
    ],
)
def test_a_wrong_table_is_named(
    run: Config, tmp_path: Path, column: str, values: list[object] | None, said: str
) -> None:
    columns: dict[str, object] = {"user": ["x", "y"], "history": [["a"], []], "exclude": [[], []], "allow": [["a"], []]}
    columns = {name: value for name, value in {**columns, column: values}.items() if value is not None}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    shown = invoke(*arguments(run, tmp_path / "t.parquet", tmp_path / "out"), status=2)
    assert said in shown.splitlines()[-1]
    assert shown.splitlines()[-1].startswith(f"error: --histories {tmp_path}/t.parquet")


def test_what_is_no_table_and_no_output(run: Config, table: Path, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("user,history\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    pq.write_table(pa.table({"user": pa.array([], pa.string()), "history": pa.array([], pa.list_(pa.string()))}),
                   tmp_path / "none.parquet")  # fmt: skip
    out = tmp_path / "out"
    for histories, output, said in (
        (tmp_path / "no.parquet", out, "no.parquet: is not there; name a Parquet file"),
        (tmp_path / "text.parquet", out, "text.parquet: is not a Parquet file"),
        (tmp_path / "empty", out, "the folder holds no .parquet file"),
        (tmp_path / "none.parquet", out, "has no rows, so there is nobody to recommend for"),
        (table, tmp_path / "other", "holds other files, so it is never replaced"),
        (table, tmp_path / "text.parquet", "exists and is not a folder"),
        (table, tmp_path / "no/out", "the folder that it is in does not exist"),
    ):
        assert said in invoke(*arguments(run, histories, output), status=2)
    assert not out.exists()
    assert (tmp_path / "other/notes.txt").read_text() == "mine"
