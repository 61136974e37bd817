"""Every knob: typed, documented, validated when made, saved with the run."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from configs.knobs import Decides, Section, knob

RESULT, SCORE, LENGTH = Decides.RESULT, Decides.SCORE, Decides.LENGTH
GRAPH, RUNNING, PLACE = Decides.GRAPH, Decides.RUNNING, Decides.PLACE

Ablation = Literal["none", "DIS", "CRE", "MRGC", "ICA"]


class GraphConfig(Section):
    """How item graphs are built (`jobs/build_graph.py`)."""

    distance_weighting: StrictBool = knob(True, GRAPH, "O adds 1/|pos_i - pos_j| per pair; False adds 1")
    window: StrictInt | None = knob(None, GRAPH, "largest position gap counted as a pair; null: all pairs", ge=1)
    normalization: Literal["row_l2", "row_l1", "none"] = knob("row_l2", GRAPH, "of the rows of O")
    max_neighbors: StrictInt | None = knob(None, GRAPH, "strongest co-occurrences kept per row; null: all", ge=1)
    mu: StrictFloat = knob(0.2, GRAPH, "mu_m: weight of O E_m in the injected features", ge=0)
    num_neighbors: StrictInt = knob(5, GRAPH, "H: neighbours per item and modality", ge=1)
    include_self: StrictBool = knob(True, GRAPH, "whether an item is one of its own H neighbours")
    num_centers: StrictInt = knob(16, GRAPH, "k: interest centres per modality", ge=1)
    kmeans_iterations: StrictInt = knob(50, GRAPH, "Lloyd iterations at most", ge=1)
    spherical: StrictBool = knob(False, GRAPH, "k-means on unit rows with renormalised centres")
    block_rows: StrictInt = knob(2048, RUNNING, "rows of a stored block of O, and of an injection task", ge=1)
    rows_per_task: StrictInt | None = knob(
        None, RUNNING, "rows on each side of a neighbour task; null: by the number of items and the backend", ge=1
    )
    precision: Literal["auto", "float32", "float16"] = knob(
        "auto", RUNNING, "of candidate scores (lists are exact either way); auto: float16 on GPUs, else float32"
    )
    backend: Literal["auto", "cpu", "cuda"] = knob("auto", RUNNING, "where the kernels run")
    cpus_per_task: StrictInt = knob(1, RUNNING, "cores, and threads, of a task", ge=1)
    gpus_per_task: StrictFloat = knob(1.0, RUNNING, "share of a GPU that a task on a GPU takes", gt=0)


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


class ModelConfig(Section):
    """Which system, and the shape of its towers."""

    name: Literal["mdsrec", "sasrec", "sasrecf", "itemknn", "popularity"] = knob(
        "mdsrec", RESULT, "which system is trained"
    )
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

    sharding: Literal["auto", "data_parallel", "row_wise"] = knob(
        "auto", RESULT, "replicate the table, or split its rows over ranks; auto: by replicate_below_gib"
    )
    replicate_below_gib: StrictFloat = knob(
        1.0, RESULT, "auto: replicate tables up to this size (weights + Adam)", ge=0
    )
    optimizer: Literal["auto", "adam", "rowwise_adagrad", "adagrad", "sgd"] = knob(
        "auto", RESULT, "auto: Adam where possible, row-wise Adagrad for row_wise tables on CPU"
    )
    learning_rate: StrictFloat | None = knob(None, RESULT, "null: training.learning_rate", gt=0)


class NegativesConfig(Section):
    """Candidates of a sampled softmax, the same on all ranks; each is weighted by how often it should come up."""

    draws: StrictInt | None = knob(
        None, RESULT, "items drawn a step to stand for the catalogue; null: full softmax over all items", ge=0
    )
    in_batch: StrictBool = knob(True, RESULT, "the targets of the whole global batch are candidates too")
    hard_share: StrictFloat = knob(
        0.0, RESULT, "of the draws: neighbours, in the item graph, of the global batch's targets", ge=0, lt=1
    )
    popularity_share: StrictFloat = knob(
        0.5, RESULT, "of the draws that are not hard: by popularity; the rest are uniform", ge=0, le=1
    )
    popularity_power: StrictFloat = knob(0.75, RESULT, "draws by popularity go by counts to this power", ge=0, le=1)

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
    batch_size: StrictInt = knob(512, RESULT, "targets of a step over all ranks (with windows, on average)", ge=1)
    unit: Literal["windows", "prefixes"] = knob(
        "windows", RESULT, "train all targets of a window of a sequence at once, or one prefix row per target"
    )
    window_overlap: StrictFloat = knob(
        0.5, RESULT, "of max_length: what the first target of a later window still sees of the one before", ge=0, lt=1
    )
    learning_rate: StrictFloat = knob(
        1e-3, RESULT, "of everything but an item table with a learning rate of its own", gt=0
    )
    repeat_learning_rate: StrictFloat = knob(
        0.05, RESULT, "of the gains of model.learn_repeats: scores differ by units, weights by hundredths", gt=0
    )
    weight_decay: StrictFloat = knob(0.0, RESULT, "L2 penalty of the dense optimiser", ge=0)
    optimizer: Literal["adam", "adagrad", "sgd"] = knob("adam", RESULT, "of everything but a sharded table")
    max_epochs: StrictInt = knob(100, LENGTH, "epochs after which training ends", ge=0)
    max_steps: StrictInt | None = knob(None, LENGTH, "stop after this many steps, whatever the epoch", ge=1)
    patience: StrictInt = knob(10, LENGTH, "epochs without a better validation metric before stopping", ge=1)
    metric: str = knob("ndcg@10", RESULT, "validation metric that chooses the best checkpoint")
    precision: Literal["float32", "bfloat16"] = knob(
        "float32", RESULT, "of products in towers and centres (autocast); weights, views and losses stay float32"
    )
    gradient_clip: StrictFloat | None = knob(None, RESULT, "norm of the dense gradients; null: no clipping", gt=0)
    loader_workers: StrictInt = knob(0, RUNNING, "processes per rank that prepare batches", ge=0)
    checkpoint_minutes: StrictFloat | None = knob(
        10.0, RUNNING, "minutes between checkpoints within an epoch; null: only one after each epoch", gt=0
    )
    checkpoint_steps: StrictInt | None = knob(None, RUNNING, "checkpoints after each so many steps too", ge=1)
    keep_checkpoints: StrictInt = knob(2, RUNNING, "latest checkpoints kept beside the best", ge=1)
    max_skipped_steps: StrictInt = knob(
        10, RUNNING, "steps in a row that may be skipped, their loss or gradient not finite, before it ends", ge=0
    )
    stall_seconds: StrictFloat = knob(
        900.0, RUNNING, "a rank that has not moved for so long says which one it waits for, and ends", gt=0
    )


class EvaluationConfig(Section):
    """Full-catalogue ranking."""

    ks: tuple[Annotated[StrictInt, Field(ge=1)], ...] = knob(
        (10, 20, 50), SCORE, "cut-offs of Recall@K and NDCG@K", min_length=1
    )
    user_batch: StrictInt = knob(256, RUNNING, "users scored at a time", ge=1)
    item_block: StrictInt = knob(16384, RUNNING, "items scored at a time", ge=1)
    held_items_gib: StrictFloat = knob(
        1.0, RUNNING, "item vectors a rank holds while ranking; beyond, every sweep encodes them again", ge=0
    )
    users_per_pass: StrictInt = knob(
        65536, RUNNING, "users whose vectors are on every rank at once; each pass sweeps the items again", ge=1
    )
    mask_history: StrictBool = knob(False, SCORE, "remove a user's history from the ranking")
    cooccurrence_weight: StrictFloat = knob(
        0.0, SCORE, "add so much times the item graph's O, summed over the user's input, to a score", ge=0
    )
    cooccurrence_decay: StrictFloat = knob(
        0.9, SCORE, "what an item of the input counts in that sum against the one after it", gt=0, le=1
    )
    cooccurrence_cap: StrictInt | None = knob(
        None, SCORE, "how many of the strongest entries of an item's row of O count; null: all", ge=1
    )
    ties: Literal["pessimistic", "optimistic", "id"] = knob(
        "pessimistic", SCORE, "tied items rank above the target, below it, or by ascending id"
    )
    bootstrap_samples: StrictInt = knob(1000, SCORE, "resamples of users behind the 95% intervals; 0: none", ge=0)

    @field_validator("ks")
    @classmethod
    def _cut_offs_differ(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ks)) < len(ks):
            raise ValueError("a cut-off is there twice; name each once")
        return ks


class ClusterConfig(Section):
    """Ray and its workers."""

    num_workers: StrictInt | tuple[StrictInt, StrictInt] = knob(
        2, RUNNING, "ranks of a training or evaluation; [least, most]: as many as the cluster has room for"
    )
    use_gpu: StrictBool | Literal["auto"] = knob("auto", RUNNING, "one GPU per worker; auto: if the cluster has them")
    cpus_per_worker: StrictFloat = knob(1, RUNNING, "cores, and threads, of each worker", gt=0)
    address: str | None = knob(None, RUNNING, "Ray cluster to join; null: RAY_ADDRESS, else a local one")
    max_failures: StrictInt = knob(2, RUNNING, "restarts from the latest checkpoint; -1: no limit", ge=-1)
    resize_seconds: StrictFloat = knob(
        60.0, RUNNING, "with [least, most] workers: how often to look whether there is room for more", gt=0
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
