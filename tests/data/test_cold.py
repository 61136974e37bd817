"""Which items are held out of training, and what a dataset with such items holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.dataset import Dataset, write_dataset
from data.prepare.cold import ColdRule, choose_cold, held_out, keyed_hashes
from jobs.prepare_data import main, prepare
from tests.data.engine.in_memory import cold_in_memory
from tests.data.small_files import sequences_of, small_content, write_unisrec

NAMES = st.lists(st.text(max_size=5), min_size=3, max_size=12, unique=True)
ALL = {"min_user_interactions": 1, "min_item_interactions": 1}


def large(names: list[str]) -> pa.Array:
    return pa.array(names, pa.large_string())


@settings(max_examples=15, deadline=None)
@given(NAMES, st.integers(0, 2**63 - 1), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_choice_depends_on_ids_share_and_seed_alone(names: list[str], seed: int, size: int, random: Any) -> None:
    rule = ColdRule(share=0.4, seed=seed)
    cold = choose_cold([large(names)], rule)
    assert cold.tolist() == cold_in_memory(names, rule)
    assert cold.sum() == round(0.4 * len(names))
    other = names.copy()
    random.shuffle(other)
    groups = [large(other[start : start + size]) for start in range(0, len(other), size)]
    again = choose_cold(groups, rule)
    assert {n for n, is_cold in zip(names, cold, strict=True) if is_cold} == {
        n for n, is_cold in zip(other, again, strict=True) if is_cold
    }
    larger = choose_cold([large(names)], ColdRule(share=0.7, seed=seed))
    assert (larger | ~cold).all()  # the items of a smaller share are among those of a larger one


def test_hashes_of_similar_ids_are_spread_and_differ_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = pc.cast(pa.array(range(20_000)), pa.large_string())
    hashes = keyed_hashes(names, 0)
    assert len(np.unique(hashes)) == len(names)
    counts = np.bincount((hashes >> np.uint64(58)).astype(int), minlength=64)
    assert 30 < ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 110  # chi-square, 63 degrees of freedom
    one, other = (choose_cold([names], ColdRule(share=0.3, seed=seed)) for seed in (0, 1))
    assert abs((one & other).mean() - 0.09) < 0.01
    monkeypatch.setattr("data.prepare.cold._BLOCK_BYTES", 7)  # in blocks, and slices of a larger array
    assert (keyed_hashes(names.slice(100, 50), 0) == hashes[100:150]).all()
    assert len(keyed_hashes(large([]), 0)) == 0


def test_targets_stay_and_training_interactions_go(tmp_path: Path) -> None:
    content = small_content([[0, 1, 2, 3], [3, 2, 1], [4, 0, 4, 0, 1], [5, 1], [4, 4]])
    rule = next(
        rule
        for rule in (ColdRule(share=0.34, seed=seed) for seed in range(200))
        if choose_cold([content.item_source_ids], rule).nonzero()[0].tolist() == [0, 4]
    )
    content = replace(
        content,
        sequences=replace(content.sequences, train_end=np.array([2, 1, 3, 1, 2]), valid_end=np.array([3, 2, 4, 1, 2])),
    )
    found = held_out(content, rule)
    dataset = write_dataset(str(tmp_path / "d"), found)
    dataset.validate()
    assert sequences_of(dataset) == [[1, 2, 3], [3, 2, 1], [0, 1], [5, 1]]
    assert dataset.train_end.tolist() == [1, 1, 0, 1]
    assert dataset.valid_end.tolist() == [2, 2, 1, 1]
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [101, 102, 103, 100, 101, 102, 103, 104, 100, 101]
    assert dataset.user_source_ids().to_pylist() == ["u0", "u1", "u2", "u3"]
    cold = dataset.cold_items()
    assert cold is not None
    assert cold.nonzero()[0].tolist() == [0, 4]
    assert not dataset.popularity()[cold].any()
    assert dataset.manifest["dropped"] == {
        "duplicates": 3, "training_interactions_of_cold_items": 6, "users_of_cold_items_only": 1,
    }  # fmt: skip
    assert dataset.manifest["split"] == {"cold_items": {"share": 0.34, "seed": rule.seed, "count": 2}}


def histories() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.permutation(12)[:6].tolist() for _ in range(30)]


def from_table(root: Path, **options: Any) -> Dataset:
    rows = [(user, item, 100 * user + place) for user, own in enumerate(histories()) for place, item in enumerate(own)]
    users, items, times = zip(*rows, strict=True)
    table = {"user": [f"u{user}" for user in users], "item": [f"i{item}" for item in items], "timestamp": times}
    pq.write_table(pa.table(table), root / "raw.parquet")
    return prepare("table", str(root / "out"), str(root / "raw.parquet"), **ALL, **options)


def from_lists(root: Path, **options: Any) -> Dataset:
    (root / "x.txt").write_text(
        "".join(f"u{u} {' '.join(f'i{i}' for i in own)}\n" for u, own in enumerate(histories()))
    )
    return prepare("lists", str(root / "out"), str(root / "x.txt"), **ALL, **options)


def from_own_split(root: Path, **options: Any) -> Dataset:
    rows = ["userID\titemID\ttimestamp\tx_label"]
    rows += [f"{u}\t{i}\t{10**9 + n}\t{min(n // 2, 2)}" for u, own in enumerate(histories()) for n, i in enumerate(own)]
    (root / "x.inter").write_text("\n".join(rows) + "\n")
    return prepare("mmrec", str(root / "out"), str(root / "x.inter"), **options)


def from_unisrec(root: Path, **options: Any) -> Dataset:
    return prepare("unisrec", str(root / "out"), str(write_unisrec(root / "folder", histories())), **options)


def made_up(root: Path, **options: Any) -> Dataset:
    return prepare("synthetic", str(root / "out"), num_users=40, num_items=30, **options)


MAKERS: dict[str, tuple[Callable[..., Dataset], dict[str, Any]]] = {
    "table": (from_table, {}),
    "by time": (from_table, {"split": "global-time", "valid_fraction": 0.5, "test_fraction": 0.75}),
    "short histories": (from_table, {"max_history": 3}),
    "lists": (from_lists, {}),
    "own split": (from_own_split, {}),
    "unisrec": (from_unisrec, {}),
    "synthetic": (made_up, {"seed": 3}),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_holds_items_out(tmp_path: Path, kind: str) -> None:
    """The dataset is the one without held-out items, less the training interactions of these and empty users."""
    make, options = MAKERS[kind]
    found = []
    for name, more in (("plain", {}), ("held out", {"cold_item_share": 0.25})):
        (tmp_path / name).mkdir()
        found.append(make(tmp_path / name, **options, **more))
        found[-1].validate()
    plain, dataset = found
    assert plain.cold_items() is None
    assert "cold" not in pq.read_schema(plain.folder / "items.parquet").names
    cold = dataset.cold_items()
    assert cold is not None
    seed = options.get("seed", 0)
    assert cold.tolist() == cold_in_memory(plain.item_source_ids().to_pylist(), ColdRule(share=0.25, seed=seed))
    rule = {"share": 0.25, "seed": seed, "count": round(0.25 * dataset.num_items)}
    assert dataset.manifest["split"] == {**plain.manifest["split"], "cold_items": rule}
    expected, num_dropped, num_empty = {}, 0, 0
    for user, items, end in zip(plain.user_source_ids().to_pylist(), sequences_of(plain), plain.train_end, strict=True):
        training = [item for item in items[:end] if not cold[item]]
        num_dropped += int(end) - len(training)
        if training or items[end:]:
            expected[user] = (training, items[end:])
        else:
            num_empty += 1
    ends = dataset.train_end
    assert expected == {
        user: (items[:end], items[end:])
        for user, items, end in zip(dataset.user_source_ids().to_pylist(), sequences_of(dataset), ends, strict=True)
    }
    counts = {"training_interactions_of_cold_items": num_dropped, "users_of_cold_items_only": num_empty}
    assert num_dropped
    assert dataset.manifest["dropped"] == {**plain.manifest["dropped"], **counts}


def test_the_summary_says_what_is_held_out(tmp_path: Path) -> None:
    output = str(tmp_path / "d")
    arguments = ["--format", "synthetic", "--num-users", "40", "--num-items", "30", "--output", output]
    said = CliRunner().invoke(main, [*arguments, "--cold-item-share", "0.2", "--seed", "5"])
    assert said.exit_code == 0, said.output
    dataset = Dataset.open(output)
    cold = dataset.cold_items()
    assert cold is not None
    valid, test = (
        sum(cold[own[start]] for own, start in zip(sequences_of(dataset), ends, strict=True))
        for ends in (dataset.train_end, dataset.valid_end)
    )
    assert (
        "cold items, which are in no training sequence: 6 of 30, chosen with seed 5; their interactions for "
        f"validation: {valid}, test: {test}" in said.output.splitlines()
    )


def test_a_cold_item_in_training_is_named(tmp_path: Path) -> None:
    cold = np.zeros(6, bool)
    cold[4] = True
    dataset = write_dataset(str(tmp_path / "d"), replace(small_content(), item_columns=pa.table({"cold": cold})))
    with pytest.raises(InputError, match=r"sequences.arrow: user 2 has item 4 in training, which items.parquet says"):
        dataset.validate()


def test_a_column_of_another_kind_is_not_about_cold_items(tmp_path: Path) -> None:
    """Earlier versions let users carry a column of this name."""
    content = replace(small_content(), item_columns=pa.table({"cold": ["yes", "no"] * 3}))
    assert write_dataset(str(tmp_path / "d"), content).cold_items() is None
