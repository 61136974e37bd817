"""Trials on GPUs through Ray: a process trains one trial, since its CUDA would keep the first trial's GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from configs.schema import ClusterConfig
from experiments.study.ray_trials import RayTrials
from experiments.study.trials import Job


class Watched(dict[str, Any]):
    """A config that writes down which process reads it for which trial, and with which GPU."""

    def __getitem__(self, key: str) -> Any:
        run = Path(super().__getitem__("run"))
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        (run.parents[1] / "seen" / f"{os.getpid()}-{gpu}-{run.name}").touch()
        return super().__getitem__(key)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_a_process_trains_one_trial_on_one_gpu(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "stop").touch()  # so that each trial ends as soon as it has looked for this file
    trials = RayTrials(ClusterConfig(num_workers=1), 1, None)
    assert trials.use_gpu
    names = [f"trial{number}" for number in range(3)]
    jobs = [Job(trial=name, config=Watched(run=f"{tmp_path}/trials/{name}"), threads=1, use_gpu=True) for name in names]
    assert {(outcome.trial, outcome.state) for outcome in trials.run_trials(jobs)} == {(n, "stopped") for n in names}
    seen = [path.name.split("-") for path in (tmp_path / "seen").iterdir()]
    there = [(process, gpu, trial) for process, gpu, trial in seen if process != str(os.getpid())]
    assert sorted(trial for _, _, trial in there) == names
    assert len({process for process, _, _ in there}) == len(names)
    assert {gpu for _, gpu, _ in there} == {"0", "1"}
