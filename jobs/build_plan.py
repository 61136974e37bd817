"""The options and the output of `jobs/build_graph.py --plan`, and the table of its `--compare`."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from configs.places import Places, listed
from configs.schema import Config
from contracts.errors import InputError
from contracts.modalities import check_modality_name
from distributed.job_paths import absolute
from graph_builder.build_inputs import GraphSource, check_features
from graph_builder.cost.ceilings import H200, Ceilings, measure_ceilings
from graph_builder.cost.plan import directed_pairs, predict
from graph_builder.cost.plan_tables import comparison_table, measured_seconds, plan_table, plan_values
from graph_builder.cost.request import ModalitySize, PlanRequest
from graph_builder.executor import SerialExecutor
from graph_builder.work_folder import write_json
from jobs.cli import HomePath
from storage.array_file import map_array
from storage.object_cache import work_folder
from storage.uris import is_uri

if TYPE_CHECKING:
    from graph_builder.ray_tasks import RayExecutor

_RATES = [rate.name for rate in fields(Ceilings)]
_DEFAULT = "measured here"
_DEFAULT_ON_GPUS = f"{_DEFAULT}; with --gpus, an H200"
_POSITIVE = click.IntRange(min=1)
_OPTIONS = [
    click.option("--plan", "is_plan", is_flag=True, help="predict the build's time, memory and bytes; build nothing"),
    click.option(
        "--width",
        multiple=True,
        metavar="[NAME=]WIDTH",
        help="plan: width of a modality's features; may be repeated [default: none]",
    ),
    click.option(
        "--num-pairs", type=click.IntRange(min=0), help="plan: pairs of items within graph_options.window [default: 0]"
    ),
    click.option("--workers", type=_POSITIVE, help="plan: cores of the cluster [default: 1]"),
    click.option("--gpus", type=click.IntRange(min=0), help="plan: GPUs of the cluster [default: 0]"),
    click.option("--plan-output", type=HomePath(), metavar="FILE", help="plan: JSON file to write the prediction to"),
    *(
        click.option(
            "--" + rate.name.replace("_", "-"),
            type=click.FloatRange(min=0, min_open=True),
            help=f"plan: {rate.metadata['help']} [default: {_DEFAULT_ON_GPUS if rate.name in H200 else _DEFAULT}]",
        )
        for rate in fields(Ceilings)
    ),
]
_NAMES = ("width", "num_pairs", "workers", "gpus", "plan_output", *_RATES)


def plan_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of --plan to a command, which gets them as `plan`: a dict, or None without --plan.

    Raises:
        InputError: one of the options is given without --plan.
    """

    @functools.wraps(function)
    def run(*, is_plan: bool, **options: Any) -> None:
        given = {name: options.pop(name) for name in _NAMES}
        stated = next((name for name in _NAMES if given[name] not in (None, ())), None)
        if stated and not is_plan:
            raise InputError(f"--{stated.replace('_', '-')}: is only for --plan; add --plan, or leave it out")
        function(plan=given if is_plan else None, **options)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


