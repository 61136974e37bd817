"""Jobs of one process run where few packages are installed, and compute the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import train as train_job
from tests import bare_environment

KEPT = Path(__file__).parent.parent / "kept"
SMALL = [
    f"--set=dataset={KEPT / 'dataset'}", f"--set=graph={KEPT / 'graph'}", "--set=model.name=mdsrec",
    "--set=model.dim=16", "--set=model.num_heads=2", "--set=cluster.num_workers=1", "--set=training.negatives.draws=20",
]  # fmt: skip


def in_bare_environment(*commands: list[str]) -> str:
    joined = [part for command in commands for part in (*command, "+")][:-1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bare_environment", *joined], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics_of(run: Path) -> dict[str, Any]:
    found = json.loads((run / "metrics.json").read_text())
    return {name: found[name] for name in ("valid", "test", "best_step", "details")}


def test_what_is_hidden() -> None:
    hidden = bare_environment.hidden_modules()
    assert {"ray", "torchrec", "fbgemm_gpu", "tabulate", "tensorboard", "matplotlib", "pandas"} <= hidden
    assert not {"torch", "sympy", "numpy", "llvmlite", "pydantic_core", "yaml", "distributed", "model"} & hidden


@pytest.mark.long
def test_a_model_is_trained_resumed_and_ranked(tmp_path: Path) -> None:
    def train(run: str, epochs: int) -> list[str]:
        return ["train", *SMALL, f"--set=run={tmp_path / run}", f"--set=training.max_epochs={epochs}"]

    printed = in_bare_environment(
        train("whole", 2),
        train("resumed", 1),
        train("resumed", 2),
        ["evaluate", "--run", str(tmp_path / "whole"), "--set=evaluation.mask_history=true"],
        ["recommend", "--run", str(tmp_path / "whole"), "--output", str(tmp_path / "lists.parquet")],
    )
    assert "continuing from step" in printed
    assert (tmp_path / "lists.parquet").exists()
    assert (tmp_path / "whole/evaluation-best-mask_history=true.json").exists()
    train_job.main(train("full", 2)[1:], standalone_mode=False)
    expected = metrics_of(tmp_path / "full")
    assert metrics_of(tmp_path / "whole") == expected
    assert metrics_of(tmp_path / "resumed") == expected
    with pytest.raises(AssertionError, match=r"error: table.sharding=row_wise: .* needs TorchRec and FBGEMM"):
        in_bare_environment([*train("split", 1), "--set=table.sharding=row_wise"])
    for more in (["--set=cluster.num_workers=2"], ["--set=cluster.address=local"]):
        with pytest.raises(AssertionError, match=r"error: this needs Ray, which is not installed"):
            in_bare_environment([*train("several", 1), *more])
