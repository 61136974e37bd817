"""benchmarks/gpu_suite.py runs all its stages on the CPU in small forms, and says which failed or took too long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_suite
from benchmarks.gpu_suite import STAGES, Stage, main, run_stage, table

POPEN = subprocess.Popen


@pytest.mark.long
@pytest.mark.parametrize(
    "stage",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("kernels", "softmax") else name for name in STAGES],
)
def test_each_stage_runs_on_a_cpu_and_passes_its_checks(stage: str) -> None:
    found = CliRunner().invoke(main, ["--dry-run", "--stage", stage])
    assert found.exit_code == 0, repr(found.exception)
    result = json.loads(found.stdout.splitlines()[-1])
    assert all(result["checks"].values()), result
    assert result["figures"]


def runs(monkeypatch: pytest.MonkeyPatch, code: str, seconds: int = 20) -> dict[str, Any]:
    """Return the record of a stage whose process runs this code."""
    monkeypatch.setitem(STAGES, "kernels", Stage(seconds, "", "what it shows"))
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: POPEN([sys.executable, "-c", code], **options))
    return run_stage("kernels", dry_run=True)


def test_a_stage_that_passes_fails_dies_or_hangs(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    passed = runs(monkeypatch, 'print("seen"); print(\'{"checks": {"a": true}, "figures": {"x": 0.5}}\')')
    failed = runs(monkeypatch, 'print(\'{"checks": {"a": true, "b": false}, "figures": {}}\')')
    died = runs(monkeypatch, "raise SystemExit(3)")
    hung = runs(monkeypatch, "import time; time.sleep(60)", seconds=1)
    assert [record["passed"] for record in (passed, failed, died, hung)] == [True, False, False, False]
    assert "seen" in capfd.readouterr().err
    assert died["error"] == "ended with status 3 and without a result"
    assert hung["error"] == "took more than 1 s"
    assert hung["seconds"] < 10
    shown = table([passed, failed, died, hung])
    assert "x 0.5" in shown
    assert "FAILED: b" in shown
    assert "took more than 1 s" in shown


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = CliRunner().invoke(main, ["--dry-run", "--stages", "graph,kernel"])
    assert (unknown.exit_code, "kernel: is not a stage; the stages are kernels, graph" in unknown.output) == (1, True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    without = CliRunner().invoke(main, [])
    assert (without.exit_code, "torch finds no GPU" in without.output) == (1, True)


def test_the_lines_of_a_run_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"stage": "graph", "passed": True, "checks": {}, "figures": {"x": 1}, "seconds": 1.0}
    monkeypatch.setattr(gpu_suite, "run_stage", lambda name, _: {**record, "stage": name})
    done = CliRunner().invoke(main, ["--dry-run", "--stages", "graph,step", "--output", str(tmp_path / "lines")])
    assert done.exit_code == 0
    kept = [json.loads(line)["stage"] for line in (tmp_path / "lines").read_text().splitlines()]
    assert kept == ["graph", "step"]
    assert json.loads(done.output.splitlines()[0])["machine"]["torch"] == torch.__version__


def test_all_stages_take_nine_minutes() -> None:
    assert sum(stage.seconds for stage in STAGES.values()) <= 9 * 60