def print_plan(
    source: GraphSource | None,
    num_items: int | None,
    config: Config,
    *,
    width: tuple[str, ...],
    num_pairs: int | None,
    workers: int | None,
    gpus: int | None,
    plan_output: str | None,
    **rates: float | None,
) -> None:
    """Predict a build and print the prediction. Sizes come from the source, or without a source from the options.

    Raises:
        InputError: sizes are missing, named twice or not positive, or the output cannot be a new file.
    """
    from tabulate import tabulate  # a build does without

    output = Path(absolute("plan-output", plan_output) or "") if plan_output else None
    if output and output.exists():
        raise InputError(f"--plan-output {output}: exists; name a new file")
    if output and not output.parent.is_dir():
        raise InputError(f"--plan-output {output}: its folder does not exist; create it first")
    cluster: dict[str, Any] = {"options": config.graph_options, "workers": workers or 1, "gpus": gpus or 0}
    if source is None:
        if num_items is None:
            raise InputError(
                "--plan: number of items not known; name a dataset, --features or --sequences, or give --num-items"
            )
        sizes = dict(map(_width, width))
        if len(sizes) < len(width):
            raise InputError(f"--width {' '.join(width)}: a modality is named twice; write NAME=WIDTH for each")
        request = PlanRequest(num_items=num_items, modalities=sizes, num_pairs=num_pairs or 0, **cluster)
    else:
        for flag, value in (("--width", width), ("--num-pairs", num_pairs)):
            if value not in (None, ()):
                raise InputError(f"{flag}: is read from {source.path}; leave out {flag}, or the files")
        request = _request_of(source, **cluster)
    given = {name: value for name, value in rates.items() if value is not None}
    for name, rate in given.items():
        if not math.isfinite(rate):
            raise InputError(f"--{name.replace('_', '-')} {rate}: expected a finite rate above 0")
    known = (H200 if request.gpus else {}) | given
    ceilings = measure_ceilings(nearest_folder(config.graph), known)
    plan = predict(request, ceilings)
    origin = [(n, f"{v:.4g}", _origin(n, given, request.gpus)) for n, v in asdict(ceilings).items()]
    print(tabulate(origin, ["ceiling", "value", "from"], colalign=("left", "right", "left"), disable_numparse=True))
    widths = ", ".join(f"{name} {size.width}" for name, size in request.modalities.items()) or "none"
    on = f"{request.gpus} GPUs and {request.workers} cores" if request.gpus else f"{request.workers} cores"
    print(f"\n{request.num_items:,} items, modalities: {widths}, {request.num_pairs:,} pairs, on {on}\n")
    print(plan_table(plan))
    if output:
        write_json(output, json.loads(json.dumps(plan_values(plan))))
        print(f"wrote plan {output}")


def comparison(source: GraphSource, config: Config, executor: RayExecutor | SerialExecutor) -> str:
    """Return a table of predicted and measured seconds of a finished build.

    The prediction uses the ceilings (best rates) that are measured on the driver's machine; for GPUs, those of an H200.
    """
    request = _request_of(source, options=config.graph_options, workers=executor.cores, gpus=executor.gpus)
    plan = predict(request, measure_ceilings(nearest_folder(config.graph), H200 if executor.gpus else {}))
    return comparison_table(plan, measured_seconds(executor.seconds))


def nearest_folder(places: Places) -> Path | None:
    """Return the nearest existing folder above where the (first) graph will be; None without a graph.

    Temporary files may go there, since that disk needs room for the graph anyway.
    """
    for graph in listed(places):
        folder = work_folder(graph) if is_uri(graph) else Path(graph).absolute()
        return next(parent for parent in folder.parents if parent.is_dir())
    return None


def _request_of(source: GraphSource, **cluster: Any) -> PlanRequest:
    """Return the sizes that a prediction needs. Of feature files only the headers are read."""
    sizes = {}
    for modality in source.modalities:
        path = source.feature_path(modality)
        _, width = check_features(path)
        sizes[modality] = ModalitySize(width, map_array(path).dtype.itemsize)
    longest = int(np.max(source.train_end, initial=1))
    num_pairs = directed_pairs(source.train_end, cluster["options"].window) // 2
    return PlanRequest(num_items=source.num_items, modalities=sizes, num_pairs=num_pairs, longest=longest, **cluster)


def _width(value: str) -> tuple[str, ModalitySize]:
    name, equals, text = value.partition("=")
    if not equals:
        name, text = "features", value
    check_modality_name(name)
    if not text.isdecimal() or not int(text):
        raise InputError(f"--width {value}: expected a whole number above 0, or NAME=WIDTH")
    return name, ModalitySize(int(text))


def _origin(name: str, given: dict[str, float], gpus: int) -> str:
    if name in given:
        return "given"
    return "H200" if gpus and name in H200 else "measured on this machine"
