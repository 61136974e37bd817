"""Kernels are compiled where neither the checkout nor the home folder can be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUMS = "import numpy, os; from kernels.ranking.rank_counts import *; print(os.environ['NUMBA_CACHE_DIR'])"


def run_in(folder, temporary):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "PYTHON", "XDG"))}
    environment |= {"HOME": "/proc/none", "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", SUMS], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip())


def test_kernels_are_imported_where_nothing_but_the_temporary_folder_can_be_written(tmp_path):
    checkout, temporary = tmp_path / "checkout", tmp_path / "temporary"
    for package in ("kernels", "storage", "configs", "contracts"):
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("kernels", "kernels/ranking"):
        (checkout / folder / "__pycache__").write_text("as good as read-only, for root too")
    temporary.mkdir()
    chosen = run_in(checkout, temporary)
    assert chosen == temporary / f"mdsrec-numba-{os.getuid()}"
    assert run_in(checkout, temporary) == chosen
    # What others can write to is never used: Numba executes what it finds there.
    chosen.chmod(0o777)
    other = run_in(checkout, temporary)
    assert other != chosen
    assert other.parent == temporary
    assert other.stat().st_mode & 0o077 == 0
