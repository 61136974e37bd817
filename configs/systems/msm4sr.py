"""MSM4SR's knobs, with its authors' defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt

from configs.knobs import RESULT, Section, knob


class MSM4SRConfig(Section):
    """The features that MSM4SR reads, its adaptors, and what it is trained for."""

    objective: Literal["next_item", "contrastive"] = knob(
        "next_item",
        RESULT,
        "what is trained; next_item: the next item among all items, with item IDs (the paper's fine-tuning), "
        "contrastive: the next item among the targets of a batch and the agreement of the two features, without item "
        "IDs (its pre-training)",
    )
    features: tuple[str, ...] | None = knob(
        ("text", "image"),
        RESULT,
        "names of the one or two item features that get a stream each; null: those of the dataset",
    )
    num_experts: StrictInt = knob(8, RESULT, "number of experts of each adaptor, which a gate mixes", ge=1)
    adaptor_dropout: StrictFloat = knob(0.2, RESULT, "dropout rate inside each expert", ge=0, lt=1)
    mask_missing: StrictBool = knob(
        True,
        RESULT,
        "whether a feature that an item lacks gives a zero vector, whose cosine is 0; false: the adaptor's output for "
        "a feature of zeros, as in the authors' code",
    )
    temperature: StrictFloat = knob(0.07, RESULT, "number by which cosines are divided in a softmax", gt=0)
    item_dropout: StrictFloat = knob(
        0.2,
        RESULT,
        "largest share of an input's items that contrastive training drops; each batch draws its share between 0 and "
        "this, and the first item stays",
        ge=0,
        lt=1,
    )
    mixup: StrictFloat = knob(
        0.5,
        RESULT,
        "largest share of an input's positions at which contrastive training exchanges the two features; each batch "
        "draws its share between 0 and this. Without effect with a single feature",
        ge=0,
        le=1,
    )
    cross_modal_weight: StrictFloat = knob(
        0.01,
        RESULT,
        "lambda: weight of the contrastive loss between the states of the two features; without effect with one",
        ge=0,
    )
    project_states: StrictBool = knob(
        False,
        RESULT,
        "whether contrastive training predicts each feature from the states of both, through a linear map for each "
        "predicted feature",
    )
