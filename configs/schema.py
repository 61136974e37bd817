"""Every knob: typed, documented, validated when made, saved with the run."""

from __future__ import annotations

from pydantic import StrictInt, model_validator

from configs.cluster_options import ClusterConfig
from configs.evaluation_options import EvaluationConfig
from configs.graph_options import GraphConfig
from configs.knobs import PLACE, RESULT, Section, knob
from configs.model_options import ModelConfig
from configs.systems.mdsrec import Ablation, MDSRecConfig
from configs.table_options import TableConfig
from configs.training_options import NegativesConfig, TrainingConfig

__all__ = [
    "ClusterConfig", "Config", "EvaluationConfig", "GraphConfig", "MDSRecConfig", "ModelConfig", "NegativesConfig",
    "TableConfig", "TrainingConfig",
]  # fmt: skip


class Config(Section):
    """A whole experiment: three folders and how to get from one to the next."""

    dataset: str | None = knob(None, PLACE, "dataset folder or URI, from jobs/prepare_data.py")
    graph: str | None = knob(None, PLACE, "graph folder or URI, from jobs/build_graph.py")
    run: str | None = knob(None, PLACE, "run folder or URI: config, checkpoints, metrics")
    seed: StrictInt = knob(
        0,
        RESULT,
        "of every random number: initial weights, order of the data, dropout, negatives, graph centres",
        ge=0,
        lt=2**31,
    )
    ablation: Ablation = knob(
        "none",
        RESULT,
        "the paper's study: without distance weighting, co-occurrence enhancement, "
        "modal relation graphs, or interest-centralised attention; build the graph with the same value",
    )
    graph_options: GraphConfig = GraphConfig()
    model: ModelConfig = ModelConfig()
    table: TableConfig = TableConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()

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
                f"ablation={self.ablation} leaves a part of mdsrec out, and model.name={self.model.name}; set it to "
                "none"
            )
        return self

    @model_validator(mode="after")
    def _scores_by_something(self) -> Config:
        if self.model.system.scores_by_cooccurrence and not self.evaluation.cooccurrence_weight:
            raise ValueError(
                f"evaluation.cooccurrence_weight=0, and model.name={self.model.name} scores by nothing else; set it "
                "to 1"
            )
        return self

    @model_validator(mode="after")
    def _hard_negatives_have_a_graph(self) -> Config:
        negatives = self.training.negatives
        if negatives.hard_share and not self.trains_on_graph:
            raise ValueError(
                f"training.negatives.hard_share={negatives.hard_share} draws neighbours from the item graph, and "
                f"model.name={self.model.name} has none; set it to 0, or model.name=mdsrec"
            )
        if negatives.hard_share and not negatives.draws:
            raise ValueError(
                f"training.negatives.hard_share={negatives.hard_share} is a share of training.negatives.draws, "
                f"which is {'unset' if negatives.draws is None else 0}; set draws too, or leave hard_share at 0"
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
        """Whether the item graph is needed at all, if only to rank."""
        return self.trains_on_graph or self.evaluation.cooccurrence_weight > 0

    def with_ablation(self) -> Config:
        """The config with the knobs that its `ablation` names switched off (everyone calls this once)."""
        if self.model.mdsrec is None:
            return self
        mdsrec, graph = self.model.mdsrec.ablated(self.ablation, self.graph_options)
        model = self.model.model_copy(update={"mdsrec": mdsrec})
        return self.model_copy(update={"graph_options": graph, "model": model})
