"""UniSRec's knobs, with its authors' defaults."""

from __future__ import annotations

from pydantic import StrictBool, StrictFloat, StrictInt

from configs.knobs import RESULT, Section, knob


class UniSRecConfig(Section):
    """The feature that UniSRec reads, its adaptor, and its cosine."""

    modality: str = knob("text", RESULT, "name of the item feature that the adaptor reads")
    use_ids: StrictBool = knob(
        True,
        RESULT,
        "whether an item's ID row is added to its adapted feature (the paper's transductive setting); false: no item "
        "table at all (inductive), so that items without an interaction are ranked by their feature",
    )
    num_experts: StrictInt = knob(8, RESULT, "number of experts of the adaptor, which a gate mixes", ge=1)
    adaptor_dropout: StrictFloat = knob(0.2, RESULT, "dropout rate of the features that an expert reads", ge=0, lt=1)
    gate_noise: StrictBool = knob(
        True, RESULT, "whether training adds normal noise of a learned scale to the gate's logits"
    )
    temperature: StrictFloat = knob(0.07, RESULT, "number by which cosines are divided in the softmax", gt=0)
