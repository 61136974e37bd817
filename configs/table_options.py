"""Knobs of the item ID table."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictFloat

from configs.knobs import RESULT, Section, knob


class TableConfig(Section):
    """The item ID table: where its rows live and what updates them."""

    sharding: Literal["auto", "data_parallel", "row_wise"] = knob(
        "auto", RESULT, "replicate the table, or split its rows over ranks; auto: by replicate_below_gib"
    )
    replicate_below_gib: StrictFloat = knob(
        1.0, RESULT, "auto: replicate tables up to this size (weights + Adam)", ge=0
    )
    optimizer: Literal["auto", "adam", "rowwise_adagrad", "adagrad", "sgd"] = knob(
        "auto", RESULT, "auto: Adam where possible, row-wise Adagrad for row_wise tables on CPU"
    )
    learning_rate: StrictFloat | None = knob(None, RESULT, "null: training.learning_rate", gt=0)
