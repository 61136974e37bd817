"""The benchmark of indexes finds the flat index exact, and writes ratios of one run."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import index
from benchmarks.index import Catalogue, built, main


@pytest.mark.long
def test_ratios_of_a_small_catalogue(tmp_path, monkeypatch):
    # Not in processes of their own, each of which would import PyTorch.
    monkeypatch.setattr(index, "build_apart", lambda made, folder, *more: built(made, str(folder), *more))
    arguments = ["--small", "--queries", "40", "--alone", "2", "--shard-items", "1300", "--folder", str(tmp_path)]
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["items"] == 3000
    assert found["ranking"]["flat_recall@10"] == found["ranking"]["flat_recall@100"] == 1
    assert found["flat"]["two_stages"]["recall@10"] == found["flat"]["two_stages"]["proven"] == 1
    for kind in ("hnsw", "ivfflat", "ivfpq"):
        recalls = [point["recall@10"] for point in found[kind]["points"]]
        assert recalls[0] <= recalls[-1]
        assert recalls[-1] > (0.6 if kind == "ivfpq" else 0.99)
        assert found[kind]["two_stages"]["proven"] == 0
        assert 0.6 < found[kind]["two_stages"]["recall@10"] <= 1
    assert found["ivfflat"]["points"][0]["recall@10"] < 0.9
    assert found["ivfpq"]["bytes_over_flat"] < 0.7 < found["ivfflat"]["bytes_over_flat"]
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_build_in_a_process_of_its_own(tmp_path):
    found = index.build_apart(Catalogue(2000, 16), tmp_path / "index", "flat", 1 << 20)
    assert found["bytes"] > 2000 * 16 * 4
    assert 0 <= found["peak"] < 1 << 28


def test_the_catalogue_does_not_depend_on_what_is_read_first():
    catalogue = Catalogue(20_000, 4)
    (_, first), (start, second) = catalogue.blocks(0, 20_000)
    ((again, alone),) = catalogue.blocks(17_000, 18_000)
    assert (first.shape, second.shape, start) == ((16384, 4), (3616, 4), again)
    assert (second == alone).all()
