"""`import mdsrec` offers the documented names, takes them from their packages, and is fast."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mdsrec

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_is_the_one_of_its_home():
    assert set(mdsrec._HOMES) == set(mdsrec.__all__) - {"__version__"}
    for name, home in mdsrec._HOMES.items():
        found = getattr(mdsrec, name)
        assert found is getattr(import_module(home), name)
        if isinstance(found, type) or callable(found):
            assert found.__module__ == home, "re-exported from where it is defined"


def test_type_checkers_see_the_same_homes():
    tree = ast.parse(Path(mdsrec.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == mdsrec._HOMES


def test_dir_and_star_and_unknown_names():
    assert set(mdsrec.__all__) <= set(dir(mdsrec))
    space: dict[str, object] = {}
    exec("from mdsrec import *", space)
    assert set(mdsrec.__all__) <= set(space)
    with pytest.raises(AttributeError, match="has no attribute 'Trainer'"):
        _ = mdsrec.Trainer


HEAVY = "import sys; print(*sorted({'torch', 'ray', 'pyarrow', 'numpy', 'pydantic'} & set(sys.modules)))"


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import mdsrec", ""),
        ("import mdsrec.command", ""),
        ("from mdsrec import load_config", "pydantic"),
        ("import jobs.models, jobs.knobs, jobs.config", "pydantic"),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code, loaded):
    done = subprocess.run([sys.executable, "-c", f"{code}; {HEAVY}"], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (loaded, "")
