"""Every knob: typed, documented, validated when made, saved with the run."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Ablation = Literal["none", "DIS", "CRE", "MRGC", "ICA"]


class Section(BaseModel):
    """A group of knobs: unknown names are refused, values are checked, nothing changes after."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class GraphConfig(Section):
    """How item graphs are built (`jobs/build_graph.py`)."""

    distance_weighting: bool = Field(True, description="O adds 1/|pos_i - pos_j| per pair; False adds 1")
    window: int | None = Field(None, ge=1, description="largest position gap counted as a pair; null: all pairs")
    normalization: Literal["row_l2", "row_l1", "none"] = Field("row_l2", description="of the rows of O")
    max_neighbors: int | None = Field(None, ge=1, description="strongest co-occurrences kept per row; null: all")
    mu: float = Field(0.2, ge=0, description="mu_m: weight of O E_m in the injected features")
    num_neighbors: int = Field(5, ge=1, description="H: neighbours per item and modality")
    include_self: bool = Field(True, description="whether an item is one of its own H neighbours")
    num_centers: int = Field(16, ge=1, description="k: interest centres per modality")
    kmeans_iterations: int = Field(50, ge=1, description="Lloyd iterations at most")
    spherical: bool = Field(False, description="k-means on unit rows with renormalised centres")
    block_rows: int = Field(2048, ge=1, description="rows of a stored block of O, and of an injection task")
    rows_per_task: int | None = Field(
        None, ge=1, description="rows on each side of a neighbour task; null: by the number of items and the backend"
    )
    precision: Literal["auto", "float32", "float16"] = Field(
        "auto", description="of candidate scores (lists are exact either way); auto: float16 on GPUs, else float32"
    )
    backend: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the kernels run")
    cpus_per_task: int = Field(1, ge=1, description="cores, and threads, of a task")
    gpus_per_task: float = Field(1.0, gt=0, description="share of a GPU that a task on a GPU takes")


class MDSRecConfig(Section):
    """MDSRec's own choices; see docs/method.md for the evidence behind each default."""

    modalities: tuple[str, ...] | None = Field(
        None, description="null: every modality of the graph; []: none, the ID channel alone"
    )
    mu_id: float = Field(16.0, ge=0, description="weight of O E_id in the injected ID rows (Eq. 3)")
    max_cooccurrences: int | None = Field(
        None,
        ge=1,
        description="strongest entries of a row of O used, in training and ranking alike, without rescaling the row; "
        "null: all that the graph keeps",
    )
    rho: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"image": 0.1, "text": 0.9},
        description="weight of each modality's channel; a modality not named gets default_rho. In the paper they add "
        "up to 1, which is not enforced",
    )
    default_rho: float = Field(0.5, ge=0)
    tau: float = Field(1.0, gt=0, description="temperature of the centre gates (Eq. 19)")
    adjacency: Literal["mean", "sum"] = Field("mean", description="entries of A_m: 1/H or 1")
    item_view: Literal["graph", "features"] = Field(
        "graph", description="Ehat_m: neighbours' ID rows, or a linear map of the raw features (w/o MRGC)"
    )
    share_modalities: bool = Field(True, description="one Transformer and position table for ID and all modalities")
    share_centers: bool = Field(True, description="centre attention uses the towers' own attention weights")
    center_attention: bool = Field(True, description="interest-centralised attention; False is w/o ICA")
    center_residual: bool = Field(
        True, description="residual and LayerNorm around centre attention; the paper has neither"
    )
    center_feed_forward: Literal["transformer", "literal"] = Field(
        "transformer",
        description="after centre attention: sigma(g W1 + b1) W2 + b2 as in the towers, or sigma((g W1 + b1) W2 + b2), "
        "as the paper's Eq. 15 is printed; with center_residual=false too, the centres' layer is the paper's",
    )
    center_dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the centre path")
    gumbel_noise: bool = Field(True, description="logistic noise in the centre gates while training (Eq. 19)")
    center_samples: int | None = Field(
        None, ge=1, description="S: draws that stand for each centre in a training step; null: exact centres"
    )
    center_memory_gib: float = Field(
        1.0, ge=0, description="what a rank keeps of the centre path for the backward; beyond, all of it is recomputed"
    )
    gumbel_at_evaluation: bool = Field(False, description="keep the noise at evaluation: metrics become random")


class ModelConfig(Section):
    """Which system, and the shape of its towers."""

    name: Literal["mdsrec", "sasrec", "sasrecf", "itemknn", "popularity"] = "mdsrec"
    dim: int = Field(64, ge=1, description="d: width of item rows and towers")
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(4, ge=1)
    ffn_dim: int | None = Field(None, ge=1, description="feed-forward width; null: 4 * dim")
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = Field(0.5, ge=0, lt=1)
    max_length: int = Field(50, ge=1, description="L: most recent history items used")
    init_std: float = Field(0.02, gt=0)
    learn_repeats: bool = Field(
        False, description="learn, per channel, how much an item gains or loses where the user's input holds it already"
    )
    mdsrec: MDSRecConfig = MDSRecConfig()

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> ModelConfig:
        if self.dim % self.num_heads:
            raise ValueError(f"model.dim={self.dim} is not a multiple of model.num_heads={self.num_heads}")
        return self

    @model_validator(mode="after")
    def _repeats_are_learned_in_training(self) -> ModelConfig:
        if self.learn_repeats and self.name in ("itemknn", "popularity"):
            raise ValueError(
                f"model.learn_repeats=true, and model.name={self.name} is not trained; set it to false, or hide what "
                "users have with evaluation.mask_history=true"
            )
        return self


