"""Knobs that choose the system and the shape of its towers; knobs of one system only are a section below."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from configs.knobs import RESULT, Section, knob
from configs.systems.bert4rec import BERT4RecConfig
from configs.systems.fdsa import FDSAConfig
from configs.systems.gru4rec import GRU4RecConfig
from configs.systems.mdsrec import MDSRecConfig
from configs.systems.missrec import MISSRecConfig
from configs.systems.mmmlp import MMMLPConfig
from configs.systems.msm4sr import MSM4SRConfig
from configs.systems.registry import SYSTEMS, SystemEntry
from configs.systems.unisrec import UniSRecConfig
from configs.training_options import Unit

Knobs = TypeVar("Knobs", bound=Section)


class ModelConfig(Section):
    """The system, and the shape of its towers."""

    name: str = knob("mdsrec", RESULT, "name of the system to train; `mdsrec models` lists the names")
    dim: StrictInt = knob(64, RESULT, "d: width of the item table's rows and of the towers", ge=1)
    num_layers: StrictInt = knob(2, RESULT, "number of Transformer layers in each tower", ge=1)
    num_heads: StrictInt = knob(4, RESULT, "number of attention heads in each layer; dim must be a multiple", ge=1)
    ffn_dim: StrictInt | None = knob(None, RESULT, "width of the feed-forward layers; null: 4 * dim", ge=1)
    activation: Literal["gelu", "relu"] = knob("gelu", RESULT, "activation function of the feed-forward layers")
    dropout: StrictFloat = knob(0.5, RESULT, "dropout rate inside the towers", ge=0, lt=1)
    max_length: StrictInt = knob(
        50, RESULT, "L: largest number of items in a model's input; of a longer history the latest are used", ge=1
    )
    init_std: StrictFloat = knob(
        0.02, RESULT, "standard deviation of the initial weight matrices and of the initial item rows", gt=0
    )
    learn_repeats: StrictBool = knob(
        False,
        RESULT,
        "whether each channel learns a number that is added to the score of an item that is in the user's input",
    )
    mdsrec: MDSRecConfig | None = None
    gru4rec: GRU4RecConfig | None = None
    gru4recf: GRU4RecConfig | None = None
    bert4rec: BERT4RecConfig | None = None
    fdsa: FDSAConfig | None = None
    unisrec: UniSRecConfig | None = None
    missrec: MISSRecConfig | None = None
    mmmlp: MMMLPConfig | None = None
    msm4sr: MSM4SRConfig | None = None

    @field_validator("name")
    @classmethod
    def _is_a_system(cls, name: str) -> str:
        if name not in SYSTEMS:
            raise ValueError(f"is not a system; the systems are {', '.join(SYSTEMS)}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _only_the_systems_own_section(cls, values: Any) -> Any:
        """Add the section of the named system, with its defaults, if it is missing; drop those of other systems."""
        if not isinstance(values, dict):
            return values
        name = values.get("name", cls.model_fields["name"].default)
        # A section of a system without knobs is kept, so that it is refused.
        others = {system for system, entry in SYSTEMS.items() if system != name and entry.knobs is not None}
        kept = {key: value for key, value in values.items() if key not in others}
        if isinstance(name, str) and name in SYSTEMS and SYSTEMS[name].knobs is not None and kept.get(name) is None:
            kept[name] = {}
        return kept

    @property
    def system(self) -> SystemEntry:
        """The registry's entry of the named system."""
        return SYSTEMS[self.name]

    @property
    def graph_modalities(self) -> tuple[str, ...] | None:
        """The modalities of the graph that the system's knobs choose; None: all modalities of the graph."""
        return getattr(self.own, "modalities", None)

    @property
    def own(self) -> Section | None:
        """The named system's own section of knobs; None if it has no knobs of its own."""
        return getattr(self, self.name) if self.system.knobs is not None else None

    @property
    def is_contrastive(self) -> bool:
        """Whether the system is trained by contrasting the targets of a batch, not to predict among items."""
        return getattr(self.own, "objective", "next_item") == "contrastive"

    @property
    def units(self) -> tuple[Unit, ...]:
        """The training examples that the system can be trained on, the default first.

        Contrastive training changes whole inputs, so it trains prefix rows.
        """
        return ("prefixes",) if self.is_contrastive else self.system.units

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> ModelConfig:
        if self.system.has_heads and self.dim % self.num_heads:
            raise ValueError(f"model.dim={self.dim} is not a multiple of model.num_heads={self.num_heads}")
        return self

    @model_validator(mode="after")
    def _repeats_have_a_score_to_be_added_to(self) -> ModelConfig:
        if self.learn_repeats and self.is_contrastive:
            raise ValueError(
                f"model.learn_repeats=true, but model.{self.name}.objective=contrastive compares vectors, not scores "
                "of items of the input, so nothing would be learned; set learn_repeats to false"
            )
        return self

    @model_validator(mode="after")
    def _repeats_are_learned_in_training(self) -> ModelConfig:
        if self.learn_repeats and not self.system.is_trained:
            raise ValueError(
                f"model.learn_repeats=true, but model.name={self.name} is not trained; set learn_repeats to false, or "
                "remove items of the history from rankings with evaluation.mask_history=true"
            )
        return self


def own_knobs(config: ModelConfig, kind: type[Knobs]) -> Knobs:
    """Return the named system's own section, which must be of the class `kind`; a model calls this."""
    assert isinstance(config.own, kind), (config.name, kind)
    return config.own
