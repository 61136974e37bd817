"""UniSRec's knobs, with its authors' defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool, StrictFloat, StrictInt, model_validator

from configs.knobs import RESULT, Section, knob


class UniSRecConfig(Section):
    """What UniSRec is trained for, the feature that it reads, its adaptor, and its cosine."""

    objective: Literal["next_item", "contrastive"] = knob(
        "next_item",
        RESULT,
        "what is trained; next_item: the next item among all items, contrastive: the next item among the targets of a "
        "batch, and the agreement of an input with a changed copy of it (the paper's pre-training)",
    )
    modality: str = knob("text", RESULT, "name of the item feature that the adaptor reads")
    use_ids: StrictBool = knob(
        True,
        RESULT,
        "whether an item's ID row is added to its adapted feature (the paper's transductive setting); false: no item "
        "table at all (inductive), so that items without an interaction are ranked by their feature. Contrastive "
        "training needs false",
    )
    num_experts: StrictInt = knob(8, RESULT, "number of experts of the adaptor, which a gate mixes", ge=1)
    adaptor_dropout: StrictFloat = knob(0.2, RESULT, "dropout rate of the features that an expert reads", ge=0, lt=1)
    gate_noise: StrictBool = knob(
        True, RESULT, "whether training adds normal noise of a learned scale to the gate's logits"
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
    word_drop_modality: str | None = knob(
        None,
        RESULT,
        "name of the item feature with vectors of texts from which words were dropped; null: numbers of the vector "
        "itself are dropped instead, at the rate word_dropout",
    )
    word_dropout: StrictFloat = knob(
        0.15,
        RESULT,
        "dropout rate of a vector's numbers that stands for dropped words, without word_drop_modality",
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _contrastive_training_has_no_ids(self) -> UniSRecConfig:
        if self.objective == "contrastive" and self.use_ids:
            raise ValueError(
                "model.unisrec.use_ids=true, but objective=contrastive trains the adaptor and the Transformer without "
                "item IDs, so that they can serve another dataset; set use_ids to false"
            )
        return self
