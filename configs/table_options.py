"""Knobs of the item ID table."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictFloat

from configs.knobs import RESULT, Section, knob


class TableConfig(Section):
    """The item ID table: its sharding over ranks and its optimiser."""

    sharding: Literal["auto", "data_parallel", "row_wise"] = knob(
        "auto",
        RESULT,
        "how ranks hold the item table; data_parallel: each rank has all rows, row_wise: each rank has a share of the "
        "rows, auto: by replicate_below_gib",
    )
    replicate_below_gib: StrictFloat = knob(
        1.0,
        RESULT,
        "largest size in GiB, of the weights and two Adam moments, at which sharding=auto gives every rank the whole "
        "table",
        ge=0,
    )
    optimizer: Literal["auto", "adam", "rowwise_adagrad", "adagrad", "sgd"] = knob(
        "auto", RESULT, "optimiser of the item table; auto: rowwise_adagrad for a row_wise table on CPU, else adam"
    )
    learning_rate: StrictFloat | None = knob(
        None, RESULT, "learning rate of the item table; null: training.learning_rate", gt=0
    )
