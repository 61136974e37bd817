"""Knobs of ranking the whole catalogue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator

from configs.knobs import RUNNING, SCORE, Section, knob

# Names of the metrics at a cut-off K, in the order of the tables; `evaluation/metrics.py` computes them.
METRICS = ("recall", "ndcg")


class EvaluationConfig(Section):
    """Full-catalogue ranking."""

    ks: tuple[Annotated[StrictInt, Field(ge=1)], ...] = knob(
        (10, 20, 50), SCORE, "cut-offs of Recall@K and NDCG@K", min_length=1
    )
    user_batch: StrictInt = knob(256, RUNNING, "users scored at a time", ge=1)
    item_block: StrictInt = knob(16384, RUNNING, "items scored at a time", ge=1)
    held_items_gib: StrictFloat = knob(
        1.0, RUNNING, "item vectors a rank holds while ranking; beyond, every sweep encodes them again", ge=0
    )
    users_per_pass: StrictInt = knob(
        65536, RUNNING, "users whose vectors are on every rank at once; each pass sweeps the items again", ge=1
    )
    mask_history: StrictBool = knob(False, SCORE, "remove a user's history from the ranking")
    cooccurrence_weight: StrictFloat = knob(
        0.0,
        SCORE,
        "add so much times the item graph's O, summed over the user's input, to the score of an item that the "
        "input does not hold",
        ge=0,
    )
    cooccurrence_decay: StrictFloat = knob(
        0.9, SCORE, "what an item of the input counts in that sum against the one after it", gt=0, le=1
    )
    cooccurrence_cap: StrictInt | None = knob(
        None, SCORE, "how many of the strongest entries of an item's row of O count; null: all", ge=1
    )
    ties: Literal["pessimistic", "optimistic", "id"] = knob(
        "pessimistic", SCORE, "tied items rank above the target, below it, or by ascending id"
    )
    bootstrap_samples: StrictInt = knob(1000, SCORE, "resamples of users behind the 95% intervals; 0: none", ge=0)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that is computed, such as "recall@10"."""
        return tuple(f"{name}@{k}" for name in METRICS for k in self.ks)

    @field_validator("ks")
    @classmethod
    def _cut_offs_differ(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ks)) < len(ks):
            raise ValueError("a cut-off is there twice; name each once")
        return ks
