"""What a training step costs beside its plain forms and its floors: python benchmarks/training.py --baby DATASET

All ratios are of one run, in turns; the last line is one JSON object of them.

1. Targets per second of MDSRec (width 64, 32 centres, 2 modalities, 10 neighbours) on the sequences of Amazon
   "Baby" (without --baby, on sequences as long) and on long ones: windows with sampled softmax and sampled
   centres, beside prefix rows with a full softmax over all items and exact centres, every step. Prefix rows are
   timed as a batch padded to its longest row, as such rows are commonly trained, and grouped by length, as ours are.
2. The centre path's multiply-adds beside a plain matrix product of as many (benchmarks/center_path.py).
3. 10 million items beside 100 thousand, two ranks: step time, waits for the loader, memory
   (benchmarks/large_catalogue.py).
4. Bytes that a rank sends beside the cost model's prediction (benchmarks/scaling.py, two ranks).
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
@click.option("--steps", default=6, show_default=True, help="timed steps of a form in a round")
@click.option("--rounds", default=3, show_default=True)
@click.option("--large-items", default=10_000_000, show_default=True, help="0: leave out the two catalogue sizes")
@click.option("--threads", default=1, show_default=True, help="of the one rank of parts 1 and 2")
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
            # A step of long prefix rows takes as long as dozens of short ones.
            counted = 1 if data is long else steps
            rates = timed_in_turns(forms, counted, rounds)
            batches = forms[OURS].batches(20)
        print(f"\n{title}: {threads} threads, median of {rounds} rounds of {counted} steps")
        print(
            tabulate(
                [[f, rates[f], rates[OURS] / rates[f]] for f in FORMS], ["form", "targets/s", "ours is x times it"]
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
    """Of the cost model, for two ranks: what `benchmarks/scaling.py` says on its last line."""
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
    """Targets per second of each form: medians over the rounds, after a step of each that is not counted."""
    for form in forms.values():
        form.targets_per_second(1)
    rates = [[form.targets_per_second(steps) for form in forms.values()] for _ in range(rounds)]
    return dict(zip(forms, np.median(rates, axis=0).tolist(), strict=True))


def random_sequences(num_users: int, num_items: int, lengths_of) -> Sequences:
    """Random items in sequences of the given lengths, the last two of each kept out of training."""
    rng = np.random.default_rng(0)
    lengths = lengths_of(rng, num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(0, num_items, offsets[-1])
    return Sequences(num_items, num_users, offsets, items, lengths - 2, lengths - 1)


if __name__ == "__main__":
    main()
