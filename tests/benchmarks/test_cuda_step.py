"""A step on a GPU launches, waits and holds no more than docs/training.md says; counted on a pretended device."""

import re

import pytest
import torch

from benchmarks.cuda_step import Case, predicted_ms
from tests.packages import ROOT
from tests.pretended_device import Counts
from tests.pretended_device.counts import Launch


def stated() -> dict[int, tuple[int, int, float]]:
    """Return the launches, waits and GiB that the table of docs/training.md has in its columns "now", by width."""
    text = (ROOT / "docs/training.md").read_text().split("## A step on a GPU")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if re.match(r"\| \d", line)]
    names = [cell.strip() for cell in re.search(r"^\|(.*launches.*)\|$", text, re.MULTILINE)[1].split("|")]
    columns = [names.index(name) for name in ("launches, now", "waits, now", "peak GiB, now")]
    found = {}
    for row in rows:
        launches, waits, gib = (row[column].replace(",", "") for column in columns)
        found[int(row[0])] = (int(launches), int(waits), float(gib))
    return found


@pytest.mark.long
@pytest.mark.parametrize("dim", [64, 300])
def test_launches_waits_and_memory_stay_below_what_is_stated(dim: int) -> None:
    case = Case.of(dim)
    counts = case.count()
    launches, waits, gib = stated()[dim]
    assert len(case.step.batch.targets) == pytest.approx(4802, rel=0.02)
    assert launches <= 1200
    assert counts.num_launches <= launches
    assert counts.num_waits == waits == 1
    assert counts.peak / 2**30 <= gib + 0.05
    assert not counts.mixed
    backward = sum(launch.backward for launch in counts.launches)
    assert 0 < backward < counts.num_launches


def test_a_step_takes_the_longer_of_launching_and_computing() -> None:
    small = Launch("aten.add.Tensor", False, 100, 0, torch.float32)
    product = Launch("aten.mm.default", False, 100, 67 * 10**9, torch.float32)
    copy = Launch("aten.clone.default", False, 48 * 10**8, 0, torch.float32)
    host, device = predicted_ms(Counts(launches=[small] * 1000), "tf32")
    assert (host, device) == pytest.approx((5.0, 2.0))
    assert predicted_ms(Counts(launches=[product]), "float32") == pytest.approx((0.005, 1 / 0.3))
    assert predicted_ms(Counts(launches=[product]), "tf32")[1] == pytest.approx(67 / 494 / 0.3)
    assert predicted_ms(Counts(launches=[copy]), "tf32")[1] == pytest.approx(1 / 0.7)
