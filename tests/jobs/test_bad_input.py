"""Every mistake on docs/bad-input.md prints one line, ends with status 2 and no traceback, and changes no file."""

import shutil

import pytest

from tests.fingerprints import restore
from tests.jobs.bad_input.case import Case, message_of, nothing, run_case, without_a_cluster
from tests.jobs.bad_input.document import GROUPS, PAGE, messages_on, page
from tests.jobs.bad_input.world import make_world

DOCUMENTED = messages_on(PAGE.read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The inputs, and sound copies of them.

    The inputs are restored before each case. They stay in one folder, because a run stores its dataset's path.
    """
    root = tmp_path_factory.mktemp("bad-input")
    here, sound = root / "here", root / "sound"
    here.mkdir()
    make_world(here)
    shutil.copytree(here, sound)
    with without_a_cluster():
        yield here, sound


@pytest.fixture
def here(folders):
    here, sound = folders
    restore(here, sound)
    return here


@pytest.mark.parametrize(
    ("title", "case"),
    [pytest.param(group.title, case, id=f"{group.title}: {case.what}") for group in GROUPS for case in group.cases],
)
def test_a_mistake_is_one_line_and_changes_nothing(here, title, case):
    status, output = run_case(case, here)
    assert status == 2
    assert message_of(output) == DOCUMENTED[title, case.what]


def test_the_page_has_the_cases_and_nothing_else():
    told = iter(DOCUMENTED.values())
    assert PAGE.read_text() == page(lambda _: next(told))
    assert len(DOCUMENTED) == sum(len(group.cases) for group in GROUPS) >= 40


def test_the_inputs_are_sound_before_they_are_spoilt(here):
    """Otherwise the cases could be refused for another reason than their own."""
    commands = [
        "prepare_data --format table --input {here}/raw.csv --output {here}/new",
        "prepare_data --format recbole --input {here}/Toy.inter --output {here}/new",
        "prepare_data --format unisrec --input {here}/unisrec --output {here}/new",
        "build_graph --set dataset={here}/dataset --set graph={here}/new --set graph_options.num_centers=3",
        "export --graph {here}/graph --what cooccurrence --to npz --output {here}/new.npz",
        "evaluate --run {here}/run",
        "recommend --run {here}/run --output {here}/new.parquet",
        "case_study --run {here}/run --output {here}/new.html",
        "inspect_data --dataset {here}/dataset --output {here}/new.html --json {here}/new.json",
    ]
    for command in commands:
        with pytest.raises(AssertionError, match="the command changed files"):
            run_case(Case("nothing", command, nothing), here)
        for new in here.glob("new*"):
            shutil.rmtree(new) if new.is_dir() else new.unlink()
