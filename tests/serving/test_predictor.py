"""A predictor gives, for any histories, what the jobs give for those of the dataset; and it says what is unusual."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist

import mdsrec
from configs.schema import Config
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from data.dataset import Dataset
from distributed.inference.evaluate import evaluate
from distributed.inference.recommend import recommend
from distributed.world import world_of_one
from serving.loading import load
from serving.predictor import Predictor
from tests.packages import ROOT
from tests.serving.runs import GAINS, set_repeats, trained

K = 6


def users_of(dataset: Dataset) -> list[str]:
    return dataset.user_source_ids().to_pylist()


@pytest.fixture(scope="module")
def gained(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of MDSRec with gains for repeats and for co-occurrence."""
    config = trained(folders, tmp_path_factory.mktemp("gained") / "run", "mdsrec", *GAINS)
    set_repeats(config, -1.5, 0.5, 1.0)
    return config


@pytest.fixture(scope="module")
def predictor(gained: Config) -> Predictor:
    return load(str(gained.run))


@pytest.mark.parametrize("hide", [False, True], ids=["history kept", "history hidden"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_lists_are_those_of_the_recommend_job_to_the_last_digit(
    folders: Path, tmp_path: Path, name: str, hide: bool
) -> None:
    config = trained(folders, tmp_path / "run", name)
    with world_of_one() as world:
        recommend(config, world, "best", K, str(tmp_path / "lists.parquet"), hide)
    assert not dist.is_initialized()
    predictor = load(str(tmp_path / "run"))
    users = users_of(Dataset.open(str(folders / "dataset")))
    found = predictor.recommend(predictor.histories_of(users), K, hide_history=hide)
    assert found.to_table(users) == pq.read_table(tmp_path / "lists.parquet")
    assert found.note == ""


@pytest.mark.parametrize("name", SYSTEMS)
def test_places_of_targets_are_the_ranks_of_the_evaluate_job(folders: Path, tmp_path: Path, name: str) -> None:
    """The batches of users differ, so two scores that are closer than rounding may change places."""
    config = trained(folders, tmp_path / "run", name, "evaluation.mask_history=false")
    with world_of_one() as world:
        evaluate(config, world, "best")
    ranks = pq.read_table(tmp_path / "run/evaluation-best-ranks-test.parquet").to_pydict()
    predictor, dataset = load(str(tmp_path / "run")), Dataset.open(str(folders / "dataset"))
    sequences = predictor.histories_of(ranks["user"])
    histories = [items[:position] for items, position in zip(sequences, ranks["position"], strict=True)]
    scores = np.asarray(predictor.score(histories, np.arange(dataset.num_items)))
    own = predictor.score(histories, [[item] for item in ranks["item"]])
    for row, rank in enumerate(ranks["rank"]):
        margin = 1e-5 * max(1.0, abs(float(own[row][0])))
        least, most = (scores[row] > own[row] + margin).sum() + 1, (scores[row] >= own[row] - margin).sum()
        assert least <= rank <= most


@pytest.mark.parametrize("name", SYSTEMS)
def test_vectors_and_lists_of_one_user_are_those_of_a_batch(folders: Path, tmp_path: Path, name: str) -> None:
    trained(folders, tmp_path / "run", name)
    predictor = load(str(tmp_path / "run"))
    histories = predictor.histories_of(users_of(Dataset.open(str(folders / "dataset")))[:40])
    together = predictor.user_vectors(histories)
    alone = np.concatenate([predictor.user_vectors([history]) for history in histories])
    # BERT4Rec normalises states of 8 numbers that are nearly equal, which magnifies the rounding of float32.
    most = 4e-6 if name == "bert4rec" else 1e-6
    assert (np.linalg.norm(alone - together, axis=1) <= most * np.linalg.norm(together, axis=1)).all()
    scores = np.asarray(predictor.score(histories, np.arange(predictor.num_items)))
    lists = predictor.recommend(histories, K, hide_history=False)
    for row, history in enumerate(histories):
        one = predictor.recommend([history], K, hide_history=False).items[0]
        for ours, theirs in zip(one, lists.items[row], strict=True):
            assert ours == theirs or abs(scores[row, ours] - scores[row, theirs]) < 1e-5 * np.abs(scores[row]).max()


def test_scores_are_those_of_the_lists_to_the_last_digit(predictor: Predictor) -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, predictor.num_items, size) for size in rng.integers(1, 30, 130)]
    lists = predictor.recommend(histories, K, hide_history=False)
    for_each = predictor.score(histories, lists.item_ids.tolist())
    assert np.array_equal(np.stack(for_each), lists.scores)
    for_all = np.asarray(predictor.score(histories, [5, 3]))
    everything = np.asarray(predictor.score(histories, np.arange(predictor.num_items)))
    assert np.array_equal(for_all, everything[:, [5, 3]])
    best = np.lexsort((np.broadcast_to(np.arange(predictor.num_items), everything.shape), -everything))[:, :K]
    assert np.array_equal(best, lists.items)


