"""MDSRec's knobs: what they are, what they ask of the other sections, and the paper's ablations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from configs.graph_options import GraphConfig
from configs.knobs import RESULT, Section, knob
from configs.training_options import TrainingConfig

# The paper's study: without distance weighting, co-occurrence enhancement, modal relation graphs, or
# interest-centralised attention.
Ablation = Literal["none", "DIS", "CRE", "MRGC", "ICA"]


class MDSRecConfig(Section):
    """MDSRec's own choices; see docs/method.md for the evidence behind each default."""

    modalities: tuple[str, ...] | None = knob(
        None, RESULT, "null: every modality of the graph; []: none, the ID channel alone"
    )
    mu_id: StrictFloat = knob(16.0, RESULT, "weight of O E_id in the injected ID rows (Eq. 3)", ge=0)
    max_cooccurrences: StrictInt | None = knob(
        None,
        RESULT,
        "strongest entries of a row of O used, in training and ranking alike, without rescaling the row; "
        "null: all that the graph keeps",
        ge=1,
    )
    rho: dict[str, Annotated[StrictFloat, Field(ge=0)]] = knob(
        {"image": 0.1, "text": 0.9},
        RESULT,
        "weight of each modality's channel; a modality not named gets default_rho. In the paper they add up to 1, "
        "which is not enforced",
    )
    default_rho: StrictFloat = knob(0.5, RESULT, "weight of the channel of a modality that rho does not name", ge=0)
    tau: StrictFloat = knob(1.0, RESULT, "temperature of the centre gates (Eq. 19)", gt=0)
    adjacency: Literal["mean", "sum"] = knob("mean", RESULT, "entries of A_m: 1/H or 1")
    item_view: Literal["graph", "features"] = knob(
        "graph", RESULT, "Ehat_m: neighbours' ID rows, or a linear map of the raw features (w/o MRGC)"
    )
    share_modalities: StrictBool = knob(True, RESULT, "one Transformer and position table for ID and all modalities")
    share_centers: StrictBool = knob(True, RESULT, "centre attention uses the towers' own attention weights")
    center_attention: StrictBool = knob(True, RESULT, "interest-centralised attention; False is w/o ICA")
    center_residual: StrictBool = knob(
        True, RESULT, "residual and LayerNorm around centre attention; the paper has neither"
    )
    center_feed_forward: Literal["transformer", "literal"] = knob(
        "transformer",
        RESULT,
        "after centre attention: sigma(g W1 + b1) W2 + b2 as in the towers, or sigma((g W1 + b1) W2 + b2), as the "
        "paper's Eq. 15 is printed; with center_residual=false too, the centres' layer is the paper's",
    )
    center_dropout: StrictFloat = knob(0.0, RESULT, "dropout inside the centre path", ge=0, lt=1)
    gumbel_noise: StrictBool = knob(True, RESULT, "logistic noise in the centre gates while training (Eq. 19)")
    center_samples: StrictInt | None = knob(
        None, RESULT, "S: draws that stand for each centre in a training step; null: exact centres", ge=1
    )
    center_memory_gib: StrictFloat = knob(
        1.0, RESULT, "what a rank keeps of the centre path for the backward; beyond, all of it is recomputed", ge=0
    )
    gumbel_at_evaluation: StrictBool = knob(False, RESULT, "keep the noise at evaluation: metrics become random")

    def problem(self, training: TrainingConfig) -> str | None:
        """What these knobs and those of training contradict each other in, and what to do; None: nothing."""
        negatives = training.negatives
        if self.center_samples is not None and negatives.draws is None:
            return (
                f"model.mdsrec.center_samples={self.center_samples} spares the step the whole catalogue, which a full "
                "softmax brings in anyway; set training.negatives.draws too, or leave center_samples unset"
            )
        if self.center_samples is not None and self.item_view == "features":
            return (
                "model.mdsrec.center_samples draws neighbours' ID rows, which item_view=features does not use; "
                "leave it unset"
            )
        if negatives.hard_share and self.modalities == ():
            return (
                f"training.negatives.hard_share={negatives.hard_share} draws neighbours by modality, and "
                "model.mdsrec.modalities=[] leaves none; set it to 0, or name modalities"
            )
        return None

    def ablated(self, ablation: Ablation, graph: GraphConfig) -> tuple[MDSRecConfig, GraphConfig]:
        """These knobs and the graph's, with what an ablation of the paper's study leaves out switched off."""
        own: dict[str, object] = {}
        built: dict[str, object] = {}
        if ablation == "DIS":
            built["distance_weighting"] = False
        elif ablation == "CRE":
            built["mu"] = 0.0
            own["mu_id"] = 0.0
        elif ablation == "MRGC":
            own["item_view"] = "features"
        elif ablation == "ICA":
            own["center_attention"] = False
        return self.model_copy(update=own), graph.model_copy(update=built)
