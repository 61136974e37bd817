"""Follow the pages about adding a format, a metric and a system word for word, in a copy of the code.

The copy is a temporary folder with the packages and tests of the checkout. The pages' files are written there, and the
pages' changes are made there. Jobs and tests of the copy then run in processes of their own, with the copy first in
PYTHONPATH. The checkout itself is not touched.
"""

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
BLOCK = re.compile(r'^```(python|diff|yaml) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NUM_ITEMS = 60


def follow(page: str, checkout: Path) -> None:
    """Do what a page says: write its Python and YAML files, and make the changes of its diffs."""
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    assert blocks, page
    for kind, name, text in blocks:
        file = checkout / name
        if kind != "diff":
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


def run(checkout: Path, *command: str) -> str:
    """Run Python in the changed checkout, and return its output."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, changed as the pages say."""
    copy = tmp_path_factory.mktemp("adding") / "checkout"
    for folder in (*PRODUCT, "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for page in ("adding-a-format.md", "adding-a-metric.md", "adding-a-system.md"):
        follow(page, copy)
    return copy


@pytest.mark.long
def test_pages_lead_from_nothing_to_a_trained_system(checkout: Path, tmp_path: Path) -> None:
    # Each user's next track is one, two or three tracks further, so there are three choices for the next track.
    events = [(u, (u * 7 + 2 * t + (u + t) % 2) % NUM_ITEMS, t) for u in range(120) for t in range(12)]
    lines = [f"user_{u:06}\t2009-05-04T23:{t:02}:57Z\ta\tArtist\tt{track}\tTrack" for u, track, t in events]
    (tmp_path / "events.tsv").write_text("\n".join([*lines, "user_000001\t2009-05-05T00:00:00Z\t\tA\t\tT"]) + "\n")
    dataset, trained = str(tmp_path / "dataset"), str(tmp_path / "run")
    assert "120 users, 60 items, 1,440 interactions" in run(
        checkout,
        "jobs/prepare_data.py",
        "--format",
        "lastfm",
        "--input",
        str(tmp_path / "events.tsv"),
        "--output",
        dataset,
    )
    knobs = {
        "dataset": dataset, "run": trained, "model.recency.decay": 0.2, "model.dim": 16, "training.max_epochs": 20,
        "training.learning_rate": 0.02, "training.batch_size": 128, "training.metric": "mrr@10",
    }  # fmt: skip
    settings = [word for name, value in knobs.items() for word in ("--set", f"{name}={value}")]
    run(checkout, "jobs/train.py", "--config", "configs/recency.yaml", *settings)
    found = json.loads((Path(trained) / "metrics.json").read_text())["test"]
    assert found["recall@10"] > 0.8  # ten of sixty at random: 0.17
    assert 0.3 < found["mrr@10"] < found["ndcg@10"] < 1
    recommended = tmp_path / "recs.parquet"
    run(checkout, "jobs/recommend.py", "--run", trained, "--k", "20", "--output", str(recommended))
    assert recommended.exists()


@pytest.mark.slow
@pytest.mark.long
def test_the_added_system_passes_the_tests_of_every_system(checkout: Path) -> None:
    """The tests that the page names find the system in the registry. `test_sharding.py` is left out: it takes long."""
    files = ("tests/configs/test_systems.py", "tests/model/test_windows.py", "tests/model/test_all_systems.py")
    found = run(checkout, "-m", "pytest", "-p", "no:cacheprovider", "-vv", "-k", "recency or has_a_model", *files)
    for name in (
        "test_every_system_has_a_model_and_its_section", "test_the_registry_says_what_the_model_needs[recency]",
        "test_an_untrained_system_ranks_as_chance_does[recency]",
        "test_the_successor_of_the_last_item_is_learned[recency]",
        "test_a_run_that_was_interrupted_ends_as_an_undisturbed_one[recency]",
    ):  # fmt: skip
        assert f"{name} PASSED" in found, found
    assert "test_windows.py" in found


@pytest.mark.long
def test_the_code_of_the_pages_follows_the_style(checkout: Path) -> None:
    run(checkout, "-m", "ruff", "check", *PRODUCT)
    run(checkout, "-m", "ruff", "format", "--check", *PRODUCT)
