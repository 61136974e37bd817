"""Compare the cost of an epoch of each system with SASRec's: python benchmarks/systems.py [--dataset DATASET]

All systems are built in one process, and take training steps in turns, so that other work on the machine slows all of
them alike. The seconds of an epoch are the steps of an epoch times the median seconds of a step, plus what the system
computes before each epoch. The ratio to SASRec is the median over rounds of the ratio within a round.

The table also has the number of items of a step, and how many of them go through a linear map of raw features, counted
by hooks on the maps: with sampled candidates it must be the items of the step, not the catalogue. The last line is one
JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from tabulate import tabulate

from benchmarks.cases import MODALITIES
from benchmarks.hashed_graph import HashedGraph
from benchmarks.timed_system import TimedSystem
from configs.loading import load_config
from configs.schema import Config
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from data.dataset import Dataset, write_dataset
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from distributed.host_memory import keep_freed_memory
from distributed.inputs import Inputs, open_graph
from distributed.world import world_of_one
from jobs.cli import config_options, job

REFERENCE = "sasrec"
_FEATURES = (90, 150)  # widths of the synthetic modalities, which no other part of a system has
_NEIGHBORS, _PAIRS, _CENTERS, _CENTER_SAMPLES = 5, 10, 16, 64  # of the hashed graph


@click.command()
@config_options
@click.option("--dataset", type=click.Path(exists=True, file_okay=False), help="a dataset; default: a synthetic one")
@click.option("--graph", type=click.Path(exists=True, file_okay=False), help="its graph; default: a hashed one")
@click.option("--systems", default="all", show_default=True, help="names, separated by commas")
@click.option("--users", default=2000, show_default=True, help="users of the synthetic dataset")
@click.option("--items", default=20_000, show_default=True, help="items of the synthetic dataset")
@click.option("--draws", default=1024, show_default=True, help="draws of a step; 0: all items are candidates")
@click.option("--steps", default=5, show_default=True, help="steps of each system in a round")
@click.option("--warmup", default=2, show_default=True, help="steps before the first round")
@click.option("--rounds", default=5, show_default=True)
@job
def main(
    config_path: str | None,
    overrides: tuple[str, ...],
    dataset: str | None,
    graph: str | None,
    systems: str,
    users: int,
    items: int,
    draws: int,
    **repetitions: int,
) -> None:
    """Print a table and, on the last line, JSON. Settings of --config and --set apply to every system."""
    configs = {name: config_of(name, config_path, overrides, draws) for name in names_of(systems)}
    with tempfile.TemporaryDirectory() as folder:
        inputs = inputs_of(dataset or write_catalogue(folder, users, items), graph)
        results = compare(configs, inputs, **repetitions)
    num_items, candidates = inputs.dataset.num_items, f"{draws:,} draws" if draws else "all items are candidates"
    print(f"{num_items:,} items, {candidates}, median of {repetitions['rounds']} rounds")
    columns = list(results[REFERENCE])
    rows = [[name, *map(shown, row.values())] for name, row in results.items()]
    print(tabulate(rows, ["system", *columns], disable_numparse=True, stralign="right"))
    print(json.dumps({"num_items": num_items, "draws": draws, "systems": results}))


def names_of(systems: str) -> list[str]:
    """Return the systems that an option names, with the reference first.

    Raises:
        InputError: a name is not that of a trained system.
    """
    trained = [name for name, system in SYSTEMS.items() if system.is_trained]
    chosen = trained if systems == "all" else [name.strip() for name in systems.split(",")]
    for name in chosen:
        if name not in trained:
            raise InputError(f"--systems {name}: is not a trained system; the trained systems are {', '.join(trained)}")
    return [REFERENCE, *(name for name in chosen if name != REFERENCE)]


def config_of(name: str, config_path: str | None, overrides: tuple[str, ...], draws: int) -> Config:
    """Return the config of a system: its defaults, or those of a file, with the draws."""
    own = [f"model.name={name}", *([f"training.negatives.draws={draws}"] if draws else [])]
    if draws and name == "mdsrec":
        own.append(f"model.mdsrec.center_samples={_CENTER_SAMPLES}")
    if draws and SYSTEMS[name].units[0] == "masks":  # in-batch candidates have no right weights there
        own.append("training.negatives.in_batch=false")
    return load_config(config_path, [*own, *overrides])


def write_catalogue(folder: str, users: int, items: int) -> str:
    """Write a synthetic dataset with features, and return its folder."""
    modalities = tuple(zip(MODALITIES, _FEATURES, strict=True))
    path = str(Path(folder) / "dataset")
    write_dataset(path, synthetic_content(SyntheticSpec(num_users=users, num_items=items, modalities=modalities)))
    return path


def inputs_of(dataset: str, graph: str | None) -> Inputs:
    """Open a dataset with its graph, or with a hashed one.

    Raises:
        InputError: see `Dataset.open` and `open_graph`.
    """
    data = Dataset.open(dataset)
    if graph is not None:
        return Inputs(data, open_graph(graph, dataset_fingerprint=data.fingerprint, dataset_path=dataset))
    hashed = HashedGraph(data.num_items, data.modalities, _NEIGHBORS, _PAIRS, _CENTERS)
    return Inputs(data, hashed)  # type: ignore[arg-type]


def compare(
    configs: dict[str, Config], inputs: Inputs, *, steps: int, warmup: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Time all systems in turns, and return a row of figures for each; `configs` must have the reference."""
    keep_freed_memory()  # as a rank of a training does
    with world_of_one() as world:
        timed = {name: TimedSystem(config, inputs, world) for name, config in configs.items()}
        for system in timed.values():
            system.train(warmup)
        before = {name: system.seconds_before_epoch() for name, system in timed.items()}
        found: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(rounds):
            for name, system in timed.items():
                found[name].append(before[name] + system.train(steps) / steps * system.steps_per_epoch)
        return {
            name: {
                "unit": configs[name].training.unit,
                "seconds per epoch": median(found[name]),
                f"over {REFERENCE}": median(a / b for a, b in zip(found[name], found[REFERENCE], strict=True)),
                "of these before it": before[name],
                "parameters": system.num_parameters,
                "items of a step": system.items_per_step,
                "items mapped in a step": system.mapped_per_step,
            }
            for name, system in timed.items()
        }


def shown(value: Any) -> str:
    """Return a figure as the table shows it: three digits, whole numbers with separators, - for none."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
