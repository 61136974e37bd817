"""Knobs of ranking and its metrics; every item of the catalogue is ranked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator

from configs.knobs import RUNNING, SCORE, Section, knob

# Names of the metrics at a cut-off K, in the order of the tables; `evaluation/metrics.py` computes them.
METRICS = ("recall", "ndcg")


class EvaluationConfig(Section):
    """How all items are ranked for each user, and which metrics are computed."""

    ks: tuple[Annotated[StrictInt, Field(ge=1)], ...] = knob(
        (10, 20, 50), SCORE, "cut-offs K of the metrics, such as Recall@K and NDCG@K", min_length=1
    )
    user_batch: StrictInt = knob(256, RUNNING, "number of users that are scored in one matrix product", ge=1)
    item_block: StrictInt = knob(16384, RUNNING, "number of items that are scored in one matrix product", ge=1)
    held_items_gib: Annotated[StrictFloat, Field(ge=0)] | Literal["auto"] = knob(
        "auto",
        RUNNING,
        "GiB of item vectors that a rank may keep in memory while ranking; if its share is larger, every pass over "
        "the items computes the vectors again; auto: 1 on CPUs, and on a GPU a quarter of its memory",
    )
    users_per_pass: StrictInt = knob(
        65536,
        RUNNING,
        "number of users whose vectors every rank holds at once; more users are ranked in groups of this size, and "
        "each group needs its own pass over the items",
        ge=1,
    )
    mask_history: StrictBool = knob(
        False, SCORE, "whether the items that a user had before the target are removed from the ranking"
    )
    cooccurrence_weight: StrictFloat = knob(
        0.0,
        SCORE,
        "weight of co-occurrence in scores: an item that is not in the user's input gains this weight times the sum "
        "of its co-occurrence (the graph's O) with the input's items",
        ge=0,
    )
    cooccurrence_decay: StrictFloat = knob(
        0.9,
        SCORE,
        "weight of an input item in the sum of evaluation.cooccurrence_weight, divided by the weight of the item after "
        "it; 1: all weigh the same",
        gt=0,
        le=1,
    )
    cooccurrence_cap: StrictInt | None = knob(
        None,
        SCORE,
        "number of entries of an item's row of O that evaluation.cooccurrence_weight uses, strongest first; null: all",
        ge=1,
    )
    ties: Literal["pessimistic", "optimistic", "id"] = knob(
        "pessimistic",
        SCORE,
        "whether items whose score equals the target's rank above it; pessimistic: all, optimistic: none, id: those "
        "with smaller ids",
    )
    bootstrap_samples: StrictInt = knob(
        1000, SCORE, "number of bootstrap resamples behind the 95% intervals; 0: no intervals", ge=0
    )
    save_ranks: StrictBool = knob(
        True,
        RUNNING,
        "whether the rank of every target of valid and test is saved beside the metrics, in a Parquet file of about 25 "
        "bytes a target; comparisons of runs need these files",
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all computed metrics, such as "recall@10"."""
        return tuple(f"{name}@{k}" for name in METRICS for k in self.ks)

    @field_validator("ks")
    @classmethod
    def _cut_offs_differ(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ks)) < len(ks):
            raise ValueError("a cut-off is given twice; name each once")
        return ks
