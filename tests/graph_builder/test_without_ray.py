"""A graph is built where neither Ray nor TorchRec is installed, with the bytes of any other build.

`tests/bare_environment.py` says which packages are there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from graph_builder.cost.ceilings import Ceilings
from jobs.build_graph import main
from tests.fingerprints import differing, fingerprints


def arguments(folders: Path, graph: Path) -> list[str]:
    settings = [f"dataset={folders}/dataset", f"graph={graph}", "graph_options.num_centers=4"]
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.long
def test_the_command_builds_without_ray_and_torchrec(folders: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bare_environment", "build_graph", *arguments(folders, tmp_path / "graph")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("building the graph in this process, on the CPU\nwrote graph ")
    assert not differing(fingerprints(folders / "graph"), fingerprints(tmp_path / "graph"))


def test_ray_may_be_left_out_where_it_is_installed(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Ceilings(**{rate.name: 1.0 for rate in fields(Ceilings)})
    monkeypatch.setattr("jobs.build_plan.measure_ceilings", lambda *_: rates)
    result = CliRunner().invoke(main, [*arguments(folders, tmp_path / "graph"), "--executor", "serial", "--compare"])
    assert result.exit_code == 0, result.output
    assert "Ray" not in result.output
    assert "neighbors-text" in result.output  # the times of the comparison
    assert not differing(fingerprints(folders / "graph"), fingerprints(tmp_path / "graph"))


def test_ray_must_be_installed_where_it_is_asked_for(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for more, said in [
        (["--executor", "ray"], "error: --executor ray: Ray is not installed; install it, or use --executor serial"),
        (["--set", "cluster.address=head:6379"], "error: cluster.address=head:6379: the build would run in this"),
    ]:
        result = CliRunner().invoke(main, [*arguments(folders, tmp_path / "graph"), *more])
        assert result.exit_code == 2
        assert said in result.output
    assert not (tmp_path / "graph").exists()
