"""MISSRec's knobs, with its authors' defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt

from configs.knobs import RESULT, Section, knob


class MISSRecConfig(Section):
    """The features that MISSRec reads, its interests, and its scores.

    `model.num_layers` is the number of layers of encoder and decoder together.
    """

    features: tuple[str, ...] | None = knob(
        None, RESULT, "names of the item features that are read; null: every feature of the dataset"
    )
    use_ids: StrictBool = knob(
        True,
        RESULT,
        "whether item IDs add their rows to the input and a channel to the score; false: no item table at all, so that "
        "items without an interaction are ranked by their features",
    )
    missing_features: Literal["masked", "bias"] = knob(
        "masked",
        RESULT,
        "what an item without a feature has in its place; masked: nothing in the input, in the clustering and in the "
        "score, bias: the bias of the feature's linear map, as in the authors' code",
    )
    interest_ratio: StrictFloat = knob(
        0.5, RESULT, "number of interests (clusters) divided by the number of features of all items", gt=0, le=1
    )
    max_interests: StrictInt = knob(
        16384,
        RESULT,
        "largest number of interests; the time of a clustering grows with their number times the number of items",
        ge=1,
    )
    clustering: Literal["kmeans", "density_peaks"] = knob(
        "kmeans",
        RESULT,
        "how interests are found; kmeans: mini-batch k-means, as the released code, density_peaks: DPC-kNN, as the "
        "paper, whose time grows with the square of the number of features",
    )
    neighbor_ratio: StrictFloat = knob(
        0.2,
        RESULT,
        "density_peaks: number of nearest vectors that decide a vector's density, divided by the number of vectors",
        gt=0,
        le=1,
    )
    clustering_steps: StrictInt = knob(5, RESULT, "kmeans: number of mini-batches of each clustering", ge=1)
    diversity_weight: StrictFloat = knob(
        1e-4,
        RESULT,
        "gamma: weight of the penalty that keeps the mean of a user's encoded interests short, summed over the targets "
        "of a step",
        ge=0,
    )
    temperature: StrictFloat = knob(0.07, RESULT, "number by which cosines are divided in the softmax", gt=0)
