"""Run jobs/train.py with a trace of every step: python benchmarks/traced_training.py [options of train.py]

Steps are slowed down, so that a fault can strike between them. In each attempt (one process group), each rank
writes the file traces/BEGIN-rRANK-PID.jsonl beside RUN, where BEGIN is the attempt's beginning in nanoseconds. Each
line is a step: its number, its epoch, and the trained windows as [user, start].
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Workers need this to find this module, however the cluster was started.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

_SECONDS_A_STEP = 0.03


def traced(job: dict[str, Any]) -> None:
    """Run the job's own function in a worker process, with a training loop that writes traces."""
    from distributed.ray import launch as ray_train
    from distributed.stop_agreement import Request
    from distributed.training.training_loop import TrainingLoop
    from distributed.world import World

    def trace_steps(loop: TrainingLoop) -> None:
        prepared(loop)
        folder, agreed = Path(str(loop.config.run)).parent / "traces", loop.interruption.agreed
        world: World = loop.world
        began = world.gather(time.time_ns())[0]
        file = (folder / f"{began}-r{world.rank}-{os.getpid()}.jsonl").open("a", buffering=1)

        def agreed_and_traced(step: int, writing: bool = False) -> Request:
            spans, own = loop.batches.spans(loop.progress.epoch_steps - 1)
            windows = [[int(user), int(start)] for user, start in zip(spans[own].users, spans[own].starts, strict=True)]
            file.write(json.dumps({"step": step, "epoch": loop.progress.epoch, "windows": windows}) + "\n")
            time.sleep(_SECONDS_A_STEP)
            return agreed(step, writing)

        loop.interruption.agreed = agreed_and_traced  # type: ignore[method-assign]

    prepared = TrainingLoop.__post_init__
    TrainingLoop.__post_init__ = trace_steps  # type: ignore[method-assign]
    try:
        ray_train.on_worker(job)
    finally:
        TrainingLoop.__post_init__ = prepared  # type: ignore[method-assign]


def main() -> None:
    """Run jobs/train.py with traces."""
    from benchmarks import traced_training
    from distributed.ray import launch as ray_train
    from jobs import train

    ray_train.worker_function = traced_training.traced
    train.main()


if __name__ == "__main__":
    main()
