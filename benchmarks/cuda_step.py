"""Count what a training step launches on a GPU, and predict its time, without a GPU: python benchmarks/cuda_step.py

The step runs on a pretended CUDA device (`tests/pretended_device`), which computes shapes only and counts kernels,
waits of the host, memory, bytes and floating-point operations. Nothing is measured. The predicted time is what the
counted work takes at the rates below, of which the shares that are reached are assumptions.

The step is MDSRec's: windows of sequences of up to 200 items, two modalities, sampled softmax and centres, a replicated
item table, Adam. Lengths of sequences are log-normal, so that a batch has short and long ones. `--sizes cpu` counts the
same step with the groups, chunks and memory that suit a CPU, as GPUs had them before.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch
from tabulate import tabulate

from benchmarks.hashed_graph import HashedGraph
from configs.loading import load_config
from contracts.batch import Step
from data.sampling.batches import TrainBatches
from data.sampling.grouping import ON_CPU, grouping_for
from data.sampling.item_planner import ItemPlanner
from data.sampling.negatives import CandidateSampler, target_counts
from data.sampling.spans import TrainingSpans, Unit
from distributed.optimizers import NamedOptimizer, Optimizers
from distributed.training.device_step import DeviceStep
from distributed.training.nonfinite_guard import GuardedOptimizer
from model.blocks import center_chunks, center_memory, losses
from model.blocks.item_table import ItemTable
from model.cpu import dispatch
from model.protocol import CatalogueInfo
from model.recommender import Recommender
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.pretended_device import CUDA, Counts, pretended_device
from tests.sequences import Sequences

# One H200 SXM: operations/s of dense products, bytes/s of memory. Assumed: microseconds of the host for a kernel (4 to
# 5 for PyTorch's launch itself), the least microseconds of a kernel, and the shares of the rates that are reached, as
# in benchmarks/predictions.py.
_FLOPS = {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12}
_BANDWIDTH = 4.8e12
_LAUNCH_US, _KERNEL_US = 5.0, 2.0
_FLOPS_REACHED, _BANDWIDTH_REACHED = 0.3, 0.7

_ITEMS, _BATCH, _TARGETS, _LENGTH, _DRAWS, _CENTERS = 100_000, 4096, 4802, 200, 16_384, 16


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step and the model that trains it, on the CPU."""

    recommender: Recommender
    step: Step
    dim: int

    @classmethod
    def of(cls, dim: int, sizes: str = "gpu", heads: int = 4, unit: Unit = "windows") -> Case:
        """Return a step of about 4,802 targets; of 4,096 with prefix rows.

        Args:
            dim: d.
            sizes: "gpu" or "cpu": the device for which sequences are grouped.
            heads: attention heads.
            unit: "windows" or "prefixes".
        """
        data = log_normal_sequences(4000)
        settings = (f"model.dim={dim}", f"model.max_length={_LENGTH}", f"model.num_heads={heads}")
        sampled = (f"training.negatives.draws={_DRAWS}", "model.mdsrec.center_samples=64")
        config = load_config(None, [*settings, *sampled])
        graph = HashedGraph(_ITEMS, ("image", "text"), num_neighbors=10, num_cooccurrences=16, centers=_CENTERS)
        centers = dict.fromkeys(graph.modalities, _CENTERS)
        info = CatalogueInfo(num_items=_ITEMS, modalities=graph.modalities, num_centers=centers)
        recommender = build_model(config.model, info)
        options = config.training.negatives
        batches = TrainBatches(
            data=data,
            spans=TrainingSpans(data=data, unit=unit, max_length=_LENGTH, overlap=config.training.window_overlap),
            batch_size=_BATCH,
            seed=0,
            rank=0,
            world=1,
            planner=ItemPlanner(needs=recommender.needs, num_items=_ITEMS, graph=graph, features={}),
            candidates=CandidateSampler(
                counts=target_counts(data, data.popularity()),
                num_draws=_DRAWS,
                popularity_share=options.popularity_share,
                popularity_power=options.popularity_power,
                in_batch=options.in_batch,
                seed=0,
            ),
            grouping=ON_CPU if sizes == "cpu" else grouping_for("cuda", _LENGTH),
        )
        targets = [int(batches.spans(step)[0].num_targets.sum()) for step in range(len(batches))]
        return cls(recommender=recommender, step=batches[int(np.argmin(np.abs(np.array(targets) - _TARGETS)))], dim=dim)

    def count(self) -> Counts:
        """Train one step on the pretended device, and return what it did; weights and moments were there before."""
        assert self.step.plan is not None
        with pretended_device("meta", may_wait=["distributed/training/nonfinite_guard.py norm_on_host"]) as device:
            table = ItemTable(num_items=_ITEMS, dim=self.dim, init_std=0.02, device="meta")
            system = RecommenderSystem(table, self.recommender).to(CUDA).train()
            parameters = dict(system.named_parameters())
            adam = NamedOptimizer(parameters, torch.optim.Adam(parameters.values()))
            optimizer = GuardedOptimizer(Optimizers({"all": adam}), list(parameters.values()), clip=None)
            for parameter in parameters.values():  # Adam makes its moments in the first step
                parameter.grad = torch.zeros_like(parameter)
            adam.step()
            optimizer.zero_grad()
            device.counts.restart()
            feature = table.feature(self.step.plan.union_ids)
            step = DeviceStep(feature=feature, plan=self.step.plan, batch=self.step.batch, number=0)
            loss: torch.Tensor = system(step.to(CUDA, non_blocking=True))
            loss.backward()
            optimizer.step()
            return device.counts


