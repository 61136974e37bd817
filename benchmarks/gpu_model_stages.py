"""The stages of `gpu_suite.py` that train and rank models on the GPU."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.cost_model import ModelShape, step_flops
from benchmarks.hashed_graph import HashedGraph
from benchmarks.hashed_training import HashedTraining, hashed_training, long_histories
from benchmarks.rank_measurement import shape_of
from configs.loading import load_config
from contracts.batch import Step
from data.sequences import SequenceArrays
from distributed.matmul_precision import training_matmul_precision
from distributed.world import World, world_of_one
from jobs import evaluate, prepare_data, train
from tests.systems import settings_without_noise

MODALITIES = ("image", "text")
_SAMPLED = ("training.negatives.draws=512", "training.unit=windows")
# The largest relative difference of gradients to those of the CPU. Products round their operands to 24 bits of
# precision in float32, to 11 in TF32 and to 8 in bfloat16, and a gradient comes from a chain of them.
_BOUNDS = {"float32": 1e-4, "tf32": 3e-2, "bfloat16": 1e-1}
_LOSS = "loss"


def gradients(device: torch.device, small: bool) -> dict[str, Any]:
    """Compare losses and gradients on the device with those on the CPU, and with and without recomputation."""
    data, graph = _case(small)
    cases = {
        "mdsrec sampled": ("mdsrec", (*_SAMPLED, "model.mdsrec.center_samples=16", "model.learn_repeats=true")),
        "mdsrec full": ("mdsrec", ("training.unit=prefixes",)),
        "sasrec sampled": ("sasrec", _SAMPLED),
        "gru4rec sampled": ("gru4rec", _SAMPLED),
        "bert4rec": ("bert4rec", ("training.negatives.draws=512", "training.negatives.in_batch=false")),
    }
    checks, figures = {}, {}
    with world_of_one(device) as world:
        cpu = World(0, 1, torch.device("cpu"))
        for name, (system, settings) in cases.items():
            quiet = (f"model.name={system}", *settings_without_noise(system), *settings)
            expected = _gradients(data, graph, quiet, cpu, "float32")
            for precision, bound in _BOUNDS.items():
                error = _difference(_gradients(data, graph, quiet, world, precision), expected)
                checks[f"{name} {precision}"] = error <= bound
                figures[f"{name} {precision}"] = error
        noisy = ("model.name=mdsrec", *_SAMPLED, "model.dropout=0.3")
        kept, again = (
            _gradients(data, graph, (*noisy, f"model.mdsrec.center_memory_gib={gib}"), world, "float32")
            for gib in (64.0, 0.0)
        )
        figures["recomputed"] = _difference(again, kept)
        checks["recomputed"] = figures["recomputed"] <= _BOUNDS["float32"]
    return {"checks": checks, "figures": figures}


def step(device: torch.device, small: bool) -> dict[str, Any]:
    """Measure steps of 4,096 targets with histories of 200 and 16,384 draws, at widths 64 and 300."""
    figures: dict[str, float] = {}
    data = long_histories(*((40, 500, 20) if small else (2000, 1_000_000, 200)))
    graph = HashedGraph(data.num_items, MODALITIES, 10, 20, 16)
    with world_of_one(device) as world:
        rate = _product_rate(device, 256 if small else 8192)
        figures["product_tflops"] = rate / 1e12
        for dim, precision in ((64, "float32"), (300, "float32"), (64, "bfloat16")):
            settings = (
                "model.name=mdsrec", f"model.dim={dim}", f"training.precision={precision}",
                "table.sharding=data_parallel",
                "model.mdsrec.center_samples=64", "training.unit=windows", f"model.max_length={20 if small else 200}",
                f"training.batch_size={64 if small else 4096}", f"training.negatives.draws={64 if small else 16384}",
            )  # fmt: skip
            training = hashed_training(load_config(None, list(settings)), data, graph, world)
            shape = ModelShape.of(load_config(None, list(settings)), len(MODALITIES), graph.centers)
            measured = _measured_steps(training, shape, device, *((1, 2) if small else (4, 12)))
            measured["share_of_floor"] = measured.pop("flops") / rate / measured["seconds"]
            figures |= {f"{name} d={dim} {precision}": value for name, value in measured.items()}
            del training
    return {"checks": {}, "figures": figures}


def resume(device: torch.device, small: bool) -> dict[str, Any]:
    """Train about 200 steps with the jobs, as a whole and with a stop in between; rank the result on the CPU too."""
    counts = (60, 50, 2) if small else (2000, 1500, 8)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = (f"--num-users={counts[0]}", f"--num-items={counts[1]}")
        _run(prepare_data, "--format=synthetic", *size, f"--output={root / 'data'}")
        common = [
            f"--set=dataset={root / 'data'}", "--set=model.name=sasrec", "--set=model.dim=32",
            "--set=model.dropout=0.2",
            "--set=training.negatives.draws=64", "--set=cluster.num_workers=1",
            f"--set=cluster.use_gpu={str(device.type == 'cuda').lower()}",
        ]  # fmt: skip
        for run, epochs in (("whole", counts[2]), ("stopped", counts[2] // 2), ("stopped", counts[2])):
            _run(train, *common, f"--set=run={root / run}", f"--set=training.max_epochs={epochs}")
        whole, stopped = (_last_weights(root / run) for run in ("whole", "stopped"))
        difference = max(float((whole[name] - stopped[name]).abs().max()) for name in whole)
        ranks = _ranks(root / "whole")
        _run(evaluate, f"--run={root / 'whole'}", "--set=cluster.use_gpu=false", "--set=evaluation.user_batch=128")
        on_cpu = pq.read_table(root / "whole/evaluation-best-ranks-test.parquet")["rank"].to_numpy()
        metrics = json.loads((root / "whole/metrics.json").read_text())["test"]
    moved = int((ranks != on_cpu).sum())
    return {
        "checks": {"resumed weights": difference == 0.0, "ranks": moved <= len(ranks) // 1000},
        "figures": {
            "difference of weights": difference,
            "ranks that differ": moved,
            "of": len(ranks),
            **metrics,
        },
    }


def _case(small: bool) -> tuple[SequenceArrays, HashedGraph]:
    data = long_histories(*((40, 300, 20) if small else (400, 5000, 50)))
    return data, HashedGraph(data.num_items, MODALITIES, 5, 8, 8)


def _gradients(
    data: SequenceArrays, graph: HashedGraph, settings: tuple[str, ...], world: World, precision: str
) -> dict[str, Tensor]:
    """Return the loss and the gradients of the first step, on the host in float64."""
    config = load_config(
        None,
        [
            "model.dim=32", "model.num_heads=2", "model.max_length=50", "training.batch_size=256", "model.init_std=0.1",
            "table.sharding=data_parallel", "training.optimizer=sgd", "training.learning_rate=1e-12",
            f"training.precision={'bfloat16' if precision == 'bfloat16' else 'float32'}", *settings,
        ],
    )  # fmt: skip
    # Training allows TensorFloat-32. For float32 that is switched off.
    exact = mock.patch("distributed.training.step.training_matmul_precision", return_value=nullcontext())
    with exact if precision == "float32" else nullcontext():
        training = hashed_training(config, data, graph, world)
        training.sharded.system.train()
        (share,) = training.steps.run([training.batches[0]])
    assert share is not None, "the step was skipped: its loss or gradient is not finite"
    found = {name: p.grad for name, p in training.sharded.system.named_parameters() if p.grad is not None}
    return {name: value.double().cpu() for name, value in {_LOSS: share, **found}.items()}


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative difference of the loss and of a parameter's gradient; infinite if names differ.

    A gradient's difference is relative to its norm, but at least to a hundredth of the norm of all gradients.
    """
    if found.keys() != expected.keys():
        return float("inf")
    least = 0.01 * sum(float(value.square().sum()) for name, value in expected.items() if name != _LOSS) ** 0.5
    return max(
        float((found[name] - value).norm()) / max(float(value.norm()), least) for name, value in expected.items()
    )


