"""Where a training stands: the counters of its progress record, which a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Progress:
    """The progress of a run at a checkpoint: all of its state that is not a tensor.

    Attributes:
        step: number of optimiser steps so far, including skipped steps.
        epoch: number of completed epochs, each with its validation.
        epoch_steps: number of steps so far in the current epoch.
        epoch_targets: number of targets that were trained in these steps.
        epoch_seconds: time that these steps took, summed over attempts.
        epoch_skipped: number of these steps that were skipped because the loss or a gradient was not finite.
        skipped_in_a_row: number of skipped steps since the last step that was not skipped.
        best_metric: best validation metric so far; None before the first validation.
        best_step: the step of that validation.
        stale_epochs: number of validations since then.
        seconds: training time of completed epochs, summed over attempts.
        fingerprints: fingerprints of the dataset and graph that this run trains on, and of a graph that only its
            ranking reads; and the labels of the encoders of the dataset's features, as far as it names them.
        world: number of ranks that wrote the checkpoint.
        files: SHA-256 of each file of the checkpoint; empty before it is saved.
    """

    step: int = 0
    epoch: int = 0
    epoch_steps: int = 0
    epoch_targets: int = 0
    epoch_seconds: float = 0.0
    epoch_skipped: int = 0
    skipped_in_a_row: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    stale_epochs: int = 0
    seconds: float = 0.0
    fingerprints: dict[str, str] = field(default_factory=dict)
    world: int = 1
    files: dict[str, str] = field(default_factory=dict)
