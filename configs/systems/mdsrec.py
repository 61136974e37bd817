"""MDSRec's own knobs, the checks of them against other sections, and the paper's ablations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from configs.graph_options import GraphConfig
from configs.knobs import RESULT, Section, knob
from configs.training_options import TrainingConfig

# What the paper's ablation study leaves out: distance weighting (DIS), co-occurrence enhancement (CRE), modal relation
# graphs (MRGC), or interest-centralised attention (ICA).
Ablation = Literal["none", "DIS", "CRE", "MRGC", "ICA"]


class MDSRecConfig(Section):
    """MDSRec's own settings; docs/method.md has the evidence behind each default."""

    modalities: tuple[str, ...] | None = knob(
        None,
        RESULT,
        "names of the modalities that get a channel each; null: every modality of the graph; []: the ID channel alone",
    )
    mu_id: StrictFloat = knob(16.0, RESULT, "mu_id of Eq. 3: weight of O E_id in the injected ID rows", ge=0)
    max_cooccurrences: StrictInt | None = knob(
        None,
        RESULT,
        "number of entries of each row of O that training and ranking use, the strongest first, without rescaling the "
        "row; null: all that the graph keeps",
        ge=1,
    )
    rho: dict[str, Annotated[StrictFloat, Field(ge=0)]] = knob(
        {"image": 0.1, "text": 0.9},
        RESULT,
        "weight of each modality's channel, by modality; a modality that is not named gets default_rho. The paper's "
        "weights add up to 1; other sums are allowed",
    )
    default_rho: StrictFloat = knob(0.5, RESULT, "weight of the channel of a modality that rho does not name", ge=0)
    tau: StrictFloat = knob(1.0, RESULT, "temperature of the softmax over interest centres (Eq. 19)", gt=0)
    adjacency: Literal["mean", "sum"] = knob(
        "mean", RESULT, "value of the entries of A_m, the matrix of neighbours; mean: 1/H, sum: 1"
    )
    item_view: Literal["graph", "features"] = knob(
        "graph",
        RESULT,
        "how an item's vector in a modality, Ehat_m, is computed; graph: from its neighbours' ID rows, features: by a "
        "linear map of its raw features (the paper's ablation without MRGC)",
    )
    share_modalities: StrictBool = knob(
        True, RESULT, "whether the ID channel and all modalities share one tower; false: a tower each"
    )
    share_centers: StrictBool = knob(
        True, RESULT, "whether centre attention uses the layers of the towers; false: layers of its own"
    )
    center_attention: StrictBool = knob(
        True, RESULT, "whether interest-centralised attention is used; false: the paper's ablation without ICA"
    )
    center_residual: StrictBool = knob(
        True, RESULT, "whether centre attention has residuals and LayerNorms; the paper has neither"
    )
    center_feed_forward: Literal["transformer", "literal"] = knob(
        "transformer",
        RESULT,
        "feed-forward after centre attention; transformer: sigma(g W1 + b1) W2 + b2 as in the towers, "
        "literal: sigma((g W1 + b1) W2 + b2) as Eq. 15 is printed. literal and center_residual=false together give the "
        "paper's layer",
    )
    center_dropout: StrictFloat = knob(0.0, RESULT, "dropout rate of the attention and layers of centres", ge=0, lt=1)
    gumbel_noise: StrictBool = knob(
        True, RESULT, "whether training adds logistic noise to the logits of the softmax over centres (Eq. 19)"
    )
    center_samples: StrictInt | None = knob(
        None,
        RESULT,
        "S: number of draws that estimate each interest centre in a training step; null: exact centres",
        ge=1,
    )
    center_memory_gib: StrictFloat = knob(
        1.0,
        RESULT,
        "GiB of intermediate results of centre attention that a rank may keep for the backward, and on a GPU an eighth "
        "of its memory if that is more; if there are more, none are kept and the backward recomputes them. 0: none are "
        "kept",
        ge=0,
    )
    gumbel_at_evaluation: StrictBool = knob(
        False, RESULT, "whether evaluation adds the noise of gumbel_noise too, which makes metrics random"
    )

    def problem(self, training: TrainingConfig) -> str | None:
        """Return how these knobs contradict those of training, and what to change; None if they do not."""
        negatives = training.negatives
        if self.center_samples is not None and negatives.draws is None:
            return (
                f"model.mdsrec.center_samples={self.center_samples} is of no use with a full softmax, which reads "
                "every item anyway; set training.negatives.draws too, or leave center_samples unset"
            )
        if self.center_samples is not None and self.item_view == "features":
            return (
                "model.mdsrec.center_samples draws neighbours' ID rows, which item_view=features does not use; "
                "leave it unset"
            )
        if negatives.hard_share and self.modalities == ():
            return (
                f"training.negatives.hard_share={negatives.hard_share} draws neighbours by modality, but "
                "model.mdsrec.modalities=[] names no modality; set hard_share to 0, or name modalities"
            )
        return None

    def ablated(self, ablation: Ablation, graph: GraphConfig) -> tuple[MDSRecConfig, GraphConfig]:
        """Return these knobs and the graph's with the part switched off that an ablation leaves out."""
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
