"""The graphs of several datasets as one: the rows that one graph on disk would have."""

import numpy as np
import pytest

from configs.loading import load_config
from contracts.errors import InputError
from data.dataset import Dataset
from distributed.inputs import open_inputs
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from graph_builder.joined import JoinedGraph


def opened(dataset, graph):
    settings = [f"dataset={dataset}", f"graph={graph}", "model.name=mdsrec", "model.dim=8", "model.num_heads=2"]
    return open_inputs(load_config(None, settings))


def test_every_row_is_that_of_one_graph_on_disk(two_domains):
    folder = two_domains
    one = Graph.open(folder / "Gone")
    one.validate()
    joined = opened(f"[{folder}/A,{folder}/B]", f"[{folder}/GA,{folder}/GB]").graph
    assert isinstance(joined, JoinedGraph)
    joined.validate()
    assert (joined.num_items, joined.modalities) == (one.num_items, one.modalities)
    for items in (np.arange(85), np.array([84, 3, 41, 3]), np.array([40]), np.zeros(0, np.int64)):
        for found, expected in zip(joined.cooccurrence_rows(items), one.cooccurrence_rows(items), strict=True):
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
    for name in one.modalities:
        for read in ("neighbors", "neighbor_scores", "clusters", "centers"):
            found, expected = getattr(joined, read)(name), getattr(one, read)(name)
            assert found.dtype == expected.dtype, read
            assert np.array_equal(found, expected), read
        assert joined.num_centers(name) == one.num_centers(name)
    # B has no images: its items lack them.
    assert joined.neighbors("image")[50].tolist() == [50, *[-1] * (joined.neighbors("image").shape[1] - 1)]
    assert joined.num_centers("image") == 4
    assert (joined.clusters("image")[40:] == -1).all()
    assert joined.num_centers("text") == 7


def test_graphs_that_do_not_fit_the_datasets_are_refused(two_domains, tmp_path):
    folder = two_domains
    both = f"[{folder}/A,{folder}/B]"
    for named, count in ((f"{folder}/GA", 1), (f"[{folder}/GA,{folder}/GB,{folder}/GA]", 3)):
        with pytest.raises(InputError) as error:
            opened(both, named)
        assert f"graph={named}: {count} named, and 2 in dataset={both}; name one graph for each" in str(error.value)
    with pytest.raises(InputError) as error:
        opened(both, f"[{folder}/GB,{folder}/GA]")
    assert str(error.value) == (
        f"graph=[{folder}/GB,{folder}/GA]: number 1, {folder}/GB, is the graph of dataset {folder}/B, but number 1 of "
        f"dataset={both} is {folder}/A; name the graphs in the order of their datasets"
    )
    with pytest.raises(InputError, match=f"graph {folder}/Gone was built from dataset {folder}/one .* {folder}/B "):
        opened(both, f"[{folder}/GA,{folder}/Gone]")
    options = load_config(None, ["graph_options.num_centers=3", "graph_options.mu=0.75"]).graph_options
    build_graph(Dataset.open(f"{folder}/B"), str(tmp_path / "GB"), options, 0, SerialExecutor())
    with pytest.raises(InputError) as error:
        opened(both, f"[{folder}/GA,{tmp_path}/GB]")
    default = load_config(None).graph_options.mu
    assert f"{folder}/GA was built with graph_options.mu={default} and {tmp_path}/GB with 0.75" in str(error.value)
