"""What a build says of itself where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from configs.schema import GraphConfig
from graph_builder import progress
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.progress import StageReport, reporting
from tests.graph_builder.small_dataset import make_dataset


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_the_stage_how_far_it_is_the_rate_and_the_time_left() -> None:
    clock = Clock()
    report = StageReport(clock)
    report.begin("neighbors-text", 40)
    clock.now += 45
    assert report.line() == "graph: neighbors-text, 0 of 40 blocks in 45 s"
    for _ in range(10):
        report.advance()
    clock.now += 75
    assert report.line() == "graph: neighbors-text, 10 of 40 blocks in 2 min, 5 blocks a minute, about 6 min left"
    report.begin("checksum")
    clock.now += 7200
    assert report.line() == "graph: checksum, for 2.0 h"
    report.begin("k-means-text", 5000, is_bound=True)
    report.advance()
    clock.now += 1
    assert report.line() == (
        "graph: k-means-text, 1 of at most 5,000 blocks in 1 s, 60 blocks a minute, at most 83 min left"
    )


def test_a_line_is_said_each_half_minute_while_one_block_takes_long() -> None:
    clock, waited, said = Clock(), [], []
    report = StageReport(clock)
    report.begin("pairs", 3)

    def wait(seconds: float) -> bool:
        clock.now += seconds
        waited.append(seconds)
        return len(waited) > 3

    with reporting(report, is_terminal=False, say=said.append, wait=wait):
        pass  # leaving waits for the thread, which `wait` ends
    assert waited == [30.0] * 4
    assert said == [f"graph: pairs, 0 of 3 blocks in {seconds} s" for seconds in (30, 60, 90)]


def test_nothing_is_said_on_a_terminal_which_has_bars() -> None:
    said: list[str] = []
    with reporting(is_terminal=True, say=said.append, wait=lambda _: bool(said)):
        progress.begin("pairs", 3)
    assert not said


class ListeningExecutor(SerialExecutor):
    """Notes what the line would be after each block."""

    def __init__(self, report: StageReport) -> None:
        super().__init__()
        self.report, self.lines = report, list[str]()

    def run_blocks(
        self,
        function: Callable[[Any], Any],
        blocks: Sequence[Any],
        *,
        label: str | None = None,
        on_gpu: bool = False,
    ) -> Iterator[Any]:
        def noted(block: Any) -> Any:
            self.lines.append(self.report.line())
            return function(block)

        yield from super().run_blocks(noted, blocks, label=label, on_gpu=on_gpu)


def test_every_stage_of_a_build_has_a_line(tmp_path: Path, monkeypatch: Any) -> None:
    clock = Clock()
    report = StageReport(clock)
    executor = ListeningExecutor(report)
    monkeypatch.setattr(progress, "StageReport", lambda: report)
    options = GraphConfig(num_centers=3, block_rows=7, rows_per_task=9)
    build_graph(make_dataset(tmp_path / "dataset"), tmp_path / "graph", options, 0, executor, pairs_per_task=50)
    stages = {line.split(",")[0].removeprefix("graph: ") for line in executor.lines}
    for modality in ("image", "text"):
        expected = {
            f"{stage}-{modality}" for stage in ("inject", "k-means", "clusters", "neighbors", "merge", "finish")
        }
        assert expected | {f"reading {modality}"} <= stages
    assert {"pairs", "cooccurrence"} <= stages
    assert not any(line.startswith("graph: beginning") for line in executor.lines)
    assert any("1 of " in line for line in executor.lines)
    assert report.line().startswith("graph: checksum")
