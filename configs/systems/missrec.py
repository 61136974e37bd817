"""MISSRec's knobs, with its authors' defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt, model_validator

from configs.knobs import RESULT, Section, knob


class MISSRecConfig(Section):
    """What MISSRec is trained for, the features that it reads, its interests, its scores, and its pre-training.

    `model.num_layers` is the number of layers of encoder and decoder together.
    """

    objective: Literal["next_item", "contrastive"] = knob(
        "next_item",
        RESULT,
        "what is trained; next_item: the next item among all items, contrastive: the next item among the targets of a "
        "batch, and the agreement of an input with a changed copy of it (the paper's pre-training)",
    )
    features: tuple[str, ...] | None = knob(
        None, RESULT, "names of the item features that are read; null: every feature of the dataset"
    )
    use_ids: StrictBool = knob(
        True,
        RESULT,
        "whether item IDs add their rows to the input and a channel to the score; false: no item table at all, so that "
        "items without an interaction are ranked by their features. Contrastive training needs false",
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
    sequence_weight: StrictFloat = knob(
        1e-3, RESULT, "lambda: weight of the contrastive loss between an input and its changed copy", ge=0
    )
    item_dropout: StrictFloat = knob(
        0.2, RESULT, "share of the items of an input that its changed copy lacks, or has with words dropped", ge=0, lt=1
    )
    word_drop_share: StrictFloat = knob(
        0.1,
        RESULT,
        "share of the batches in which the changed copy keeps all items, and some of them have words dropped; in the "
        "others, the copy lacks items",
        ge=0,
        le=1,
    )
    words_of: str = knob("text", RESULT, "name of the feature whose texts have words dropped")
    word_drop_modality: str | None = knob(
        None,
        RESULT,
        "name of the item feature with vectors of texts from which words were dropped; null: numbers of the vector of "
        "words_of are dropped instead, at the rate word_dropout",
    )
    word_dropout: StrictFloat = knob(
        0.15,
        RESULT,
        "dropout rate of a vector's numbers that stands for dropped words, without word_drop_modality",
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _contrastive_training_has_no_ids(self) -> MISSRecConfig:
        if self.objective == "contrastive" and self.use_ids:
            raise ValueError(
                "model.missrec.use_ids=true, but objective=contrastive trains the adaptors and the Transformer without "
                "item IDs, so that they can serve another dataset; set use_ids to false"
            )
        return self
