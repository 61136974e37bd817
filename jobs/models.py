"""List the systems that can be trained and evaluated: python jobs/models.py"""

from __future__ import annotations

import click
from tabulate import tabulate

from configs.systems.registry import SYSTEMS, SystemEntry
from jobs.cli import job


@click.command()
@job
def main() -> None:
    """List the systems, the values of model.name: what each one is and what it needs."""
    rows = [(name, system.about, ", ".join(_needs(system))) for name, system in SYSTEMS.items()]
    click.echo(tabulate(rows, ["model.name", "what it is", "needs"], maxcolwidths=[None, 50, 22]))


def _needs(system: SystemEntry) -> list[str]:
    """Name what a system needs before it can rank: training, a graph, features, or nothing."""
    needs = {
        "training": system.is_trained,
        "graph": system.trains_on_graph or system.scores_by_cooccurrence,
        "features": system.reads_features,
    }
    return [name for name, is_needed in needs.items() if is_needed] or ["nothing"]


if __name__ == "__main__":
    main()
