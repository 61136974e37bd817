"""Follow the pages about adding a format, a metric and a system word for word, in a copy of the code."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packages import PRODUCT

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NUM_ITEMS = 60


def follow(page: str, checkout: Path) -> None:
    """Do what a page says: write its Python files, and make the changes of its diffs."""
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    assert blocks, page
    for kind, name, text in blocks:
        file = checkout / name
        if kind == "python":
            assert not file.exists(), f"{page}: {name} exists already"
            file.write_text(text)
            continue
        content = file.read_text()
        for hunk in re.split(r"^@@\n", text, flags=re.MULTILINE):
            lines = hunk.splitlines()
            before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
            after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
            assert lines == [] or content.count(before) == 1, f"{page}: {name} has no such lines:\n{before}"
            content = content.replace(before, after) if lines else content
        file.write_text(content)


def run(checkout: Path, job: str, *arguments: str) -> str:
    """Run a job of the changed checkout, and return its output."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, str(checkout / "jobs" / f"{job}.py"), *arguments]
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_pages_lead_from_nothing_to_a_trained_system(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for package in PRODUCT:
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    for page in ("adding-a-format.md", "adding-a-metric.md", "adding-a-system.md"):
        follow(page, checkout)

    # Each user's next film is one, two or three films further, so there are three choices for the next film.
    lines = [f"{u}::{(u * 7 + 2 * t + (u + t) % 2) % NUM_ITEMS}::5::{1000 + t}" for u in range(120) for t in range(12)]
    (tmp_path / "ratings.dat").write_text("\n".join(lines) + "\n")
    dataset, trained = str(tmp_path / "dataset"), str(tmp_path / "run")
    assert "120 users, 60 items, 1,440 interactions" in run(
        checkout, "prepare_data", "--format", "movielens", "--input", str(tmp_path / "ratings.dat"), "--output", dataset
    )
    knobs = {
        "dataset": dataset, "run": trained, "cluster.num_workers": 1, "model.name": "recency",
        "model.recency.decay": 0.2, "model.dim": 16, "training.max_epochs": 20, "training.learning_rate": 0.02,
        "training.batch_size": 128, "training.metric": "mrr@10",
    }  # fmt: skip
    run(checkout, "train", *(word for name, value in knobs.items() for word in ("--set", f"{name}={value}")))
    found = json.loads((Path(trained) / "metrics.json").read_text())["test"]
    assert found["recall@10"] > 0.8  # ten of sixty at random: 0.17
    assert 0.3 < found["mrr@10"] < found["ndcg@10"] < 1
