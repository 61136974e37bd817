"""Cases of bad input for jobs/compare.py: which runs are named, and which ranks they have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import Damage, both, copy, cut, json_field, remove, write

_OTHER = "twin/ranks-test.parquet"
_TWO = "compare --runs {here}/run {here}/twin --baseline run"


def _twin(here: Path) -> None:
    """Copy the run, so that there are two."""
    shutil.copytree(here / "run", here / "twin")


def _facts(**changes: Any) -> Damage:
    """Change what the second run's file of ranks says about itself. A mapping is merged with the one that is there."""

    def change(facts: dict[str, Any]) -> dict[str, Any]:
        return facts | {k: facts[k] | v if isinstance(v, dict) else v for k, v in changes.items()}

    return _rewritten(change)


def _rewritten(change: Callable[[dict[str, Any]], dict[str, Any]], rows: int | None = None) -> Damage:
    def spoil(here: Path) -> None:
        table = pq.read_table(here / _OTHER).slice(0, rows)
        facts = change(json.loads(table.schema.metadata[b"mdsrec_ranks"]))
        pq.write_table(table.replace_schema_metadata({b"mdsrec_ranks": json.dumps(facts)}), here / _OTHER)

    return spoil


def _after_copying(*damages: Damage) -> Damage:
    return both(_twin, *damages)


NAMES = Group(
    "jobs/compare.py: which runs, and what of them",
    (
        Case("one run", "compare --runs {here}/run --baseline run"),
        Case("no baseline", "compare --runs {here}/run {here}/twin", _twin),
        Case("a baseline that is none of the runs", _TWO.replace("baseline run", "baseline sasrec"), _twin),
        Case("a run twice", "compare --runs {here}/run {here}/run/ --baseline run"),
        Case(
            "one name with the same seed twice",
            "compare --runs a={here}/run a={here}/twin b={here}/run2 --baseline a",
            both(_twin, lambda here: shutil.copytree(here / "run", here / "run2")),
        ),
        Case("a metric that does not exist", f"{_TWO} --metric mrr@10", _twin),
        Case("a metric without a cut-off", f"{_TWO} --metric recall", _twin),
        Case("a metric twice", f"{_TWO} --metric ndcg@5 --metric ndcg@5", _twin),
        Case("a split without targets to rank", f"{_TWO} --split train", _twin),
        Case("a result that is none", f"{_TWO} --result plan.txt", _twin),
        Case("targets of a group, of a dataset without groups", f"{_TWO} --targets cold", _twin),
        Case("ranks within domains, of one dataset", f"{_TWO} --among domain", _twin),
        Case("candidates that are no grouping", f"{_TWO} --among cold", _twin),
        Case("a result that a run does not have", f"{_TWO} --result evaluation-latest.json", _twin),
    ),
)  # fmt: skip

RANKS = Group(
    "jobs/compare.py: ranks",
    (
        Case("a run that is not there", _TWO),
        Case("a run that has not ended", _TWO, _after_copying(remove("twin/metrics.json"))),
        Case("a run whose metrics are cut off", _TWO, _after_copying(cut("twin/metrics.json", 0.5))),
        Case("a run of an earlier version, without ranks", _TWO, _after_copying(remove(_OTHER))),
        Case(
            "ranks of an earlier checkpoint",
            _TWO,
            _after_copying(json_field("twin/metrics.json", "best_step", value=9)),
        ),
        Case("ranks that are cut off", _TWO, _after_copying(cut(_OTHER, 0.5))),
        Case("ranks that are no Parquet file", _TWO, _after_copying(write(_OTHER, "user,rank\n"))),
        Case("a Parquet file of something else", _TWO, _after_copying(copy("raw.parquet", _OTHER))),
        Case("runs on different datasets", _TWO, _after_copying(_facts(fingerprints={"dataset": "0" * 64}))),
        Case("history hidden for one run only", _TWO, _after_copying(_facts(settings={"mask_history": True}))),
        Case("ties counted differently", _TWO, _after_copying(_facts(settings={"ties": "id"}))),
        Case("ranks of another split", _TWO, _after_copying(copy("run/ranks-valid.parquet", _OTHER))),
        Case("fewer targets in one run", _TWO, _after_copying(_rewritten(dict, rows=50))),
        Case(
            "no seed in common",
            "compare --runs a={here}/run a={here}/run2 b={here}/twin --baseline a",
            _after_copying(
                lambda here: shutil.copytree(here / "twin", here / "run2"),
                lambda here: (_facts(seed=5)(here), shutil.copy(here / _OTHER, here / "run2/ranks-test.parquet"))[0],
                _facts(seed=7),
            ),
        ),
    ),
)  # fmt: skip

GROUPS = (NAMES, RANKS)