def log_normal_sequences(num_users: int) -> Sequences:
    """Return random sequences with a median length of 40, at most 600; the last two items are not for training."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(3.6, 1.0, num_users)).astype(np.int64) + 3, 4, 600)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = (_ITEMS * rng.random(offsets[-1]) ** 4).astype(np.int64)  # some items are popular
    return Sequences(_ITEMS, num_users, offsets, items, lengths - 2, lengths - 1)


@contextlib.contextmanager
def sizes_of_a_cpu() -> Iterator[None]:
    """Make CUDA take the chunks and the memory of a CPU, but for 2^19 rows of centres at a time."""
    chunks = dispatch.Choice(dispatch.Path.PLAIN, "as on a CPU")
    parts = {
        dispatch.Part.CENTER_STATES: lambda _: chunks,
        dispatch.Part.CENTER_ATTENTION: lambda work: dispatch.Choice(
            dispatch.Path.FEW_KEYS if dispatch.has_few_keys(work.num_keys, work.head_width) else dispatch.Path.PLAIN,
            "as on a CPU",
        ),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(dispatch._CHOICES, parts))
        stack.enter_context(mock.patch.object(center_chunks, "_CHUNK_ROWS", 2**19))
        stack.enter_context(mock.patch.object(center_memory, "_SHARE_OF_GPU", 0.0))
        stack.enter_context(mock.patch.object(losses, "_MAX_LOGITS_ON_GPU", losses.MAX_LOGITS))
        yield


def predicted_ms(counts: Counts, products: str) -> tuple[float, float]:
    """Return the milliseconds of the host, which launches, and of the device; a step takes the longer of the two.

    Args:
        counts: what the step did.
        products: how float32 products are computed, a name in `_FLOPS`; attention kernels add in float32 anyway.
    """
    device = 0.0
    for launch in counts.launches:
        rate = _FLOPS["float32" if "attention" in launch.name else products] * _FLOPS_REACHED
        seconds = max(launch.flops / rate, launch.num_bytes / (_BANDWIDTH * _BANDWIDTH_REACHED))
        device += max(seconds, _KERNEL_US * 1e-6)
    return counts.num_launches * _LAUNCH_US / 1000, device * 1000


@click.command()
@click.option("--dim", "dims", type=int, multiple=True, default=(64, 300), show_default=True)
@click.option("--sizes", type=click.Choice(["gpu", "cpu"]), default="gpu", show_default=True)
@click.option("--products", type=click.Choice(["float32", "tf32"]), default="tf32", show_default=True)
@click.option("--heads", default=4, show_default=True)
@click.option("--unit", type=click.Choice(["windows", "prefixes"]), default="windows", show_default=True)
def main(dims: tuple[int, ...], sizes: str, products: str, heads: int, unit: Unit) -> None:
    """Print a table."""
    rows = []
    for dim in dims:
        case = Case.of(dim, sizes, heads, unit)
        with sizes_of_a_cpu() if sizes == "cpu" else contextlib.nullcontext():
            counts = case.count()
        host, device = predicted_ms(counts, products)
        rows.append(
            {
                "d": dim,
                "heads": heads,
                "targets": len(case.step.batch.targets),
                "groups": len(case.step.batch.groups),
                "launches": counts.num_launches,
                "waits": counts.num_waits,
                "peak GiB": round(counts.peak / 2**30, 1),
                "TFLOP": round(sum(launch.flops for launch in counts.launches) / 1e12, 2),
                "GB moved": round(sum(launch.num_bytes for launch in counts.launches) / 1e9, 1),
                "host ms": round(host, 1),
                "device ms": round(device, 1),
                "predicted ms": round(max(host, device), 1),
            }
        )
    print(tabulate(rows, headers="keys", tablefmt="github"))


if __name__ == "__main__":
    main()
