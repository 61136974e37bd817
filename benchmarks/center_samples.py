"""Measure the error of sampled interest centres on a trained run: python benchmarks/center_samples.py --run RUN

For each modality and number of draws S the program prints two relative errors. One is the distance between sampled
and exact centres, divided by the length of the exact centres. The other is the same for the users' modality
vectors. Both are root mean squares over repeats. The error of an unbiased mean falls as 1 / sqrt(S). The last line
is one JSON object.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from data.sampling.batches import assemble
from data.sampling.spans import spans_before
from data.sequences import Targets
from distributed.inference.restore import restore, run_config
from distributed.world import world_of_one
from model.blocks.item_views import item_rows, sparse_product


@click.command()
@click.option("--run", required=True, type=click.Path(exists=True, file_okay=False), help="a trained MDSRec run")
@click.option("--users", default=512, show_default=True, help="test users whose vectors are compared")
@click.option("--repeats", default=20, show_default=True, help="repeats for each number of draws")
def main(run: str, users: int, repeats: int) -> None:
    """Print a table and, on the last line, JSON."""
    config = run_config(run)
    with world_of_one() as world:
        inputs, sharded, _ = restore(config, "best", world)
        torch.set_grad_enabled(False)
        system = sharded.system.eval()
        needs = system.recommender.needs
        rows = system.table(system.table.feature(torch.arange(inputs.dataset.num_items)))
        targets = Targets(inputs.dataset, "test")
        of_users = targets.locate(np.arange(min(users, len(targets)), dtype=np.int64))
        batch = assemble(inputs.dataset, spans_before(*of_users, config.model.max_length), users, lambda ids: ids)
        exact_plan = inputs.planner(replace(needs, center_samples=None)).catalogue()
        exact = item_rows(rows, exact_plan)
        exact.centers = {m: sparse_product(exact.center_rows[m], exact.views[m]) for m in needs.centers}
        exact_users = system.recommender.user_vectors(exact, batch)[1:]
        lines = []
        for samples in (4, 16, 64, 256):
            planner = inputs.planner(replace(needs, center_samples=samples))
            errors: dict[str, list[tuple[float, float]]] = {m: [] for m in needs.centers}
            for number in range(repeats):
                plan = planner.plan(np.arange(inputs.dataset.num_items), np.random.default_rng(number))
                items = item_rows(rows, plan)
                vectors = system.recommender.user_vectors(items, batch)[1:]
                for m, vector, expected in zip(needs.centers, vectors, exact_users, strict=True):
                    errors[m].append((off(items.centers[m], exact.centers[m]), off(vector, expected)))
            for m, found in errors.items():
                center, user = np.sqrt(np.square(found).mean(0))
                lines.append((samples, m, float(center), float(user)))
    print(tabulate(lines, ["draws a centre", "modality", "error of centres", "error of users"], floatfmt=".4f"))
    print(json.dumps({f"{m}_{samples}": round(user, 5) for samples, m, _, user in lines}))


def off(found: Tensor, exact: Tensor) -> float:
    """Return the root mean square of the rows' distances, divided by that of the exact rows' lengths."""
    return float((found - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
