"""What becomes of a mutation, on a checkout of one module and its tests."""

import pytest
from click.testing import CliRunner
from coverage import CoverageData

from tests.mutants import concerned, trial
from tests.mutants.__main__ import main
from tests.mutants.concerned import Recorded, mirror_of
from tests.mutants.operators import mutations
from tests.mutants.trial import Copy

pytestmark = pytest.mark.long

MODULE = "def double(a):\n    return a * 2\n"
TESTS = """from data.one import double
def test_double():
    assert double(2) == 4
def test_other():
    assert double
"""
NAME = "tests/data/test_one.py::test_double"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name, text in {
        "data/__init__.py": "", "data/one.py": MODULE, "tests/data/test_one.py": TESTS, 
        "tests/data/test_two.py": "def test_two(): pass\n",
        ".venv/large": "", "pytest.ini": "[pytest]\nmarkers =\n    ranks\n    ray\n    gpu\n    slow\n",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(trial, "ROOT", root)
    monkeypatch.setattr(concerned, "ROOT", root)
    return root


@pytest.fixture
def record(checkout, tmp_path):
    def made(context):
        file = str(tmp_path / f"records-{context}".replace("/", "-"))
        data = CoverageData(file)
        data.set_context(context)
        data.add_lines({str(checkout / "data/one.py"): [2]})
        data.write()
        return Recorded(file)

    return made


def outcome(checkout, tmp_path, recorded, after, seconds=60.0):
    [mutation] = [one for one in mutations(MODULE) if one.after == after]
    found = Copy(tmp_path / "copy").outcome("data/one.py", mutation, recorded, seconds)
    assert (checkout / "data/one.py").read_text() == MODULE
    assert (tmp_path / "copy/checkout/data/one.py").read_text() == MODULE
    assert not (tmp_path / "copy/checkout/.venv").exists()
    return found.state, found.test


def test_a_mutation_that_a_test_notices_is_killed_by_it(checkout, tmp_path, record):
    assert outcome(checkout, tmp_path, record(f"{NAME}|run"), "(a / 2)") == ("killed", NAME)


def test_only_tests_that_ran_the_line_are_asked(checkout, tmp_path, record):
    recorded = record("tests/data/test_one.py::test_other|run")
    assert outcome(checkout, tmp_path, recorded, "(a / 2)") == ("survived", "")


def test_tests_of_the_package_are_asked_where_no_test_is_known_to_have_run_the_line(checkout, tmp_path, record):
    assert outcome(checkout, tmp_path, record(""), "(a / 2)") == ("killed", NAME)
    assert mirror_of("data/one.py", checkout) == ["tests/data/test_one.py", "tests/data/test_two.py"]


def test_a_mutation_whose_tests_take_too_long_is_undecided(checkout, tmp_path, record):
    (checkout / "tests/data/test_one.py").write_text(
        "import time\nfrom data.one import double\n\ndef test_double():\n    time.sleep(600 if double(2) != 4 else 0)\n"
    )
    assert outcome(checkout, tmp_path, record(f"{NAME}|run"), "(a / 2)", 4.0) == ("undecided", "")


def test_a_test_that_fails_without_a_mutation_is_told(checkout, tmp_path):
    (checkout / "tests/data/test_two.py").write_text("def test_two(): assert False\n")
    two = "tests/data/test_two.py::test_two"
    assert Copy(tmp_path / "copy").failing([NAME, two]) == {two}


def test_without_records_it_says_what_to_run(tmp_path):
    done = CliRunner().invoke(main, ["--data", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "run `make coverage` first" in done.output