class TableConfig(Section):
    """The item ID table: where its rows live and what updates them."""

    sharding: Literal["auto", "data_parallel", "row_wise"] = Field(
        "auto", description="replicate the table, or split its rows over ranks; auto: by replicate_below_gib"
    )
    replicate_below_gib: float = Field(1.0, ge=0, description="auto: replicate tables up to this size (weights + Adam)")
    optimizer: Literal["auto", "adam", "rowwise_adagrad", "adagrad", "sgd"] = Field(
        "auto", description="auto: Adam where possible, row-wise Adagrad for row_wise tables on CPU"
    )
    learning_rate: float | None = Field(None, gt=0, description="null: training.learning_rate")


class NegativesConfig(Section):
    """Candidates of a sampled softmax, the same on all ranks; each is weighted by how often it should come up."""

    draws: int | None = Field(
        None, ge=0, description="items drawn a step to stand for the catalogue; null: full softmax over all items"
    )
    in_batch: bool = Field(True, description="the targets of the whole global batch are candidates too")
    hard_share: float = Field(
        0.0, ge=0, lt=1, description="of the draws: neighbours, in the item graph, of the global batch's targets"
    )
    popularity_share: float = Field(
        0.5, ge=0, le=1, description="of the draws that are not hard: by popularity; the rest are uniform"
    )
    popularity_power: float = Field(0.75, ge=0, le=1, description="draws by popularity go by counts to this power")

    @model_validator(mode="after")
    def _candidates_come_from_somewhere(self) -> NegativesConfig:
        if self.draws == 0 and not self.in_batch:
            raise ValueError(
                "training.negatives.draws=0 and in_batch=false leave no candidates; draw some, set in_batch=true, or "
                "leave draws unset for a full softmax"
            )
        return self


class TrainingConfig(Section):
    """The life of a run."""

    negatives: NegativesConfig = NegativesConfig()
    batch_size: int = Field(512, ge=1, description="targets of a step over all ranks (with windows, on average)")
    unit: Literal["windows", "prefixes"] = Field(
        "windows", description="train all targets of a window of a sequence at once, or one prefix row per target"
    )
    window_overlap: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="of max_length: what the first target of a later window still sees of the one before",
    )
    learning_rate: float = Field(1e-3, gt=0)
    repeat_learning_rate: float = Field(
        0.05, gt=0, description="of the gains of model.learn_repeats: scores differ by units, weights by hundredths"
    )
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adam", "adagrad", "sgd"] = Field("adam", description="of everything but a sharded table")
    max_epochs: int = Field(100, ge=0)
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps, whatever the epoch")
    patience: int = Field(10, ge=1, description="epochs without a better validation metric before stopping")
    metric: str = Field("ndcg@10", description="validation metric that chooses the best checkpoint")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of products in towers and centres (autocast); weights, views and losses stay float32"
    )
    gradient_clip: float | None = Field(None, gt=0, description="norm of the dense gradients; null: no clipping")
    loader_workers: int = Field(0, ge=0, description="processes per rank that prepare batches")
    checkpoint_minutes: float | None = Field(
        10.0, gt=0, description="minutes between checkpoints within an epoch; null: only one after each epoch"
    )
    checkpoint_steps: int | None = Field(None, ge=1, description="checkpoints after each so many steps too")
    keep_checkpoints: int = Field(2, ge=1, description="latest checkpoints kept beside the best")
    max_skipped_steps: int = Field(
        10, ge=0, description="steps in a row that may be skipped, their loss or gradient not finite, before it ends"
    )
    stall_seconds: float = Field(
        900.0, gt=0, description="a rank that has not moved for so long says which one it waits for, and ends"
    )


