"""What several test files of this folder train on."""

import pytest

from configs.loading import load_config
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare


@pytest.fixture(scope="package")
def folders(tmp_path_factory):
    """A synthetic dataset and its graph."""
    root = tmp_path_factory.mktemp("folders")
    dataset = prepare("synthetic", str(root / "dataset"), num_users=120, num_items=70, seed=3)
    options = load_config(None, ["graph_options.num_centers=4"]).graph_options
    build_graph(dataset, str(root / "graph"), options, 0, SerialExecutor())
    return root
