"""Compare training steps with simpler forms and with lower bounds: python benchmarks/training.py --baby DATASET

All ratios are measured in one run, in which the compared forms take turns. The last line is one JSON object of
ratios.

1. Targets per second of MDSRec (width 64, 32 centres, 2 modalities, 10 neighbours), on the sequences of Amazon
   "Baby" (without --baby, on sequences of such lengths) and on long sequences. Windows with sampled softmax and
   sampled centres are compared with prefix rows that have a full softmax over all items and exact centres in every
   step. Prefix rows are timed in two forms: padded to the longest row of the batch, as such rows are commonly
   trained, and grouped by length, as this project trains them.
2. The time of centre attention, compared with a matrix product of as many multiply-adds (benchmarks/center_path.py).
3. 10 million items compared with 100 thousand on two ranks: step time, waits for the loader, memory
   (benchmarks/large_catalogue.py).
4. The bytes that a rank sends, compared with the cost model's prediction (benchmarks/scaling.py, two ranks).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch
from tabulate import tabulate

from benchmarks.center_path import center_path_share
from benchmarks.hashed_graph import HashedGraph
from benchmarks.large_catalogue import compare_catalogues
from benchmarks.step_forms import FORMS, GROUPED, OURS, PADDED, TrainedForm, padded_share
from data.dataset import Dataset
from data.sequences import SequenceArrays
from distributed.world import world_of_one
from tests.sequences import Sequences

_CENTERS, _NEIGHBORS, _PAIRS = 32, 10, 20


@click.command()
@click.option("--baby", type=click.Path(exists=True, file_okay=False), help="dataset folder of Amazon Baby")
@click.option("--steps", default=6, show_default=True, help="timed steps of each form in a round")
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--large-items",
    default=10_000_000,
    show_default=True,
    help="items of the large catalogue; 0 leaves out parts 3 and 4",
)
@click.option("--threads", default=1, show_default=True, help="threads of the one rank of parts 1 and 2")
def main(baby: str | None, steps: int, rounds: int, large_items: int, threads: int) -> None:
    """Print tables and, on the last line, JSON."""
    torch.set_num_threads(threads)
    figures: dict[str, float] = {}
    if baby:
        short: SequenceArrays = Dataset.open(baby)
    else:
        short = random_sequences(19_445, 7_050, lambda rng, users: 4 + rng.geometric(1 / 3.3, users))
    long = random_sequences(1_500, 7_050, lambda rng, users: rng.integers(150, 250, users))
    for title, data, max_length in (("Baby", short, 50), ("long histories", long, 200)):
        graph = HashedGraph(data.num_items, ("image", "text"), _NEIGHBORS, _PAIRS, _CENTERS)
        with world_of_one() as world:
            forms = {form: TrainedForm(form, data, graph, max_length, world) for form in FORMS}
            # One step of long prefix rows takes as long as dozens of steps of short ones.
            counted = 1 if data is long else steps
            rates = timed_in_turns(forms, counted, rounds)
            batches = forms[OURS].batches(20)
        print(f"\n{title}: {threads} threads, median of {rounds} rounds of {counted} steps")
        print(
            tabulate(
                [[f, rates[f], rates[OURS] / rates[f]] for f in FORMS], ["form", "targets/s", "windows / this form"]
            )
        )
        padded, grouped = rates[OURS] / rates[PADDED], rates[OURS] / rates[GROUPED]
        if data is long:
            figures |= {"targets_speedup_long_histories": padded, "long_histories_over_grouped_prefix_rows": grouped}
            figures |= {"center_path_over_gemm_long_histories": center_path_share(batches[0].groups, _CENTERS)}
        else:
            figures |= {"targets_speedup_over_prefix_rows": padded, "speedup_over_grouped_prefix_rows": grouped}
            figures |= {"center_path_over_gemm": center_path_share(batches[0].groups, _CENTERS)}
            figures |= {"padding_fraction": float(np.mean([padded_share(batch) for batch in batches]))}
    if large_items:
        figures |= compare_catalogues(100_000, large_items)
        figures["bytes_prediction_error"] = bytes_error()
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


def bytes_error() -> float:
    """Return the cost model's error for two ranks, from the last line of `benchmarks/scaling.py`."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("scaling.py")
        command = [
            sys.executable,
            str(script),
            "--output",
            folder,
            "--workers",
            "2",
            "--items",
            "100000",
            "--steps",
            "4",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["bytes_prediction_error"])


def timed_in_turns(forms: dict[str, TrainedForm], steps: int, rounds: int) -> dict[str, float]:
    """Return the targets per second of each form: medians over rounds, after one step of each that is not counted."""
    for form in forms.values():
        form.targets_per_second(1)
    rates = [[form.targets_per_second(steps) for form in forms.values()] for _ in range(rounds)]
    return dict(zip(forms, np.median(rates, axis=0).tolist(), strict=True))


def random_sequences(num_users: int, num_items: int, lengths_of) -> Sequences:
    """Return sequences of random items with the given lengths; the last two items of each are not for training."""
    rng = np.random.default_rng(0)
    lengths = lengths_of(rng, num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(0, num_items, offsets[-1])
    return Sequences(num_items, num_users, offsets, items, lengths - 2, lengths - 1)


if __name__ == "__main__":
    main()
