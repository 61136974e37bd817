"""Show which settings of a run differ from the defaults: python jobs/config.py RUN"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click
from tabulate import tabulate

from configs.descriptions import as_in_a_config
from configs.knobs import all_knobs
from configs.loading import load_config
from configs.schema import Config
from contracts.errors import InputError
from distributed.checkpoints.run_storage import RunStorage
from jobs.cli import HomePath, job
from storage.uris import is_uri


@click.command()
@click.argument("run", type=HomePath())
@click.option("--all", "show_all", is_flag=True, help="show every knob, also those at their defaults")
@job
def main(run: str, show_all: bool) -> None:
    """Show which settings of the run folder RUN differ from the defaults.

    If the knob `ablation` is set, the run's saved configuration already has the ablated parts switched off.
    """
    rows = [
        (name, as_in_a_config(default), as_in_a_config(value))
        for name, default, value in _compared(_saved(run if is_uri(run) else os.path.abspath(run)))
        if show_all or value != default
    ]
    # The column of values is last and not wrapped, so that a path can be copied.
    click.echo(tabulate(rows, ["knob", "default", "value"], disable_numparse=True, maxcolwidths=[None, 28, None]))


def _saved(folder: str) -> Config:
    """Load the configuration of a run's folder.

    Raises:
        InputError: the folder has no configuration, or it cannot be read.
    """
    storage = RunStorage(folder)
    storage.pull("latest", tensors=False)
    path = storage.local / "config.yaml"
    if not path.exists():
        raise InputError(f"run {folder}: no {path.name} in it; name the run folder of jobs/train.py")
    return load_config(str(path))


def _compared(config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, default and value of every knob, as plain values. Knobs of other systems are left out."""
    tree = config.model_dump(mode="json")
    for name, info in all_knobs(Config):
        *sections, leaf = name.split(".")
        node: Any = tree
        for section in sections:
            node = node[section] or {}  # None: the section of another system
        if leaf in node:
            default = config.default_of(name, info)
            yield name, list(default) if isinstance(default, tuple) else default, node[leaf]


if __name__ == "__main__":
    main()
