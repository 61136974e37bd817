"""Knobs of training: steps, negatives, optimiser, length, checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt, model_validator

from configs.knobs import LENGTH, RESULT, RUNNING, Section, knob


class NegativesConfig(Section):
    """Candidates of a sampled softmax, the same on all ranks; each is weighted by how often it should come up."""

    draws: StrictInt | None = knob(
        None, RESULT, "items drawn a step to stand for the catalogue; null: full softmax over all items", ge=0
    )
    in_batch: StrictBool = knob(True, RESULT, "the targets of the whole global batch are candidates too")
    hard_share: StrictFloat = knob(
        0.0, RESULT, "of the draws: neighbours, in the item graph, of the global batch's targets", ge=0, lt=1
    )
    popularity_share: StrictFloat = knob(
        0.5, RESULT, "of the draws that are not hard: by popularity; the rest are uniform", ge=0, le=1
    )
    popularity_power: StrictFloat = knob(0.75, RESULT, "draws by popularity go by counts to this power", ge=0, le=1)

    @model_validator(mode="after")
    def _candidates_come_from_somewhere(self) -> NegativesConfig:
        if self.draws == 0 and not self.in_batch:
            raise ValueError(
                "training.negatives.draws=0 and in_batch=false leave no candidates; draw some, set in_batch=true, or "
                "leave draws unset for a full softmax"
            )
        return self


class TrainingConfig(Section):
    """The life of a run."""

    negatives: NegativesConfig = NegativesConfig()
    batch_size: StrictInt = knob(512, RESULT, "targets of a step over all ranks (with windows, on average)", ge=1)
    unit: Literal["windows", "prefixes"] = knob(
        "windows", RESULT, "train all targets of a window of a sequence at once, or one prefix row per target"
    )
    window_overlap: StrictFloat = knob(
        0.5, RESULT, "of max_length: what the first target of a later window still sees of the one before", ge=0, lt=1
    )
    learning_rate: StrictFloat = knob(
        1e-3, RESULT, "of everything but an item table with a learning rate of its own", gt=0
    )
    repeat_learning_rate: StrictFloat = knob(
        0.05, RESULT, "of the gains of model.learn_repeats: scores differ by units, weights by hundredths", gt=0
    )
    weight_decay: StrictFloat = knob(0.0, RESULT, "L2 penalty of the dense optimiser", ge=0)
    optimizer: Literal["adam", "adagrad", "sgd"] = knob("adam", RESULT, "of everything but a sharded table")
    max_epochs: StrictInt = knob(100, LENGTH, "epochs after which training ends", ge=0)
    max_steps: StrictInt | None = knob(None, LENGTH, "stop after this many steps, whatever the epoch", ge=1)
    patience: StrictInt = knob(10, LENGTH, "epochs without a better validation metric before stopping", ge=1)
    metric: str = knob("ndcg@10", RESULT, "validation metric that chooses the best checkpoint")
    precision: Literal["float32", "bfloat16"] = knob(
        "float32", RESULT, "of products in towers and centres (autocast); weights, views and losses stay float32"
    )
    gradient_clip: StrictFloat | None = knob(None, RESULT, "norm of the dense gradients; null: no clipping", gt=0)
    loader_workers: StrictInt = knob(0, RUNNING, "processes per rank that prepare batches", ge=0)
    checkpoint_minutes: StrictFloat | None = knob(
        10.0, RUNNING, "minutes between checkpoints within an epoch; null: only one after each epoch", gt=0
    )
    checkpoint_steps: StrictInt | None = knob(None, RUNNING, "checkpoints after each so many steps too", ge=1)
    keep_checkpoints: StrictInt = knob(2, RUNNING, "latest checkpoints kept beside the best", ge=1)
    max_skipped_steps: StrictInt = knob(
        10, RUNNING, "steps in a row that may be skipped, their loss or gradient not finite, before it ends", ge=0
    )
    stall_seconds: StrictFloat = knob(
        900.0, RUNNING, "a rank that has not moved for so long says which one it waits for, and ends", gt=0
    )
