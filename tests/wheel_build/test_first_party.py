"""What the build changes in a module, what it leaves, and what it refuses."""

import ast

import pytest

from tests.packages import PRODUCT, ROOT
from wheel_build.first_party import Packages, UnknownReference, relocated

PACKAGES = Packages(ROOT, tuple(name for name in PRODUCT if name != "mdsrec"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from data.dataset import Dataset", "from mdsrec.data.dataset import Dataset"),
        ("from data import layout", "from mdsrec.data import layout"),
        ("from  \\\n  data.dataset import (\n  Dataset,\n)", "from  \\\n  mdsrec.data.dataset import (\n  Dataset,\n)"),
        ("if x:\n    'ä'; from jobs import cli", "if x:\n    'ä'; from mdsrec.jobs import cli"),
        ("import distributed", "import mdsrec.distributed as distributed"),
        ("import json, data.layout as d, jobs", "import json, mdsrec.data.layout as d, mdsrec.jobs as jobs"),
        ("import_module('jobs')", "import_module('mdsrec.jobs')"),
        ("importlib.import_module('model.mdsrec')", "importlib.import_module('mdsrec.model.mdsrec')"),
        (
            "c.set_forkserver_preload(['torch', 'data.dataset'])",
            "c.set_forkserver_preload(['torch', 'mdsrec.data.dataset'])",
        ),
        ("sys.modules['distributed']", "sys.modules['mdsrec.distributed']"),
        ("run([exe, '-m', 'jobs.train'])", "run([exe, '-m', 'mdsrec.jobs.train'])"),
        ('X = {"Config": "configs.schema"}', 'X = {"Config": "mdsrec.configs.schema"}'),
        ('X = "model.mdsrec:MDSRec"', 'X = "mdsrec.model.mdsrec:MDSRec"'),
        ('X = "model.mdsrec.MDSRec"', 'X = "mdsrec.model.mdsrec.MDSRec"'),
        (
            "from importlib.resources import files\nfiles('configs')",
            "from importlib.resources import files\nfiles('mdsrec.configs')",
        ),
    ],
)
def test_references_to_modules_are_changed(source, expected):
    assert relocated(source, "x.py", PACKAGES) == expected


@pytest.mark.parametrize(
    "source",
    [
        "from . import layout",
        "from .data import x",
        "from dataclasses import dataclass\nimport modelling",
        "import ray.data",
        "'''from data.dataset import Dataset'''",  # a docstring
        "# import data",
        "x = 'model.mdsrec.tau'",  # a knob
        "x = 'model.name'",
        "x = f'model.{system}'",
        "x = 'data'",
        "x = 'jobs/train.py'",
        "x = archive.files('data')",
        "x = import_module(f'{jobs.__name__}.{verb}')",
        "x = import_module(name)",
        "x = 'prepare it from data.dataset'",
    ],
)
def test_everything_else_stays(source):
    assert relocated(source, "x.py", PACKAGES) == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "\nimport storage.manifest",
            "x.py:2: `import storage.manifest` binds storage; write `from storage import manifest`",
        ),
        ("import_module(f'jobs.{verb}')", "x.py:1: a module's name is put together from 'jobs.'"),
        ("import_module('jobs.' + verb)", "x.py:1: a module's name is put together from 'jobs.'"),
        ("HOME = 'jobs.'", "x.py:1: the text 'jobs.' begins a module's name"),
        ("x = 'model.mdsrec'", "x.py:1: the text 'model.mdsrec' may be a module or a section of a config"),
        ("x = 'python -m jobs.train'", "x.py:1: the text '-m jobs.train' names a module"),
        (
            "x = 'import os; y\\nfrom data.dataset import D'",
            "x.py:1: the text 'from data.dataset import' names a module",
        ),
        ("import_module('da' 'ta.dataset')", "x.py:1: names the module data.dataset; write it as one plain literal"),
        ("x = r'data.dataset'", "x.py:1: names the module data.dataset; write it as one plain literal"),
    ],
)
def test_what_the_step_does_not_know_is_refused_with_its_line(source, message):
    with pytest.raises(UnknownReference) as refused:
        relocated(source, "x.py", PACKAGES)
    assert str(refused.value).startswith(message)


@pytest.mark.long
def test_every_module_can_be_relocated_and_keeps_its_lines():
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            before = path.read_text()
            after = relocated(before, str(path), PACKAGES)
            assert after.count("\n") == before.count("\n")
            for node in ast.walk(ast.parse(after)):
                if isinstance(node, ast.ImportFrom) and not node.level:
                    assert not PACKAGES.owns(node.module or "")
                if isinstance(node, ast.Import):
                    assert not any(PACKAGES.owns(alias.name) for alias in node.names)
