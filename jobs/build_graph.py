"""Build the item graphs of a dataset: python jobs/build_graph.py --config C --set dataset=D --set graph=G"""

from __future__ import annotations

import click

from configs.errors import InputError
from configs.loading import load_config
from data.dataset import Dataset
from distributed.ray_cluster import connect, resolve_paths
from graph_builder.build import build_graph
from graph_builder.ray_tasks import RayExecutor
from jobs.cli import config_options, job


@click.command()
@config_options
@job
def main(config_path: str | None, overrides: tuple[str, ...]) -> None:
    """Build co-occurrence, modal neighbours and interest centres as Ray tasks, from training items only.

    The same command again continues an interrupted build; other parameters start it afresh.
    """
    config = resolve_paths(load_config(config_path, overrides))
    if config.dataset is None or config.graph is None:
        name = "graph" if config.dataset else "dataset"
        raise InputError(f"{name}: not set; add --set {name}=FOLDER")
    dataset = Dataset.open(config.dataset)
    dataset.validate()

    connect(config.cluster)
    options = config.graph_options
    manifest = build_graph(dataset, config.graph, options, config.seed, RayExecutor(options))

    modalities = [
        f"{name} ({stats['num_present']} items, {options.num_neighbors} neighbours, {stats['num_centers']} centres)"
        for name, stats in manifest["modalities"].items()
    ]
    print(
        f"wrote graph {config.graph}: {manifest['num_items']} items, "
        f"{manifest['cooccurrence']['num_pairs_kept']} co-occurrences, {', '.join(modalities) or 'no modality'}"
    )


if __name__ == "__main__":
    main()
