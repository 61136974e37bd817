"""MMMLP's knobs, with its authors' defaults."""

from __future__ import annotations

from pydantic import StrictInt

from configs.knobs import RESULT, Section, knob


class MMMLPConfig(Section):
    """The streams of MMMLP, and how often their mixers are applied.

    `model.num_layers` is the number of passes of the ID stream.
    """

    features: tuple[str, ...] | None = knob(
        None,
        RESULT,
        "names of the item features that get a stream each; null: every feature of the dataset; []: the ID stream "
        "alone",
    )
    feature_passes: StrictInt = knob(
        4,
        RESULT,
        "number of times that a feature's mixers are applied, one pass after the other with the same weights, as the "
        "paper says; 1: what the authors' released code computes, whose four passes all read the first pass's input",
        ge=1,
    )
    expansion: StrictInt = knob(4, RESULT, "inner width of a mixer divided by its outer width", ge=1)
