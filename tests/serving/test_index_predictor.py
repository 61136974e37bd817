"""A predictor with an index, and the job that builds and measures one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from contracts.errors import InputError
from jobs import build_index
from serving.loading import load
from tests.serving.runs import GAINS, set_repeats, trained

K = 5


def invoke(*given: object, status: int = 0) -> str:
    result = CliRunner().invoke(build_index.main, [str(part) for part in given])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


@pytest.mark.parametrize("hide", [False, True], ids=["history kept", "history hidden"])
@pytest.mark.parametrize(("name", "more"), [("mdsrec", GAINS), ("missrec", ()), ("popularity", ())])
def test_with_a_flat_index_the_lists_are_the_same(
    folders: Path, tmp_path: Path, name: str, more: tuple[str, ...], hide: bool
) -> None:
    config = trained(folders, tmp_path / "run", name, *more)
    if more:
        set_repeats(config, -1.5, 0.5, 1.0)
    said = invoke("--run", config.run, "--output", tmp_path / "index", "--shard-items", 30, "--users", 20, "--k", K)
    assert "70 items as flat, shards: 3," in said
    (measured,) = (line.split() for line in said.splitlines() if line.startswith("flat"))
    assert measured[1:3] == ["1.0000", "1.000"]
    predictor = load(str(config.run))
    rng = np.random.default_rng(3)
    histories = [rng.permutation(70)[:size].tolist() for size in rng.integers(0, 12, 60)]
    exclude = [[5, 6]] * 60
    expected = predictor.recommend(histories, K, hide_history=hide, exclude=exclude)
    assert expected.is_exact.all()
    predictor.use_index(str(tmp_path / "index"))
    found = predictor.recommend(histories, K, hide_history=hide, exclude=exclude)
    assert found.is_exact.all()
    assert np.array_equal(found.items, expected.items)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    allowed = predictor.recommend(histories, K, allow=[1, 2, 3])
    predictor.use_index(None)
    again = predictor.recommend(histories, K, hide_history=hide, exclude=exclude)
    assert np.array_equal(again.scores, expected.scores)
    assert np.array_equal(predictor.recommend(histories, K, allow=[1, 2, 3]).scores, allowed.scores)


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat", "ivfpq"])
def test_an_approximate_index_is_measured_and_claims_nothing(folders: Path, tmp_path: Path, kind: str) -> None:
    config = trained(folders, tmp_path / "run", "sasrec")
    options = ["--nbits", 4] if kind == "ivfpq" else []
    said = invoke("--run", config.run, "--output", tmp_path / "index", "--kind", kind, "--effort", 1, "--effort", 64,
                  "--k", K, *options)  # fmt: skip
    assert f"{kind}, effort 1 " in said
    predictor = load(str(config.run))
    expected = predictor.recommend([[1, 2], [3], []], K)
    predictor.use_index(str(tmp_path / "index"), effort=64)
    found = predictor.recommend([[1, 2], [3], []], K)
    assert found.is_exact.tolist() == [False, False, True]  # popular items come from no index
    shared = [len(set(a) & set(b)) for a, b in zip(found.items.tolist(), expected.items.tolist(), strict=True)]
    assert min(shared) >= 3
    for row in range(2):
        items = found.items[row]
        np.testing.assert_allclose(
            np.asarray(predictor.score([[[1, 2], [3]][row]], items))[0], found.scores[row], rtol=1e-4
        )


def test_an_index_of_another_run_is_refused(folders: Path, tmp_path: Path) -> None:
    first = trained(folders, tmp_path / "first", "sasrec")
    other = trained(folders, tmp_path / "other", "sasrec", "seed=5")
    invoke("--run", first.run, "--output", tmp_path / "index", "--users", 0)
    with pytest.raises(
        InputError,
        match=r"was built from another run or checkpoint: weights \w{12}, and here it is \w{12}; build",
    ):
        load(str(other.run)).use_index(str(tmp_path / "index"))
    with pytest.raises(InputError, match="index "):
        load(str(other.run)).use_index(str(tmp_path / "nowhere"))
    (tmp_path / "moved").parent.mkdir(exist_ok=True)
    (tmp_path / "first").rename(tmp_path / "moved")
    load(str(tmp_path / "moved")).use_index(str(tmp_path / "index"))  # a run may move
    assert "written in 0.0 s" in invoke("--run", tmp_path / "moved", "--output", tmp_path / "index", "--users", 0)
    said = invoke("--run", other.run, "--output", tmp_path / "index", status=2)
    assert "holds a finished index of kind flat, which was built with other options or from another run" in said


def test_a_damaged_index_is_refused_and_an_unverified_one_proves_nothing(folders: Path, tmp_path: Path) -> None:
    config = trained(folders, tmp_path / "run", "sasrec")
    invoke("--run", config.run, "--output", tmp_path / "index", "--users", 0)
    predictor = load(str(config.run))
    expected = predictor.recommend([[1, 2]], K)
    predictor.use_index(str(tmp_path / "index"), verify=False)
    found = predictor.recommend([[1, 2]], K)
    assert np.array_equal(found.items, expected.items)
    assert not found.is_exact.any()
    (file,) = (tmp_path / "index").glob("*.faiss")
    data = bytearray(file.read_bytes())
    data[-64:] = bytes(64)
    file.write_bytes(data)
    with pytest.raises(InputError, match="its content has changed since it was written; repeat the command"):
        load(str(config.run)).use_index(str(tmp_path / "index"))
    invoke("--run", config.run, "--output", tmp_path / "index", "--users", 0)
    repaired = load(str(config.run))
    repaired.use_index(str(tmp_path / "index"))
    assert repaired.recommend([[1, 2]], K).is_exact.all()


def test_an_index_of_other_digits_is_refused(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = trained(folders, tmp_path / "run", "sasrec")
    invoke("--run", config.run, "--output", tmp_path / "index", "--users", 0)
    predictor = load(str(config.run))
    monkeypatch.setattr("serving.predictor.has_these_vectors", lambda *_: False)
    with pytest.raises(InputError, match=r"its vectors differ in their last digits .* set verify=False"):
        predictor.use_index(str(tmp_path / "index"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": 5}, "path=5: is not the path of an index"),
        ({"path": "x", "effort": "5"}, "effort='5': is not a whole number in 1 .."),
        ({"path": "x", "effort": 0}, "effort=0: is not a whole number"),
        ({"path": "x", "effort": 10**12}, "effort=1000000000000: is not a whole number in 1 .. 1,048,576"),
        ({"path": "x"}, "x: has no manifest.json"),
    ],
)
def test_a_wrong_argument_is_named(folders: Path, tmp_path: Path, arguments: dict[str, object], said: str) -> None:
    config = trained(folders, tmp_path / "run", "popularity")
    with pytest.raises(InputError, match=said):
        load(str(config.run)).use_index(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--links", 5], "--links: is an option of --kind hnsw, not of flat; leave it out"),
        (["--kind", "hnsw", "--nlist", 4], "--nlist: is an option of --kind ivfflat or ivfpq, not of hnsw"),
        (["--effort", 5], "--effort: is an option of --kind hnsw or ivfflat or ivfpq, not of flat"),
        (["--kind", "ivfflat", "--nlist", 0], "index option nlist=0: must be in 1 .. 70"),
        (["--kind", "ivfpq", "--nbits", 4, "--code-width", 5], "code_width=5: must divide the width of a vector, 8"),
    ],
)
def test_a_wrong_option_is_named(folders: Path, tmp_path: Path, options: list[object], said: str) -> None:
    config = trained(folders, tmp_path / "run", "sasrec")
    assert said in invoke("--run", config.run, "--output", tmp_path / "index", *options, status=2)
    assert not (tmp_path / "index").exists()
