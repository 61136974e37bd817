"""BERT4Rec's knobs, with RecBole's defaults except for `position_zero`."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat

from configs.knobs import RESULT, Section, knob


class BERT4RecConfig(Section):
    """What is masked in training, and the bias of the scores."""

    rows: Literal["prefixes", "windows"] = knob(
        "prefixes",
        RESULT,
        "the rows in which training.unit=masks masks items; prefixes: for each item but a sequence's first, this item "
        "and at most max_length items before it, windows: stretches of max_length + 1 items that overlap by "
        "training.window_overlap, so that an epoch has fewer rows and long sequences cost less",
    )
    mask_ratio: StrictFloat = knob(
        0.2, RESULT, "probability that an item of a row is masked; a row always has at least one mask", ge=0, lt=1
    )
    last_share: StrictFloat = knob(
        0.5, RESULT, "share of the rows in which only the last item is masked, as in a ranking", ge=0, le=1
    )
    position_zero: Literal["oldest", "latest"] = knob(
        "latest",
        RESULT,
        "end of a row at which positions begin; oldest: its oldest item, as in RecBole, latest: its last item, so that "
        "in a ranking the mask has position 0, the item before it 1, and so on, for inputs of any length",
    )
    output_bias: StrictBool = knob(
        True,
        RESULT,
        "whether each item has a learned number that is added to its scores. Every rank keeps these numbers of all "
        "items with their gradients and moments: 16 bytes per item with Adam",
    )