def test_without_gains_a_score_is_an_inner_product_of_vectors(folders: Path, tmp_path: Path) -> None:
    trained(folders, tmp_path / "run", "mdsrec")
    predictor = load(str(tmp_path / "run"))
    histories = [[1, 2, 3], [4]]
    expected = predictor.user_vectors(histories) @ predictor.item_vectors().T
    scores = predictor.score(histories, np.arange(predictor.num_items))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)  # scores are a few units large


def test_histories_may_have_any_form(predictor: Predictor) -> None:
    names = predictor.item_ids
    dense: list[list[int]] = [[3, 1], [], [7, 2, 9]]
    expected = predictor.recommend(dense, K)
    of_names = [[names[item] for item in history] for history in dense]
    forms = [
        of_names,
        tuple(map(tuple, of_names)),
        [np.array(history, dtype=np.int32) for history in dense],
        pa.array(of_names, pa.list_(pa.string())),
        pa.array(of_names, pa.large_list(pa.dictionary(pa.int32(), pa.string()))),
        pa.chunked_array([pa.array(dense[:1], pa.list_(pa.int64())), pa.array(dense[1:], pa.list_(pa.int64()))]),
        pa.array(of_names, pa.list_(pa.large_string())).slice(0),
    ]
    for form in forms:
        found = predictor.recommend(form, K)
        assert np.array_equal(found.items, expected.items)
        assert np.array_equal(found.item_ids, expected.item_ids)
        assert np.array_equal(found.scores, expected.scores)
    sliced = pa.array([["a"], *of_names], pa.list_(pa.string())).slice(1)
    assert np.array_equal(predictor.recommend(sliced, K).scores, expected.scores)
    matrix = np.array([[3, 1], [2, 4]])
    assert np.array_equal(predictor.recommend(matrix).items, predictor.recommend(matrix.tolist()).items)
    assert np.array_equal(predictor.recommend(iter(dense), K).items, expected.items)
    assert np.array_equal(
        predictor.recommend([torch.tensor(dense[0]), range(0), deque(dense[2])], K).items, expected.items
    )
    for allow in ({5, 6}, [{5, 6}], pa.array([5, 6]), range(5, 7)):
        assert (predictor.recommend([[1]], K, allow=allow).items >= 0).sum() == 2
    fixed = pa.array([[3, 1]], pa.list_(pa.int64(), 2))
    assert np.array_equal(predictor.recommend(fixed, K).items, expected.items[:1])
    assert np.asarray(predictor.score([], ["i"])).shape == (0, 1)
    assert predictor.histories_of([]) == []
    nobody = predictor.recommend([], K)
    assert (len(nobody), nobody.items.shape, nobody.to_table().num_rows) == (0, (0, K), 0)


