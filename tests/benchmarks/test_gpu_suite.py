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
from benchmarks.gpu_graph_stages import _ends_well
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


def test_ctrl_c_ends_the_stage_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Interrupted(POPEN):  # type: ignore[misc, type-arg]
        def communicate(self, *_: Any, **__: Any) -> Any:
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(
        subprocess, "Popen", lambda _, **options: Interrupted([sys.executable, "-c", "while True: pass"], **options)
    )
    done = CliRunner().invoke(main, ["--dry-run", "--stages", "graph", "--output", str(tmp_path / "lines")])
    assert "Aborted" in done.output
    assert started[0].returncode is not None


def test_a_pytest_that_skips_all_tests_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("import pytest\n\n\ndef test_a():\n    pytest.skip()\n")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(tmp_path)]
    assert not _ends_well(command)
    (tmp_path / "test_other.py").write_text("def test_b():\n    pass\n")
    assert _ends_well(command)


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
    first, *kept = map(json.loads, (tmp_path / "lines").read_text().splitlines())
    assert (first["machine"]["torch"], first["dry_run"]) == (torch.__version__, True)
    assert [line["stage"] for line in kept] == ["graph", "step"]
    refused = CliRunner().invoke(main, ["--dry-run", "--stages", "graph", "--output", str(tmp_path / "no/lines")])
    assert (refused.exit_code, "cannot be written (No such file or directory)" in refused.output) == (1, True)
    assert json.loads(done.output.splitlines()[0])["machine"]["torch"] == torch.__version__
    assert "This was a dry run" in done.output


def test_all_stages_take_nine_minutes() -> None:
    assert sum(stage.seconds for stage in STAGES.values()) <= 9 * 60
