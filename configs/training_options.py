"""Knobs of training: steps, negatives, optimiser, length, checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from configs.knobs import LENGTH, PLACE, RESULT, RUNNING, Section, knob

# What a training example is.
Unit = Literal["windows", "prefixes", "masks"]


class NegativesConfig(Section):
    """The candidates of a sampled softmax, the same on all ranks.

    Each weighs the number of times it was drawn, divided by the expected number.
    """

    draws: StrictInt | None = knob(
        None,
        RESULT,
        "number of items drawn in each step to stand for the whole catalogue; null: full softmax over all items",
        ge=0,
    )
    in_batch: StrictBool = knob(
        True, RESULT, "whether the targets of the step's whole batch, over all ranks, are candidates beside the draws"
    )
    hard_share: StrictFloat = knob(
        0.0,
        RESULT,
        "share of the draws that are hard negatives: neighbours, in the item graph, of the global batch's targets",
        ge=0,
        lt=1,
    )
    popularity_share: StrictFloat = knob(
        0.5,
        RESULT,
        "share of the draws other than hard negatives that are drawn by popularity, the number of times an item is a "
        "training target; the rest are drawn uniformly",
        ge=0,
        le=1,
    )
    popularity_power: StrictFloat = knob(
        0.75,
        RESULT,
        "draws by popularity are proportional to the popularity raised to this power; 0: all targets alike",
        ge=0,
        le=1,
    )

    @model_validator(mode="after")
    def _candidates_come_from_somewhere(self) -> NegativesConfig:
        if self.draws == 0 and not self.in_batch:
            raise ValueError(
                "training.negatives.draws=0 and in_batch=false leave no candidates; draw some, set in_batch=true, or "
                "leave draws unset for a full softmax"
            )
        return self


class TrainingConfig(Section):
    """Steps, negatives, optimisers, the length of training, and checkpoints."""

    loss: Literal["cross_entropy", "gbce"] = knob(
        "cross_entropy",
        RESULT,
        "loss of each channel; cross_entropy: a softmax over items, gbce: generalised binary cross entropy of gSASRec",
    )
    gbce_calibration: StrictFloat = knob(
        0.75,
        RESULT,
        "t of loss=gbce; 0: plain binary cross entropy, which overestimates the positive where negatives are sampled, "
        "1: fully corrected. Without draws it has no effect",
        ge=0,
        le=1,
    )
    gbce_prior_offset: StrictBool = knob(
        False,
        RESULT,
        "whether loss=gbce adds the logarithm of the odds of a positive to all scores, so that training does not begin "
        "by lowering all scores alike; rankings do not depend on it. false: as the paper",
    )
    negatives: NegativesConfig = NegativesConfig()
    batch_size: StrictInt = knob(
        512, RESULT, "number of targets in a step, over all ranks; with unit=windows or masks, on average", ge=1
    )
    domains: Literal["mixed", "apart"] = knob(
        "mixed",
        RESULT,
        "of which datasets the targets of a step are, if there are several; mixed: of all, as chance has it, apart: of "
        "one, and steps of all datasets follow each other as shuffled by the seed",
    )
    unit: Literal["auto"] | Unit = knob(
        "auto",
        RESULT,
        "what a training example is; windows: a stretch of a sequence with a target after each item, "
        "prefixes: the items before one target, masks: a stretch of a sequence in which masks replace some items, "
        "which are the targets, auto: windows for a causal system, masks for a system that has a mask, prefixes for "
        "others and for contrastive pre-training. A run saves what auto stands for",
    )
    user_share: StrictFloat = knob(
        1.0,
        RESULT,
        "share of the users whose sequences are trained (few-shot); seed chooses them, so that a smaller share has a "
        "subset of the users of a larger one. All users are validated, tested and recommended for. A graph that is "
        "read must have been built with the same user_share and seed",
        gt=0,
        le=1,
    )
    window_overlap: StrictFloat = knob(
        0.5,
        RESULT,
        "share of max_length by which a window overlaps the one before it, so that its first target sees earlier items",
        ge=0,
        lt=1,
    )
    learning_rate: StrictFloat = knob(
        1e-3,
        RESULT,
        "learning rate of all weights, except for those of table.learning_rate and training.repeat_learning_rate",
        gt=0,
    )
    repeat_learning_rate: StrictFloat = knob(
        0.05,
        RESULT,
        "learning rate of the numbers that model.learn_repeats learns; the default is large, because they are added to "
        "scores, which are larger than weights",
        gt=0,
    )
    weight_decay: StrictFloat = knob(
        0.0, RESULT, "L2 penalty on all weights but the item table and what model.learn_repeats learns", ge=0
    )
    optimizer: Literal["adam", "adagrad", "sgd"] = knob(
        "adam", RESULT, "optimiser of all weights but the item table's, which is table.optimizer"
    )
    max_epochs: StrictInt = knob(100, LENGTH, "number of epochs after which training stops", ge=0)
    max_steps: StrictInt | None = knob(
        None, LENGTH, "number of steps after which training stops, even within an epoch; null: no limit", ge=1
    )
    patience: StrictInt = knob(
        10, LENGTH, "number of epochs in a row without a better validation metric after which training stops", ge=1
    )
    start_from: str | None = knob(
        None,
        PLACE,
        "folder or URI of another run; training starts from the weights of its best checkpoint whose names this model "
        "has, without the states of its optimisers; null: from fresh weights",
    )
    rename: dict[str, str] = knob(
        {},
        RESULT,
        "beginnings of names of this model's weights, each with the beginning that the name has in start_from, such as "
        '{"recommender.encoders.0": "recommender.encoder"}: those weights are loaded under the other name',
    )
    leave_out: tuple[str, ...] = knob(
        (),
        RESULT,
        'patterns of names of weights that are not loaded from start_from, such as "table.*" (* stands for any '
        "characters). RUN/start.txt lists the names",
    )
    freeze: tuple[str, ...] = knob(
        (),
        RESULT,
        'patterns of names of weights that are not trained, such as "recommender.encoder.*", whether they were loaded '
        "or not",
    )
    metric: str = knob("ndcg@10", RESULT, "validation metric that chooses the best checkpoint, such as recall@20")
    metric_among: Literal["all", "domain"] = knob(
        "all",
        RESULT,
        "items among which training.metric ranks a target; all: all items, domain: the items of the target's own "
        "dataset. With one dataset these are the same",
    )
    precision: Literal["float32", "bfloat16"] = knob(
        "float32",
        RESULT,
        "dtype of matrix products in towers and centre attention (autocast); weights, views and losses stay float32",
    )
    softmax_kernel: Literal["auto", "off"] = knob(
        "auto",
        RUNNING,
        "kernel for the softmax of loss=cross_entropy that keeps logits out of memory; auto: on GPUs where it works, "
        "if torch may multiply in TF32, off: torch's operators, as on CPUs",
    )
    gradient_clip: StrictFloat | None = knob(
        None,
        RESULT,
        "largest norm of the gradient of all weights but a row_wise table's; a larger gradient is scaled down to it; "
        "null: no clipping",
        gt=0,
    )
    loader_workers: Annotated[StrictInt, Field(ge=0)] | Literal["auto"] = knob(
        "auto",
        RUNNING,
        "number of processes per rank that prepare batches; 0: the rank's own process does; auto: 0 on CPUs, and on "
        "GPUs one for each core of a rank, at most 4",
    )
    checkpoint_minutes: StrictFloat | None = knob(
        10.0,
        RUNNING,
        "minutes between checkpoints within an epoch; null: none by time. Each epoch also ends with a checkpoint",
        gt=0,
    )
    checkpoint_steps: StrictInt | None = knob(
        None, RUNNING, "number of steps between checkpoints within an epoch; null: none by steps", ge=1
    )
    keep_checkpoints: StrictInt = knob(
        2, RUNNING, "number of latest checkpoints that are kept, in addition to the best", ge=1
    )
    max_skipped_steps: StrictInt = knob(
        10,
        RUNNING,
        "number of steps in a row that may be skipped because their loss or gradient is not finite; one more ends the "
        "training with an error",
        ge=0,
    )
    stall_seconds: StrictFloat = knob(
        900.0,
        RUNNING,
        "seconds without progress after which a rank reports which rank it waits for, and aborts",
        gt=0,
    )

    @model_validator(mode="after")
    def _gbce_has_a_sampling_rate(self) -> TrainingConfig:
        if self.loss == "gbce" and self.negatives.draws == 0:
            raise ValueError(
                "training.loss=gbce, but training.negatives.draws=0: the loss depends on the share of items that is "
                "drawn; draw some, or leave draws unset for all items"
            )
        return self

    @model_validator(mode="after")
    def _leaves_out_of_another_run(self) -> TrainingConfig:
        if self.leave_out and self.start_from is None:
            raise ValueError(
                f"training.leave_out={list(self.leave_out)} says what is not loaded from another run, but "
                "training.start_from is not set; set it, or remove leave_out"
            )
        if self.rename and self.start_from is None:
            raise ValueError(
                f"training.rename={self.rename} says under which names weights of another run are loaded, but "
                "training.start_from is not set; set it, or remove rename"
            )
        return self

    def with_unit_chosen(self, system: str, units: tuple[Unit, ...]) -> TrainingConfig:
        """Return these knobs with `unit=auto` replaced by the first unit of a system.

        Raises:
            ValueError: the system cannot be trained on this unit.
        """
        if self.unit == "auto":
            return self.model_copy(update={"unit": units[0]})
        if self.unit in units:
            return self
        reason = f"model.name={system} has no mask that could take the place of an item"
        if self.unit == "windows":
            reason = f"each state of model.name={system} sees the whole window, and so the item that it should predict"
        possible = ", ".join(["auto", *units[:-1]]) + f" or {units[-1]}"
        raise ValueError(f"training.unit={self.unit}, but {reason}; set unit to {possible}")
