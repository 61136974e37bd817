"""The registry of systems that can be trained or ranked: the name of each, what it is, and what it needs.

To add a system, write its entry here, its model in `model/`, and a line in `model/zoo.py`. If the system has knobs of
its own, write their class in a file beside this one, and add it as a field of `configs.model_options.ModelConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.knobs import Section
from configs.systems.bert4rec import BERT4RecConfig
from configs.systems.fdsa import FDSAConfig
from configs.systems.gru4rec import GRU4RecConfig
from configs.systems.mdsrec import MDSRecConfig
from configs.systems.missrec import MISSRecConfig
from configs.systems.mmmlp import MMMLPConfig
from configs.systems.msm4sr import MSM4SRConfig
from configs.systems.unisrec import UniSRecConfig
from configs.training_options import Unit


@dataclass(frozen=True, kw_only=True)
class SystemEntry:
    """What the rest of the project knows of a system without looking into its model.

    Attributes:
        about: a description in one line.
        knobs: the class of its own section `model.<name>`; None: it has no knobs of its own.
        is_trained: whether it has weights.
        trains_on_graph: whether the model reads the item graph in training.
        reads_features: whether the model reads the dataset's item features itself. A system that trains on the graph
            needs them only when the graph is built.
        has_heads: whether it has attention heads, whose number must divide the width.
        scores_by_cooccurrence: whether its scores are co-occurrence alone (evaluation.cooccurrence_weight).
        units: the training examples that it can be trained on, the default first. A causal system has "windows": its
            state after an item sees no later item, so that a window can train a target after each of its items. In
            other systems a state would see its own target. They train prefix rows, or "masks" if they can put a mask
            in the place of an item.
    """

    about: str
    knobs: type[Section] | None = None
    is_trained: bool = True
    trains_on_graph: bool = False
    reads_features: bool = False
    has_heads: bool = True
    scores_by_cooccurrence: bool = False
    units: tuple[Unit, ...] = ("windows", "prefixes")


SYSTEMS = {
    "mdsrec": SystemEntry(
        about="towers over IDs and over each modality's item graph, with interest-centralised attention",
        knobs=MDSRecConfig,
        trains_on_graph=True,
    ),
    "sasrec": SystemEntry(about="causal Transformer over item IDs"),
    "sasrecf": SystemEntry(about="SASRec over item IDs and features, concatenated", reads_features=True),
    "gru4rec": SystemEntry(about="GRU over item IDs", knobs=GRU4RecConfig, has_heads=False),
    "gru4recf": SystemEntry(
        about="a GRU over item IDs and a GRU over features",
        knobs=GRU4RecConfig,
        reads_features=True,
        has_heads=False,
    ),
    "bert4rec": SystemEntry(
        about="bidirectional Transformer over item IDs, which is trained to fill in masked items",
        knobs=BERT4RecConfig,
        units=("masks", "prefixes"),
    ),
    "fdsa": SystemEntry(
        about="a causal Transformer over item IDs and one over features", knobs=FDSAConfig, reads_features=True
    ),
    "unisrec": SystemEntry(
        about="causal Transformer over adapted text vectors, with or without item IDs; cosine scores",
        knobs=UniSRecConfig,
        reads_features=True,
    ),
    "missrec": SystemEntry(
        about="a Transformer over adapted features that attends to the user's interests; fused cosine scores",
        knobs=MISSRecConfig,
        reads_features=True,
        units=("prefixes",),
    ),
    "mmmlp": SystemEntry(
        about="MLP-Mixers over item IDs and each feature, which see the whole input",
        knobs=MMMLPConfig,
        reads_features=True,
        has_heads=False,
        units=("prefixes",),
    ),
    "msm4sr": SystemEntry(
        about="causal Transformer over adapted text and image, with item IDs or pre-trained without; cosine scores",
        knobs=MSM4SRConfig,
        reads_features=True,
    ),
    "itemknn": SystemEntry(
        about="co-occurrence with the items of the user's input; not trained",
        is_trained=False,
        has_heads=False,
        scores_by_cooccurrence=True,
    ),
    "popularity": SystemEntry(
        about="number of training interactions of an item; not trained", is_trained=False, has_heads=False
    ),
}
