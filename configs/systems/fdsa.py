"""FDSA's knobs."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat

from configs.knobs import RESULT, Section, knob


class FDSAConfig(Section):
    """How FDSA turns item features into the input of its second tower. The defaults are RecBole's form."""

    features: tuple[str, ...] | None = knob(
        None, RESULT, "names of the item features that are read; null: every feature of the dataset"
    )
    feature_map: Literal["linear", "relu"] = knob(
        "linear",
        RESULT,
        "how a feature is brought to width dim; linear: a linear map, relu: the same, with negative values set to 0. "
        "relu with one text feature is the form in UniSRec's comparison",
    )
    feature_dropout: StrictFloat = knob(
        0.0, RESULT, "dropout rate of the raw features; 0.2 in UniSRec's comparison", ge=0, lt=1
    )
    share_norms: StrictBool = knob(
        False,
        RESULT,
        "whether one LayerNorm serves the ID tower's input, the feature tower's input and the output, as in the "
        "published code; false: three LayerNorms",
    )