def test_filters_with_unknown_ids_or_numbers_say_so(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    best = predictor.item_ids[int(predictor.recommend([[1]], 1).items[0, 0])]
    found = predictor.recommend([[1]], 1, exclude=[best + " "])
    assert (found.item_ids[0, 0], found.unknown_choices, found.unknown.sum()) == (best, 1, 0)
    assert found.note == "1 id of exclude or allow is not in the catalogue and left out."
    both = predictor.recommend([[1]], 1, exclude=[["a", best]], allow=["b", "c"])
    assert "3 ids of exclude and allow are not in the catalogue" in both.note
    assert not predictor.recommend([[1]], 1, exclude=[best]).note
    monkeypatch.setattr(predictor._names, "look_like_numbers", True)
    for filters in ({"exclude": [3]}, {"allow": [[3]]}):
        assert predictor.recommend([[best]], 1, **filters).looks_like_source_ids
    assert not predictor.recommend([[best]], 1, exclude=[best]).looks_like_source_ids


def test_a_history_without_a_known_item_gets_popular_items_and_says_so(predictor: Predictor, folders: Path) -> None:
    counts = Dataset.open(str(folders / "dataset")).popularity()
    order = np.lexsort((np.arange(len(counts)), -counts))
    found = predictor.recommend([[], ["no such item"], [predictor.item_ids[0], "nor this"]], K)
    assert found.is_popular.tolist() == [True, True, False]
    assert found.unknown.tolist() == [0, 1, 1]
    assert np.array_equal(found.items[:2], np.stack([order[:K]] * 2))
    assert np.array_equal(found.scores[0], counts[order[:K]].astype(np.float32))
    assert "2 ids in 2 of 3 histories are not in the catalogue" in found.note
    assert "2 of 3 histories have no known item" in found.note
    assert found.note in repr(found)
    assert np.isnan(predictor.user_vectors([[]])).all()
    assert np.isnan(predictor.score([[], [1]], [2, 3])).tolist() == [[True, True], [False, False]]
    scores = predictor.score([[1], [2]], [["no such item", predictor.item_ids[4]], []])
    assert np.isnan(scores[0]).tolist() == [True, False]
    assert len(scores[1]) == 0


def test_whole_numbers_are_noted_where_source_ids_are_numbers_too(predictor: Predictor, tmp_path: Path) -> None:
    assert "whole numbers" not in predictor.recommend([[1]], K).note
    rows = [f"u{user},{100 + (user + place) % 9},{place}" for user in range(20) for place in range(6)]
    (tmp_path / "d.csv").write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    mdsrec.prepare_data("table", str(tmp_path / "dataset"), input=str(tmp_path / "d.csv"))
    trained(tmp_path, tmp_path / "run", "sasrec", "graph=null")
    numeric = load(str(tmp_path / "run"))
    assert "are numbers too, and must be given as text" in numeric.recommend([[1]], K).note
    assert numeric.recommend([["101"]], K).note == ""


def test_excluded_items_are_in_no_list_and_allowed_items_alone_are(predictor: Predictor) -> None:
    """Without the restriction, the same scores in the same order, as a list of the whole catalogue has them."""
    n = predictor.num_items
    histories = [[1, 2, 3], [4, 5], [], [6]]
    whole = predictor.recommend(histories, n)
    out: list[list[int]] = [[int(x) for x in whole.items[row, :4]] for row in range(4)]
    names = predictor.item_ids

    def kept(row: int, keep: list[bool]) -> list[tuple[int, float]]:
        found = zip(whole.items[row].tolist(), whole.scores[row].tolist(), strict=True)
        return [pair for pair, kept in zip(found, keep, strict=True) if kept and pair[0] >= 0][:K]

    def check(found: mdsrec.Recommendations, choose) -> None:  # type: ignore[no-untyped-def]
        for row in range(4):
            pairs = zip(found.items[row].tolist(), found.scores[row].tolist(), strict=True)
            assert [p for p in pairs if p[0] >= 0] == kept(
                row, [choose(row, item) for item in whole.items[row].tolist()]
            )

    check(predictor.recommend(histories, K, exclude=out), lambda row, item: item not in out[row])
    check(predictor.recommend(histories, K, exclude=out[0]), lambda _, item: item not in out[0])
    check(predictor.recommend(histories, K, exclude=[names[i] for i in out[1]]), lambda _, item: item not in out[1])
    some = [*range(0, n, 3), 1, 1]
    check(predictor.recommend(histories, K, allow=some), lambda _, item: item in some)
    few = [[5, 6, 7], [1], [2, 3, 3], []]
    check(predictor.recommend(histories, K, allow=few), lambda row, item: item in few[row])
    check(
        predictor.recommend(histories, K, allow=some, exclude=out),
        lambda row, item: item in some and item not in out[row],
    )
    nothing = predictor.recommend(histories, K, allow=[])
    assert (nothing.items == -1).all()
    assert (nothing.item_ids == None).all()  # noqa: E711 - an array
    assert nothing.to_table().num_rows == 0


def test_large_choices_are_scored_in_parts(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [[item % 70, (item * 7) % 70] for item in range(160)]
    expected = predictor.recommend(histories, K, allow=list(range(0, 70, 2)))
    monkeypatch.setattr("serving.history_ranking._MOST_PAIRS", 100)
    found = predictor.recommend(histories, K, allow=list(range(0, 70, 2)))
    assert np.array_equal(found.items, expected.items)
    assert np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: p.recommend(["a", "b"]), "histories: is a single list of items; give a list for each user"),
        (lambda p: p.recommend("abc"), "histories: is of type str; give a list"),
        (lambda p: p.recommend([["a", 1]]), "histories: cannot be read as lists of ids"),
        (lambda p: p.recommend([[1.5]]), r"histories: holds values of type double, such as 1\.5; give source ids"),
        (lambda p: p.recommend([[True]]), "histories: holds values of type bool"),
        (lambda p: p.recommend([[1], [2, None]]), r"histories: item 1 of list 1 is missing \(None\)"),
        (lambda p: p.recommend(pa.array(["a"])), "histories: holds string, not lists"),
        (lambda p: p.recommend([[1], [2, 70, 99]], on_unknown="error"),
         r"histories: item 1 of list 1 is 70, which none of the 70 items has \(2 such ids in all\)"),
        (lambda p: p.recommend([["zz"]], on_unknown="error"), "item 0 of list 0 is 'zz', which none"),
        (lambda p: p.recommend([[1]], on_unknown="ignore"), "on_unknown='ignore': is neither 'skip' nor 'error'"),
        (lambda p: p.recommend([[1]], 0), "k=0: is not a whole number from 1 on"),
        (lambda p: p.recommend([[1]], 2.5), r"k=2\.5: is not a whole number"),
        (lambda p: p.recommend([[1]], exclude=[[1], [2]]), "exclude: has 2 lists for 1 histories"),
        (lambda p: p.recommend([[1]] * 1001, explain=True), "explains at most 1,000 histories at a time, and 1,001"),
        (lambda p: p.histories_of(["nobody"]), "users: 'nobody' is not a user of dataset"),
        (lambda p: p.similar_items(1, by="sound"), "by='sound': is not among 'vectors', 'image', 'text', 'bought tog"),
        (lambda p: p.recommend(None), "histories: is of type NoneType; give a list of ids for each user"),
        (lambda p: p.recommend({"u": [1]}), "histories: is of type dict; give a list of ids"),
        (lambda p: p.recommend([{1, 2}]), "histories: holds a set, which has no order"),
        (lambda p: p.recommend([[1], None]), r"histories: list 1 is missing \(None\); give an empty list"),
        (lambda p: p.recommend([[1]], exclude=3), "exclude: is of type int; give a list"),
        (lambda p: p.score([[1]], None), "items: is of type NoneType"),
        (lambda p: p.histories_of("abc"), "users: is not a list of users' source ids"),
        (lambda p: p.histories_of([1]), "users: is not a list of users' source ids"),
        (lambda p: p.histories_of(None), "users: is not a list of users' source ids"),
        (lambda p: p.recommend([["a"], "bc"]), "histories: list 1 is 'bc', not a list"),
        (lambda p: p.recommend([["a"], ["a"]], exclude=[["a"], "bc"]), "exclude: list 1 is 'bc', not a list"),
        (lambda p: p.recommend([[1], 2]), "histories: list 1 is 2, not a list"),
        (lambda p: p.recommend([["a", 1]]), "they hold both text and values of type int"),
        (lambda p: p.recommend([[2**63]]), "a number is larger than any id"),
        (lambda p: p.similar_items(1, 0), "k=0: is not a whole number from 1 on"),
        (lambda p: p.recommend([[1]], hide_history="False"), "hide_history='False': is neither True nor False"),
        (lambda p: p.recommend([[1]], explain=None), "explain=None: is neither True nor False"),
        (lambda p: p.recommend([[1]], exclude=[None]), r"exclude: item 0 of list 0 is missing \(None\)"),
        (lambda p: p.recommend([[1]], exclude="1"), "exclude: is of type str; give a list"),
        (lambda p: p.recommend(np.array(1)), "histories: is of type ndarray; give a list"),
        (lambda p: p.similar_items("zz"), "item='zz': none of the 70 items has this id"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(predictor: Predictor, call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=said) as refused:
        call(predictor)
    assert "\n" not in str(refused.value)


def test_a_thousand_random_histories_never_crash(predictor: Predictor) -> None:
    rng = np.random.default_rng(4)
    names = np.array([*predictor.item_ids, "unknown", "", "日本"], dtype=object)
    sizes = rng.choice([0, 1, 2, 8, 9, 50, 500], 1000)
    histories = [names[rng.integers(0, len(names), size)].tolist() for size in sizes]
    found = predictor.recommend(histories, K)
    assert found.items.shape == (1000, K)
    assert np.array_equal(found.is_popular, [not set(h) & set(predictor.item_ids) for h in histories])
    assert np.isfinite(found.scores[found.items >= 0]).all()
    for row, history in enumerate(histories):
        listed = [name for name in found.item_ids[row] if name is not None]
        assert len(set(listed)) == len(listed)
        assert not set(listed) & set(history)


def test_threads_get_what_one_thread_gets_and_leave_random_numbers_alone(predictor: Predictor) -> None:
    histories = [[[item, (item + 9) % 70]] for item in range(24)]
    expected = [predictor.recommend(history, K).scores.tobytes() for history in histories]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda history: predictor.recommend(history, K).scores.tobytes(), histories))
    assert found == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_score_add_up_and_a_shorter_history_explains_the_rest(predictor: Predictor) -> None:
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, 70, size).tolist() for size in (1, 2, 5, 8, 9, 20)] + [[]]
    found = predictor.recommend(histories, K, explain=True)
    why = found.explanation
    assert why is not None
    assert why.channels == ("id", "image", "text", "bought together")
    assert not why.is_fused
    np.testing.assert_allclose(why.parts[:6].sum(axis=2), found.scores[:6], rtol=1e-5, atol=1e-5)
    assert np.abs(why.parts[:6, :, 3]).max() > 0
    for row, history in enumerate(histories[:6]):
        read = history[-predictor.max_length :]
        assert why.inputs[row, : len(read)].tolist() == read
        assert (why.inputs[row, len(read) :] == -1).all()
        for column in range(len(read)):
            place = len(history) - len(read) + column
            shorter = history[:place] + history[place + 1 :]
            if not shorter:
                assert np.isnan(why.changes[row]).all()
                continue
            whole, without = (predictor.score([h], found.items[row]) for h in (history, shorter))
            np.testing.assert_allclose(why.changes[row, :, column], (whole - without)[0], atol=2e-5)
    text = found.explain(3)
    assert text.startswith(f"1. {found.item_ids[3, 0]}")
    assert "   channels: id " in text
    assert "   history: " in text
    assert "channels" not in found.explain(6)
    with pytest.raises(InputError, match="explain=True"):
        predictor.recommend(histories, K).explain(0)
    with pytest.raises(InputError, match="user=99: is not the number of a list"):
        found.explain(99)
    with pytest.raises(InputError, match="has 1 names for 7 lists"):
        found.to_table(["only one"])
    assert "   history: only " in found.explain(0)
    assert "no item of the history is known" in found.explain(6)


