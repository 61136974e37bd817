"""The whole config as one class: every knob, typed and documented, validated when made, and saved with a run."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictInt, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from configs.cluster_options import ClusterConfig
from configs.evaluation_options import EvaluationConfig
from configs.graph_options import GraphConfig
from configs.knobs import PLACE, RESULT, Section, knob
from configs.model_options import ModelConfig
from configs.places import Places
from configs.systems.mdsrec import Ablation, MDSRecConfig
from configs.table_options import TableConfig
from configs.training_options import NegativesConfig, TrainingConfig

__all__ = [
    "ClusterConfig", "Config", "EvaluationConfig", "GraphConfig", "MDSRecConfig", "ModelConfig", "NegativesConfig",
    "TableConfig", "TrainingConfig",
]  # fmt: skip


class Config(Section):
    """A whole experiment: the folders of its dataset, graph and run, and all settings."""

    dataset: Places = knob(
        None,
        PLACE,
        "folder or URI of the dataset, which jobs/prepare_data.py writes; [A, B]: several datasets, whose users and "
        "items are trained side by side",
    )
    graph: Places = knob(
        None,
        PLACE,
        "folder or URI of the item graph, which jobs/build_graph.py writes; for several datasets [GA, GB], one for "
        "each in their order",
    )
    run: str | None = knob(
        None, PLACE, "folder or URI of the run, which jobs/train.py fills with settings, checkpoints and metrics"
    )
    seed: StrictInt = knob(
        0,
        RESULT,
        "seed of all random numbers: initial weights, order of the data, dropout, negatives, graph centres",
        ge=0,
        lt=2**31,
    )
    ablation: Ablation = knob(
        "none",
        RESULT,
        "part of MDSRec that is left out, as in the paper's study; DIS: distance weighting, CRE: co-occurrence "
        "enhancement, MRGC: modal relation graphs, ICA: interest-centralised attention. DIS and CRE change the "
        "graph: build it with the same value",
    )
    graph_options: GraphConfig = GraphConfig()
    model: ModelConfig = ModelConfig()
    table: TableConfig = TableConfig()
    training: TrainingConfig = Field(TrainingConfig(), validate_default=True)
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("dataset", "graph", mode="after")
    @classmethod
    def _names_a_folder(cls, places: Places) -> Places:
        """Replace a list of one folder by the folder, and refuse an empty list."""
        if places == ():
            raise ValueError("is an empty list; name at least one folder, or leave it null")
        return places[0] if isinstance(places, tuple) and len(places) == 1 else places

    @field_validator("training", mode="after")
    @classmethod
    def _unit_fits_the_system(cls, training: TrainingConfig, others: ValidationInfo) -> TrainingConfig:
        """Replace `unit=auto` by the unit that it stands for, and refuse a unit that the system cannot train."""
        model = others.data.get("model")
        if model is None:  # its knobs are wrong, which has its own message
            return training
        if training.unit == "windows" and model.is_contrastive:
            raise ValueError(
                f"training.unit=windows, but model.{model.name}.objective=contrastive drops items from inputs, and a "
                "window would lose targets with them; set unit to auto or prefixes"
            )
        training = training.with_unit_chosen(model.name, model.units)
        if training.unit == "masks" and training.negatives.draws is not None and training.negatives.in_batch:
            raise ValueError(
                f"training.negatives.in_batch=true with draws={training.negatives.draws}, but with training.unit=masks "
                "the weights of in-batch candidates would be wrong for items that the row sees unmasked; set in_batch "
                "to false, or set unit to prefixes"
            )
        return training

    @model_validator(mode="after")
    def _metric_is_computed(self) -> Config:
        known = self.evaluation.metrics
        if self.training.metric not in known:
            raise ValueError(f"training.metric={self.training.metric!r} is not one of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _ablates_what_is_there(self) -> Config:
        if self.ablation != "none" and self.model.mdsrec is None:
            raise ValueError(
                f"ablation={self.ablation} leaves out a part of mdsrec, but model.name={self.model.name}; set ablation "
                "to none"
            )
        return self

    @model_validator(mode="after")
    def _scores_by_something(self) -> Config:
        if self.model.system.scores_by_cooccurrence and not self.evaluation.cooccurrence_weight:
            raise ValueError(
                f"evaluation.cooccurrence_weight=0, but model.name={self.model.name} scores by co-occurrence alone; "
                "set it to 1"
            )
        return self

    @model_validator(mode="after")
    def _hard_negatives_have_a_graph(self) -> Config:
        negatives = self.training.negatives
        if negatives.hard_share and not self.trains_on_graph:
            raise ValueError(
                f"training.negatives.hard_share={negatives.hard_share} draws neighbours from the item graph, but "
                f"model.name={self.model.name} trains without a graph; set it to 0, or set model.name=mdsrec"
            )
        if negatives.hard_share and not negatives.draws:
            raise ValueError(
                f"training.negatives.hard_share={negatives.hard_share} is a share of training.negatives.draws, "
                f"which is {'unset' if negatives.draws is None else 0}; set draws too, or leave hard_share at 0"
            )
        return self

    @model_validator(mode="after")
    def _contrastive_training_draws_nothing(self) -> Config:
        if self.model.is_contrastive and self.training.negatives.draws is not None:
            raise ValueError(
                f"training.negatives.draws={self.training.negatives.draws}, but the negatives of "
                f"model.{self.model.name}.objective=contrastive are the other targets of the batch; leave draws unset, "
                "and choose their number with training.batch_size"
            )
        if self.model.is_contrastive and self.training.batch_size == 1:
            raise ValueError(
                f"training.batch_size=1, but the negatives of model.{self.model.name}.objective=contrastive are the "
                "other targets of the batch, so there would be none; set batch_size to 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _contrastive_training_has_its_own_loss(self) -> Config:
        if self.model.is_contrastive and self.training.loss != "cross_entropy":
            raise ValueError(
                f"training.loss={self.training.loss}, but model.{self.model.name}.objective=contrastive has losses of "
                "its own; set training.loss to cross_entropy, or the objective to next_item"
            )
        return self

    @model_validator(mode="after")
    def _mdsrec_fits_training(self) -> Config:
        problem = self.model.mdsrec.problem(self.training) if self.model.mdsrec else None
        if problem:
            raise ValueError(problem)
        return self

    @property
    def trains_on_graph(self) -> bool:
        """Whether the item graph is part of the model."""
        return self.model.system.trains_on_graph

    @property
    def reads_graph(self) -> bool:
        """Whether the item graph is needed for training or for ranking."""
        return self.trains_on_graph or self.evaluation.cooccurrence_weight > 0

    def default_of(self, name: str, info: FieldInfo) -> Any:
        """Return a knob's default as a config like this one saves it: for training.unit, what `auto` stands for."""
        if name == "training.unit":
            return TrainingConfig().with_unit_chosen(self.model.name, self.model.units).unit
        return info.get_default(call_default_factory=True)

    def with_ablation(self) -> Config:
        """Return the config with the part that `ablation` names switched off; `parse_config` calls this once."""
        if self.model.mdsrec is None:
            return self
        mdsrec, graph = self.model.mdsrec.ablated(self.ablation, self.graph_options)
        model = self.model.model_copy(update={"mdsrec": mdsrec})
        return self.model_copy(update={"graph_options": graph, "model": model})
