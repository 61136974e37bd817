"""Run the pip steps of the Containerfile in a new virtual environment; the rest would need a container runtime."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def steps() -> list[str]:
    """Return the commands of the RUN lines, with continuation lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Containerfile").read_text())
    return re.findall(r"^RUN (.*)$", text, flags=re.MULTILINE)


def test_the_image_runs_as_an_ordinary_user_with_the_pins_of_the_project() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert text.index("useradd") < text.index("USER 1000") < text.index("CMD")
    pip = [step for step in steps() if step.startswith("pip install")]
    assert all("--constraint constraints.txt" in step or "--no-deps" in step for step in pip)
    makefile = (ROOT / "Makefile").read_text()
    (torchrec,) = {word for step in pip for word in step.split() if word.startswith("torchrec==")}
    assert torchrec in makefile


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pip_steps_make_an_environment_in_which_the_command_runs(tmp_path: Path) -> None:
    checkout = tmp_path / "mdsrec"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "venv", checkout / ".venv"], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{checkout}/.venv/bin:{environment['PATH']}", "ACCELERATOR": "cpu"}
    pip = [step for step in steps() if step.startswith("pip install")]
    for command in (*pip, "mdsrec --help", "mdsrec models", "python -c 'import torchrec'"):
        done = subprocess.run(["sh", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