def _product_rate(device: torch.device, size: int) -> float:
    """Return operations per second of a matrix product in TF32, or in float32 on a CPU."""
    left, right = torch.randn(2, size, size, device=device)
    with training_matmul_precision(device):
        for _ in range(3):
            left @ right
        _synchronize(device)
        began = time.perf_counter()
        for _ in range(10):
            left @ right
        _synchronize(device)
        return 20 * size**3 / (time.perf_counter() - began)


def _measured_steps(
    training: HashedTraining, shape: ModelShape, device: torch.device, warmup: int, count: int
) -> dict[str, float]:
    """Return the seconds of a step and of its preparation, launches, waits, peak GiB, and operations."""
    on_gpu = device.type == "cuda"
    training.sharded.system.train()
    began = time.perf_counter()
    ready = [training.batches[number % len(training.batches)] for number in range(warmup + count)]
    loading = (time.perf_counter() - began) / len(ready)
    steps: list[Step] = [one.pin_memory() for one in ready] if on_gpu else ready
    for _ in training.steps.run(steps[:warmup]):
        pass
    _synchronize(device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    for _ in training.steps.run(steps[warmup:]):
        pass
    _synchronize(device)
    plan = steps[-1].plan
    assert plan is not None
    found = {
        "seconds": (time.perf_counter() - began) / count,
        "loading": loading,
        "targets": float(steps[-1].batch.num_global_targets),
        "flops": float(step_flops(shape, shape_of(steps[-1], plan))),
    }
    if on_gpu:
        found["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        found["launches"], found["waits"] = float(_launches(training, steps[0])), float(_waits(training, steps[0]))
    return found


def _launches(training: HashedTraining, one: Step) -> int:
    """Return the number of kernels of a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in training.steps.run([one]):
            pass
        torch.cuda.synchronize()
    kinds = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in kinds)


def _waits(training: HashedTraining, one: Step) -> int:
    """Return how often the host waits for the GPU in a step."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in training.steps.run([one]):
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _run(job: Any, *arguments: str) -> None:
    job.main(list(arguments), standalone_mode=False)


def _last_weights(run: Path) -> dict[str, Tensor]:
    latest = json.loads((run / "checkpoints/index.json").read_text())["latest"]
    (shard,) = (run / f"checkpoints/step-{latest:08d}").glob("*.safetensors")
    return {name: value for name, value in load_file(shard).items() if name.startswith("model/")}


def _ranks(run: Path) -> Any:
    return pq.read_table(run / "ranks-test.parquet")["rank"].to_numpy()