class EvaluationConfig(Section):
    """Full-catalogue ranking."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (10, 20, 50), min_length=1, description="cut-offs of Recall@K and NDCG@K"
    )
    user_batch: int = Field(256, ge=1, description="users scored at a time")
    item_block: int = Field(16384, ge=1, description="items scored at a time")
    held_items_gib: float = Field(
        1.0, ge=0, description="item vectors a rank holds while ranking; beyond, every sweep encodes them again"
    )
    users_per_pass: int = Field(
        65536, ge=1, description="users whose vectors are on every rank at once; each pass sweeps the items again"
    )
    mask_history: bool = Field(False, description="remove a user's history from the ranking")
    cooccurrence_weight: float = Field(
        0.0, ge=0, description="add so much times the item graph's O, summed over the user's input, to a score"
    )
    cooccurrence_decay: float = Field(
        0.9, gt=0, le=1, description="what an item of the input counts in that sum against the one after it"
    )
    cooccurrence_cap: int | None = Field(
        None, ge=1, description="how many of the strongest entries of an item's row of O count; null: all"
    )
    ties: Literal["pessimistic", "optimistic", "id"] = Field(
        "pessimistic", description="tied items rank above the target, below it, or by ascending id"
    )
    bootstrap_samples: int = Field(1000, ge=0, description="resamples of users behind the 95% intervals; 0: none")

    @field_validator("ks")
    @classmethod
    def _cut_offs_differ(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ks)) < len(ks):
            raise ValueError("a cut-off is there twice; name each once")
        return ks


class ClusterConfig(Section):
    """Ray and its workers."""

    num_workers: int | tuple[int, int] = Field(
        2, description="ranks of a training or evaluation; [least, most]: as many as the cluster has room for"
    )
    use_gpu: bool | Literal["auto"] = Field("auto", description="one GPU per worker; auto: if the cluster has them")
    cpus_per_worker: float = Field(1, gt=0)
    address: str | None = Field(None, description="Ray cluster to join; null: RAY_ADDRESS, else a local one")
    max_failures: int = Field(2, ge=-1, description="restarts from the latest checkpoint; -1: no limit")
    resize_seconds: float = Field(
        60.0, gt=0, description="with [least, most] workers: how often to look whether there is room for more"
    )

    @property
    def fewest_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @model_validator(mode="after")
    def _there_are_workers(self) -> ClusterConfig:
        if not 1 <= self.fewest_workers <= self.most_workers:
            raise ValueError(
                f"num_workers={self.num_workers} is neither a number from 1 nor [least, most] with 1 <= least <= most"
            )
        return self

    @field_validator("address")
    @classmethod
    def _address_is_one_of_rays(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(
            r"auto|local|(ray://)?[^\s/:]+:\d{1,5}|(ray://)?\[[0-9a-fA-F:]+\]:\d{1,5}", address
        ):
            raise ValueError("expected HOST:PORT of a head node (often port 6379), ray://HOST:10001, auto or local")
        return address


class Config(Section):
    """A whole experiment: three folders and how to get from one to the next."""

    dataset: str | None = Field(None, description="dataset folder or URI, from jobs/prepare_data.py")
    graph: str | None = Field(None, description="graph folder or URI, from jobs/build_graph.py")
    run: str | None = Field(None, description="run folder or URI: config, checkpoints, metrics")
    seed: int = Field(0, ge=0, lt=2**31)
    ablation: Ablation = Field(
        "none",
        description="the paper's study: without distance weighting, co-occurrence enhancement, "
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
        known = [f"{name}@{k}" for name in ("recall", "ndcg") for k in self.evaluation.ks]
        if self.training.metric not in known:
            raise ValueError(f"training.metric={self.training.metric!r} is not one of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _sampled_centers_have_small_unions(self) -> Config:
        samples, draws = self.model.mdsrec.center_samples, self.training.negatives.draws
        if samples is not None and draws is None:
            raise ValueError(
                f"model.mdsrec.center_samples={samples} spares the step the whole catalogue, which a full softmax "
                "brings in anyway; set training.negatives.draws too, or leave center_samples unset"
            )
        if samples is not None and self.model.mdsrec.item_view == "features":
            raise ValueError(
                "model.mdsrec.center_samples draws neighbours' ID rows, which item_view=features does not use; "
                "leave it unset"
            )
        return self

    @model_validator(mode="after")
    def _item_knn_scores_something(self) -> Config:
        if self.model.name == "itemknn" and not self.evaluation.cooccurrence_weight:
            raise ValueError(
                "evaluation.cooccurrence_weight=0, and model.name=itemknn scores by nothing else; set it to 1"
            )
        return self

    @property
    def trains_on_graph(self) -> bool:
        """Whether the item graph is part of the model."""
        return self.model.name == "mdsrec"

    @property
    def reads_graph(self) -> bool:
        """Whether the item graph is needed at all, if only to rank."""
        return self.trains_on_graph or self.evaluation.cooccurrence_weight > 0

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
        if negatives.hard_share and self.model.mdsrec.modalities == ():
            raise ValueError(
                f"training.negatives.hard_share={negatives.hard_share} draws neighbours by modality, and "
                "model.mdsrec.modalities=[] leaves none; set it to 0, or name modalities"
            )
        return self

    def with_ablation(self) -> Config:
        """The config with the knobs that its `ablation` names switched off (everyone calls this once)."""
        graph: dict[str, object] = {}
        mdsrec: dict[str, object] = {}
        if self.ablation == "DIS":
            graph["distance_weighting"] = False
        elif self.ablation == "CRE":
            graph["mu"] = 0.0
            mdsrec["mu_id"] = 0.0
        elif self.ablation == "MRGC":
            mdsrec["item_view"] = "features"
        elif self.ablation == "ICA":
            mdsrec["center_attention"] = False
        model = self.model.model_copy(update={"mdsrec": self.model.mdsrec.model_copy(update=mdsrec)})
        return self.model_copy(update={"graph_options": self.graph_options.model_copy(update=graph), "model": model})
