"""Predict training steps on H200 GPUs with the cost model: python benchmarks/predictions.py

Nothing here is measured on a GPU. Peak rates are the vendor's; the shares of them that are reached are assumptions,
given below. The model is MDSRec with float32 rows of width `--dim`, sharded over all GPUs, with sampled softmax and
sampled centres. The output is a Markdown table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cost_model import (
    Draws,
    Group,
    ModelShape,
    StepShape,
    activation_bytes,
    bytes_sent,
    expected_distinct,
    expected_union,
    forward_flops,
    sampler_bytes,
    step_flops,
    table_bytes,
)

_GIB = 2**30
# H200 SXM: dense bfloat16 and float32 (no tensor cores) operations/s, memory, NVLink one way, 400 Gb/s InfiniBand.
_PEAK_FLOPS = {"bfloat16": 989e12, "float32": 67e12}
_HBM_BANDWIDTH, _HBM_BYTES = 4.8e12, 141e9
_NVLINK, _INFINIBAND, _GPUS_PER_NODE = 450e9, 50e9, 8
# Assumed: the shares of peak operations and of peak bandwidths that are reached; the matrices here are narrow.
_FLOPS_REACHED, _BANDWIDTH_REACHED = 0.3, 0.7
# Assumed: numbers kept for the backward are written and read once, and so are their gradients.
_PASSES = 4
_HISTORY = 12.0  # mean items of a window
_POPULARITY = 0.8  # exponent of Zipf's law


@dataclass(frozen=True)
class Setting:
    """A training set-up.

    Attributes:
        dim: d.
        batch: targets per GPU and step.
        draws: candidates drawn per step.
        in_batch: whether the targets of all ranks are candidates too.
        neighbors: H of the graph.
        cooccurrences: entries per row of O.
        centers: k of the graph.
        center_samples: draws per centre.
        modalities: M.
    """

    dim: int
    batch: int
    draws: int
    in_batch: bool
    neighbors: int
    cooccurrences: int
    centers: int
    center_samples: int
    modalities: int = 2


def roles_and_union(setting: Setting, num_items: int, world: int) -> tuple[float, float, float, float]:
    """Return the expected candidates, R, items in histories, and U of a rank.

    Histories and targets are assumed to be drawn by popularity, and draws half by popularity and half uniformly.
    """
    popular = Draws.zipf(1, num_items, _POPULARITY)
    own = setting.batch / _HISTORY * (_HISTORY + 1)  # a window's items and its last target
    shared = setting.batch * world if setting.in_batch else 0
    # Draws follow popularity^0.75 by default, so their exponent is 0.75 times that of popularity.
    half = Draws.zipf(setting.draws / 2, num_items, 0.75 * _POPULARITY)
    uniform = Draws(setting.draws / 2, popular.chances * 0 + 1 / num_items, popular.sizes)
    targets = Draws(shared, popular.chances, popular.sizes)
    histories = Draws(own, popular.chances, popular.sizes)
    candidates = expected_distinct([half, uniform, targets])
    roles = expected_distinct([half, uniform, targets, histories])
    seen = expected_distinct([Draws(setting.batch, popular.chances, popular.sizes)])
    more = seen * setting.cooccurrences + setting.modalities * setting.centers * setting.center_samples
    return candidates, roles, seen, expected_union(num_items, roles, setting.modalities * (setting.neighbors - 1), more)


def predict(setting: Setting, num_items: int, world: int, precision: str) -> dict[str, float]:
    """Return seconds, bytes and rates of a step on H200 GPUs, as if the network overlapped with nothing."""
    candidates, roles, seen, union = roles_and_union(setting, num_items, world)
    d, length = setting.dim, round(_HISTORY)
    model = ModelShape(d, 4 * d, 2, 4, setting.modalities, setting.centers)
    groups = (Group(round(setting.batch / length), length, length),)
    # Only items in histories bring their rows of O.
    entries = roles * setting.modalities * setting.neighbors + seen * setting.cooccurrences
    entries += setting.modalities * setting.centers * setting.center_samples
    step = StepShape(groups, setting.batch, round(candidates), round(union), round(roles), round(entries))
    # The loss stays in float32 under autocast (`model/blocks/losses.py`).
    loss = 3 * forward_flops(model, step)["loss"]
    products = (step_flops(model, step) - loss) / _PEAK_FLOPS[precision] + loss / _PEAK_FLOPS["float32"]
    # Logits are computed, normalised and used twice. A looked-up row passes through memory about as often.
    logits = 4 * model.num_channels * setting.batch * candidates
    moved = _PASSES * (activation_bytes(model, groups, 2 if precision == "bfloat16" else 4) + logits + 4 * d * union)
    moved += _PASSES * 4 * d * entries / 2  # one row read per entry, forward and backward
    # All channels share the weights of one tower and its positions.
    dense = 2 * (4 * d * d + 8 * d * d) + 60 * d
    sent = bytes_sent(world, union, d, dense)
    slowest = _INFINIBAND if world > _GPUS_PER_NODE else _NVLINK
    seconds = {
        "products": products / _FLOPS_REACHED,
        "memory": moved / (_HBM_BANDWIDTH * _BANDWIDTH_REACHED),
        "network": sum(sent.values()) / (slowest * _BANDWIDTH_REACHED),
    }
    # Products and memory overlap within kernels; the slower one counts.
    total = max(seconds["products"], seconds["memory"]) + seconds["network"]
    return seconds | {
        "step": total,
        "targets_per_second": world * setting.batch / total,
        "bytes": sum(sent.values()),
        "lengths": sent["lengths"],
        "union": union,
        "table": table_bytes(num_items, d, world, "adam"),
        "table_rowwise": table_bytes(num_items, d, world, "rowwise_adagrad"),
        "host": sampler_bytes(num_items, setting.modalities) * min(world, _GPUS_PER_NODE),
    }


@click.command()
@click.option("--gpus", default="8,64", show_default=True)
@click.option("--items", default="1e8,1e9", show_default=True)
@click.option("--dim", default=64, show_default=True)
@click.option("--batch", default=8192, show_default=True, help="targets per GPU and step")
@click.option("--draws", default=16384, show_default=True, help="candidates drawn per step")
@click.option("--in-batch/--no-in-batch", default=True, show_default=True, help="whether all targets are candidates")
@click.option("--neighbors", default=10, show_default=True, help="H, neighbours per item and modality")
@click.option("--cooccurrences", default=16, show_default=True, help="entries per row of O")
@click.option("--centers", default=32, show_default=True, help="k, centres per modality")
@click.option("--center-samples", default=64, show_default=True, help="draws per centre")
@click.option("--precision", default="float32", show_default=True, type=click.Choice(["bfloat16", "float32"]))
def main(gpus: str, items: str, precision: str, in_batch: bool, **knobs: int) -> None:
    """Print a table of predictions."""
    setting = Setting(in_batch=in_batch, **knobs)
    rows = []
    for num_items in (int(float(part)) for part in items.split(",")):
        for world in map(int, gpus.split(",")):
            found = predict(setting, num_items, world, precision)
            fits = "yes" if found["table"] < 0.9 * _HBM_BYTES else "no"
            rows.append(
                [
                    f"{num_items:.0e}",
                    world,
                    f"{found['union'] / 1e6:.2f}M",
                    f"{found['bytes'] / 1e6:,.0f}",
                    f"{found['lengths'] / 1e6:,.0f}",
                    *(f"{1000 * found[part]:.1f}" for part in ("products", "memory", "network", "step")),
                    f"{found['targets_per_second'] / 1e6:.2f}M",
                    f"{found['table'] / _GIB:.1f} ({fits})",
                    f"{found['table_rowwise'] / _GIB:.1f}",
                    f"{found['host'] / _GIB:.0f}",
                ]
            )
    columns = [
        "items",
        "GPUs",
        "union",
        "MB sent",
        "of it lengths",
        "products ms",
        "memory ms",
        "network ms",
        "step ms",
    ]
    columns += ["targets/s", "table + Adam GiB (fits)", "+ row-wise Adagrad", "sampler GiB/node"]
    print(tabulate(rows, columns, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
