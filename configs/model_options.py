"""Knobs that name the system to train and shape its towers; each system's own knobs are a section below."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from configs.knobs import RESULT, Section, knob
from configs.systems.mdsrec import MDSRecConfig
from configs.systems.registry import SYSTEMS, SystemEntry

Knobs = TypeVar("Knobs", bound=Section)


class ModelConfig(Section):
    """Which system, and the shape of its towers."""

    name: str = knob("mdsrec", RESULT, "which system is trained; `configs/systems/registry.py` lists them")
    dim: StrictInt = knob(64, RESULT, "d: width of item rows and towers", ge=1)
    num_layers: StrictInt = knob(2, RESULT, "Transformer layers of a tower", ge=1)
    num_heads: StrictInt = knob(4, RESULT, "attention heads of a layer; they divide dim", ge=1)
    ffn_dim: StrictInt | None = knob(None, RESULT, "feed-forward width; null: 4 * dim", ge=1)
    activation: Literal["gelu", "relu"] = knob("gelu", RESULT, "of the feed-forward layers")
    dropout: StrictFloat = knob(0.5, RESULT, "rate of dropout inside the towers", ge=0, lt=1)
    max_length: StrictInt = knob(50, RESULT, "L: most recent history items used", ge=1)
    init_std: StrictFloat = knob(0.02, RESULT, "standard deviation of the initial item rows", gt=0)
    learn_repeats: StrictBool = knob(
        False, RESULT, "learn, per channel, how much an item gains or loses where the user's input holds it already"
    )
    mdsrec: MDSRecConfig | None = None

    @field_validator("name")
    @classmethod
    def _is_a_system(cls, name: str) -> str:
        if name not in SYSTEMS:
            raise ValueError(f"is no system; the systems are {', '.join(SYSTEMS)}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _only_the_systems_own_section(cls, values: Any) -> Any:
        """The section of the named system is there, with its defaults; those of other systems are not."""
        if not isinstance(values, dict):
            return values
        name = values.get("name", cls.model_fields["name"].default)
        kept = {key: value for key, value in values.items() if key == name or key not in SYSTEMS}
        if isinstance(name, str) and name in SYSTEMS and SYSTEMS[name].knobs is not None and kept.get(name) is None:
            kept[name] = {}
        return kept

    @property
    def system(self) -> SystemEntry:
        """What is known of the named system."""
        return SYSTEMS[self.name]

    @property
    def graph_modalities(self) -> tuple[str, ...] | None:
        """The modalities whose graph the system reads, where its knobs choose; None: all that the graph has."""
        return getattr(self.own, "modalities", None)

    @property
    def own(self) -> Section | None:
        """The named system's own knobs; None where it has none."""
        return getattr(self, self.name) if self.system.knobs is not None else None

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> ModelConfig:
        if self.dim % self.num_heads:
            raise ValueError(f"model.dim={self.dim} is not a multiple of model.num_heads={self.num_heads}")
        return self

    @model_validator(mode="after")
    def _repeats_are_learned_in_training(self) -> ModelConfig:
        if self.learn_repeats and not self.system.is_trained:
            raise ValueError(
                f"model.learn_repeats=true, and model.name={self.name} is not trained; set it to false, or hide what "
                "users have with evaluation.mask_history=true"
            )
        return self


def own_knobs(config: ModelConfig, kind: type[Knobs]) -> Knobs:
    """The named system's own section, for its model, which knows of what kind it is."""
    assert isinstance(config.own, kind), (config.name, kind)
    return config.own
