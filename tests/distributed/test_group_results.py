"""Results by groups of items: cold, warm and never trained targets, and the targets of several domains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data.dataset import Dataset, write_dataset
from data.domains import Domain
from data.writing import DatasetContent, Sequences
from distributed.inference.scoring import SPLITS
from distributed.training.trainer import train
from distributed.world import world_of_one
from evaluation.metrics import ranking_metrics
from jobs import compare, evaluate
from tests.distributed.runs import config_of

NUM_ITEMS, NUM_USERS, LENGTH = 40, 60, 7
COLD, NEVER = (0, 1, 20, 21, 22), (2, 39)
KS = "evaluation.ks=[2,10]"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset: half of the users have items 0 to 19, half have the others. Some targets are cold."""
    root, rng = tmp_path_factory.mktemp("groups"), np.random.default_rng(0)
    histories = []
    for user in range(NUM_USERS):
        own = np.arange(20) + 20 * (user >= NUM_USERS // 2)
        warm = np.setdiff1d(own, [*COLD, *NEVER])
        untrained = np.setdiff1d(own, warm)
        history = rng.choice(warm, LENGTH, p=np.arange(1, len(warm) + 1) / np.arange(1, len(warm) + 1).sum())
        if user % 3 == 0:
            history[-1 - user % 2] = rng.choice(untrained)
        histories.append(history)
    write_dataset(
        str(root / "dataset"),
        DatasetContent(
            sequences=Sequences(
                offsets=LENGTH * np.arange(NUM_USERS + 1),
                items=np.concatenate(histories),
                timestamps=None,
                train_end=np.full(NUM_USERS, LENGTH - 2),
                valid_end=np.full(NUM_USERS, LENGTH - 1),
            ),
            user_source_ids=pa.array([f"u{user}" for user in range(NUM_USERS)]),
            item_source_ids=pa.array([f"{item}" for item in range(NUM_ITEMS)]),
            item_columns=pa.table({"cold": np.isin(np.arange(NUM_ITEMS), COLD)}),
        ),
    )
    return root


@pytest.fixture
def two_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a dataset say that it consists of two, as joined datasets do."""

    def domains(data: Dataset) -> tuple[Domain, ...]:
        assert data.num_items == NUM_ITEMS
        return tuple(
            Domain(name=name, path="", fingerprint="", first_user=30 * n, num_users=30, first_item=20 * n, num_items=20)
            for n, name in enumerate(("Left", "Right"))
        )

    monkeypatch.setattr(Dataset, "domains", property(domains))


def saved(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


@pytest.mark.parametrize("rule", ["pessimistic", "optimistic", "id"])
@pytest.mark.usefixtures("two_domains")
def test_popularity_ranks_within_groups_as_counting_by_hand_does(data: Path, tmp_path: Path, rule: str) -> None:
    with world_of_one() as world:
        metrics = train(config_of(data, tmp_path / "run", "popularity", f"evaluation.ties={rule}", KS), world)
    counts = Dataset.open(str(data / "dataset")).popularity()
    training = np.select(
        [np.isin(np.arange(NUM_ITEMS), group) for group in (COLD, NEVER)], ["cold", "never trained"], "warm"
    )
    domain = np.where(np.arange(NUM_ITEMS) < 20, "Left", "Right")
    for split in SPLITS:
        found = saved(tmp_path / "run" / f"ranks-{split}.parquet")
        items = found["item"].astype(int)
        for name, group in (("domain", domain), ("training", training)):
            assert found[name].tolist() == group[items].tolist()
            for item, rank in zip(items, found[f"rank_in_{name}"], strict=True):
                rivals = [i for i in np.flatnonzero(group == group[item]) if i != item]
                ties = {"pessimistic": True, "optimistic": False, "id": None}[rule]
                above = [
                    counts[i] > counts[item] or (counts[i] == counts[item] and (i < item if ties is None else ties))
                    for i in rivals
                ]
                assert rank == 1 + sum(above)
        slices = metrics["details"][split]["slices"]
        for name, candidates, size in (("cold", "cold items", 5), ("warm", "warm items", 33)):
            own = found["training"] == name
            facts = {"candidates": size, "chance": slices[f"target {name}, among {candidates}"]["chance"]}
            expected = {"targets": own.sum(), **ranking_metrics(found["rank_in_training"][own], (2, 10)), **facts}
            assert slices[f"target {name}, among {candidates}"] == expected
            assert slices[f"target {name}"]["recall@10"] == ranking_metrics(found["rank"][own], (10,))["recall@10"]
        assert slices["target cold, among cold items"]["chance"]["recall@2"] == pytest.approx(2 / 5)
        assert slices["target cold, among cold items"]["chance"]["recall@10"] == 1
        for name in ("Left", "Right"):
            own = found["domain"] == name
            assert slices[f"target in {name}"] == {"targets": 30, **ranking_metrics(found["rank"][own], (2, 10))}
            among = slices[f"target in {name}, among items of {name}"]
            assert among["recall@2"] == ranking_metrics(found["rank_in_domain"][own], (2,))["recall@2"]
        overall = slices["target in any domain, among items of its own domain"]
        assert overall == {"targets": 60, **ranking_metrics(found["rank_in_domain"], (2, 10))}
    assert (found["rank_in_domain"] <= found["rank"]).all()
    assert (found["rank_in_domain"] < found["rank"]).any()


@pytest.mark.long
@pytest.mark.usefixtures("two_domains")
def test_epochs_are_reported_by_domain_and_the_checkpoint_is_chosen_as_asked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The rate is so small that items of the other domain still rank high.
    settings = ("graph=null", KS, "training.metric=recall@10", "training.max_epochs=2", "training.learning_rate=1e-5")
    for among in ("all", "domain"):
        run = tmp_path / among
        config = config_of(data, run, "sasrec", *settings, f"training.metric_among={among}")
        with world_of_one() as world:
            train(config, world)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        progress = json.loads(max((run / "checkpoints").glob("*/progress.json")).read_text())
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
        for record, line in zip(records, lines, strict=True):
            by_domain, inside = record["valid_by_domain"], record["valid_in_domain"]
            halves = [by_domain["Left/recall@10"], by_domain["Right/recall@10"]]
            assert record["valid"]["recall@10"] == pytest.approx(np.mean(halves))
            halves_inside = [inside["Left/recall@10"], inside["Right/recall@10"]]
            assert inside["recall@10"] == pytest.approx(np.mean(halves_inside))
            assert inside["recall@10"] >= record["valid"]["recall@10"]
            shown = halves if among == "all" else halves_inside
            assert f", in Left {shown[0]:.4f}, in Right {shown[1]:.4f}, " in line
        chosen = [record["valid" if among == "all" else "valid_in_domain"]["recall@10"] for record in records]
        assert progress["best_metric"] == max(chosen)
    assert any(record["valid"]["recall@10"] != record["valid_in_domain"]["recall@10"] for record in records)


def test_the_record_of_one_dataset_is_as_before(data: Path, tmp_path: Path) -> None:
    with world_of_one() as world:
        train(config_of(data, tmp_path, "sasrec", "graph=null", "training.max_epochs=1"), world)
    (record,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert not [name for name in record if name.startswith("valid_")]


@pytest.mark.long
def test_evaluate_prints_groups_and_chance_and_compare_reads_them(data: Path, tmp_path: Path) -> None:
    with world_of_one() as world:
        for model in ("popularity", "sasrec"):
            more = ("graph=null", KS, "training.max_epochs=1", "evaluation.bootstrap_samples=10")
            train(config_of(data, tmp_path / model, model, *more), world)
    printed = CliRunner().invoke(evaluate.main, ["--run", f"{tmp_path}/popularity", "--set", "cluster.num_workers=1"])
    assert printed.exit_code == 0, printed.output
    (chance,) = [
        line for line in printed.output.splitlines() if "test, target cold, among cold items: by chance" in line
    ]
    assert chance.split()[-4:-2] == ["0.4000", "1.0000"]
    metrics = {m: json.loads((tmp_path / m / "metrics.json").read_text()) for m in ("popularity", "sasrec")}
    given = ["--runs", str(tmp_path / "popularity"), str(tmp_path / "sasrec"), "--baseline", "popularity"]
    for options, name in (
        (["--targets", "cold"], "target cold"),
        (["--targets", "cold", "--among", "training"], "target cold, among cold items"),
        (
            ["--targets", "never trained", "--among", "training"],
            "target never trained, among items that were never trained",
        ),
    ):
        compared = CliRunner().invoke(compare.main, [*given, "--metric", "recall@2", *options])
        assert compared.exit_code == 0, compared.output
        (row,) = [line.split() for line in compared.output.splitlines() if line.startswith("sasrec")]
        expected = [f"{metrics[m]['details']['test']['slices'][name]['recall@2']:.4f}" for m in metrics]
        assert row[3:5] == expected
    assert (
        "Only targets of the group 'never trained'; each is ranked among the items of its own group" in compared.output
    )