def test_a_fused_score_is_explained_by_its_channels(folders: Path, tmp_path: Path) -> None:
    trained(folders, tmp_path / "run", "missrec")
    found = load(str(tmp_path / "run")).recommend([[1, 2]], 3, explain=True)
    assert found.explanation is not None
    assert found.explanation.is_fused
    assert "channels, before they are fused" in found.explain(0)


def test_similar_items_are_those_of_brute_force(predictor: Predictor, folders: Path) -> None:
    dataset = Dataset.open(str(folders / "dataset"))
    item = int(np.flatnonzero(dataset.presence("text"))[3])
    for by, vectors in (("vectors", predictor.item_vectors()), ("text", np.asarray(dataset.features("text")))):
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        cosines = vectors.astype(np.float64) @ vectors[item] / np.maximum(lengths * lengths[item], 1e-30)
        cosines[[item, *np.flatnonzero(lengths == 0)]] = -2
        found = predictor.similar_items(item, 5, by=by)
        assert found.items.tolist() == np.argsort(-cosines, kind="stable")[:5].tolist()
        np.testing.assert_allclose(found.scores, np.sort(cosines)[::-1][:5], rtol=1e-5)
        assert found.item_ids.tolist() == predictor.item_ids[found.items].tolist()
    lacking = int(np.flatnonzero(~dataset.presence("image"))[0])
    with pytest.raises(InputError, match="has no image"):
        predictor.similar_items(lacking, by="image")
    together = predictor.similar_items(predictor.item_ids[item], 3, by="bought together")
    assert item not in together.items
    assert (np.diff(together.scores) <= 0).all()


