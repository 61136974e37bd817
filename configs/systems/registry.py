"""Every system that can be trained or ranked: its name, what it is, and what it needs.

To add one: an entry here, its class of knobs in a file beside this one and as a field of
`configs.model_options.ModelConfig` (if it has any), its model in `model/` and a line in `model/zoo.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.knobs import Section
from configs.systems.mdsrec import MDSRecConfig


@dataclass(frozen=True, kw_only=True)
class SystemEntry:
    """What the rest of the project knows of a system without looking into its model.

    Attributes:
        about: what it is, in a line.
        knobs: its own section, `model.<name>`; None: it has none.
        is_trained: whether it has weights.
        trains_on_graph: whether the item graph is part of the model.
        reads_features: whether the model reads the dataset's item features themselves. A system on the item graph needs
            them only where the graph is built.
        scores_by_cooccurrence: whether evaluation.cooccurrence_weight is all that it scores by.
    """

    about: str
    knobs: type[Section] | None = None
    is_trained: bool = True
    trains_on_graph: bool = False
    reads_features: bool = False
    scores_by_cooccurrence: bool = False


SYSTEMS = {
    "mdsrec": SystemEntry(
        about="ID and per-modality towers over item relation graphs, with interest-centralised attention",
        knobs=MDSRecConfig,
        trains_on_graph=True,
    ),
    "sasrec": SystemEntry(about="causal Transformer over item IDs"),
    "sasrecf": SystemEntry(about="causal Transformer over item IDs and features, concatenated", reads_features=True),
    "itemknn": SystemEntry(
        about="co-occurrence with what the user has, nothing trained", is_trained=False, scores_by_cooccurrence=True
    ),
    "popularity": SystemEntry(about="training counts", is_trained=False),
}
