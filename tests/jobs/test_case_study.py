"""jobs/case_study.py writes one page, does not start Ray, and replaces nothing but an earlier page."""

import pytest
from click.testing import CliRunner

from configs.loading import load_config
from distributed.training.trainer import train
from distributed.world import world_of_one
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs import case_study
from jobs.prepare_data import prepare
from tests.jobs.bad_input.case import message_of


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small dataset, its graph and a run of MDSRec."""
    root = tmp_path_factory.mktemp("case-study")
    dataset = prepare("synthetic", str(root / "dataset"), num_users=80, num_items=40, seed=5)
    folders = [f"dataset={root}/dataset", f"graph={root}/graph", f"run={root}/run"]
    narrow = [
        "model.dim=8",
        "model.num_heads=2",
        "model.dropout=0.1",
        "training.max_epochs=1",
        "graph_options.num_centers=3",
    ]
    config = load_config(None, [*folders, *narrow])
    build_graph(dataset, str(root / "graph"), config.graph_options, 0, SerialExecutor())
    with world_of_one() as world:
        train(config, world)
    return root


def typed(root, *more, status=0):
    arguments = ["--run", f"{root}/run", "--output", f"{root}/page.html", *more]
    result = CliRunner().invoke(case_study.main, arguments)
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def test_a_page_is_written_once_and_replaced_when_asked(root, monkeypatch):
    monkeypatch.setattr("ray.init", None)
    target = root / "page.html"
    assert f"wrote {target}: 4 items and 3 users" in typed(root).splitlines()[-1]
    first = target.read_text(encoding="utf-8")
    assert [path.name for path in root.iterdir() if "page" in path.name] == ["page.html"]
    assert "add --overwrite" in message_of(typed(root, status=2))
    typed(root, "--overwrite")
    assert target.read_text(encoding="utf-8") == first
    typed(root, "--overwrite", "--seed", "1")
    assert target.read_text(encoding="utf-8") != first
    target.write_text("<!DOCTYPE html><p>mine")
    assert "not a page of this job" in message_of(typed(root, "--overwrite", status=2))
    target.unlink()


def test_names_are_separated_by_commas(root):
    said = typed(root, "--items", "item-3, item-7", "--users", "user-5", "--overwrite")
    assert "2 items and 1 users" in said
    assert "an empty id" in message_of(typed(root, "--items", "item-3,,item-7", "--overwrite", status=2))
    assert "such as item-3" in message_of(typed(root, "--items", "item-3x", "--overwrite", status=2))