@pytest.mark.long
def test_no_ray_no_process_group_and_no_change_of_the_run(gained: Config) -> None:
    code = (
        "import sys, mdsrec\n"
        f"p = mdsrec.load({gained.run!r})\n"
        "import torch.distributed as dist\n"
        "print(p.recommend([[1, 2]], 3).items.shape, 'ray' in sys.modules, dist.is_initialized())\n"
    )
    before = sorted((p.name, p.stat().st_mtime_ns) for p in Path(str(gained.run)).rglob("*"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 3) False False\n"
    assert done.stderr == ""
    assert sorted((p.name, p.stat().st_mtime_ns) for p in Path(str(gained.run)).rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"run": "nowhere"}, "run .*nowhere: has no config.yaml"),
        ({"checkpoint": 99}, "--checkpoint 99: run .* does not have it"),
        ({"device": "tpu"}, "device='tpu': "),
        ({"settings": {"model.dim": 3}}, r"settings: model\.dim is not a knob of evaluation"),
        ({"settings": {"evaluation.k": 3}}, r"unknown key evaluation\.k"),
        ({"dataset": "nowhere"}, r"its dataset .*nowhere is not there; if it has moved, say where it is now"),
    ],
)
def test_what_cannot_be_loaded_is_said(gained: Config, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(**{"run": str(gained.run), **arguments})
