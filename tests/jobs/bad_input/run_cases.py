"""Cases of bad input for training and later jobs: configs, inputs, runs, checkpoints, clusters, outputs."""

from __future__ import annotations

import numpy as np

from experiments.case_page.page import GENERATOR
from experiments.page.markup import element
from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import (
    copy,
    cut,
    flip,
    folder,
    json_field,
    link,
    move,
    put,
    remove,
    replace,
    table,
    write,
)  # fmt: skip

_FOLDERS = "--set dataset={here}/dataset --set graph={here}/graph --set run={here}/new"
_TRAIN = f"train --config {{here}}/config.yaml {_FOLDERS}"
_SASREC = f"{_TRAIN} --set model.name=sasrec"
_CONTINUE = f"{_SASREC.replace('/new', '/run')} --set cluster.num_workers=1 --set training.max_epochs=1"
_START = f"{_SASREC} --set training.start_from={{here}}/run"
_CONFIG = "config.yaml"
_INDEX = "run/checkpoints/index.json"
_PROGRESS = "run/checkpoints/step-00000001/progress.json"
_SHARD = "run/checkpoints/step-00000001/shard-00001-model-00001-of-00001.safetensors"

CONFIGS = Group(
    "jobs/train.py: configs and overrides",
    (
        Case("no such config", _TRAIN, remove(_CONFIG)),
        Case("a folder for a config", _TRAIN, folder(_CONFIG)),
        Case("a config that is no YAML", _TRAIN, write(_CONFIG, "model: [\n")),
        Case("a config that is not text", _TRAIN, write(_CONFIG, b"model: \xff\n")),
        Case("a config that is a list", _TRAIN, write(_CONFIG, "- model\n")),
        Case("a config that is one word", _TRAIN, write(_CONFIG, "sasrec\n")),
        Case(
            "a config with a Python object", _TRAIN, write(_CONFIG, "run: !!python/object/apply:os.system ['true']\n")
        ),
        Case("a config with a key twice", _TRAIN, write(_CONFIG, "model:\n  dim: 8\n  dim: 16\n")),
        Case("a config nested too deeply", _TRAIN, write(_CONFIG, "[" * 5000)),
        Case("a config whose YAML aliases expand", _TRAIN, write(_CONFIG, "a: &a [1,1]\nb: &b [*a,*a]\nmodel: *b\n")),
        Case("a section without its knobs", _TRAIN, write(_CONFIG, "model:\n")),
        Case("a number for a key", _TRAIN, write(_CONFIG, "1: 2\n")),
        Case("a misspelt knob", f"{_TRAIN} --set model.nmae=sasrec"),
        Case("a misspelt section", f"{_TRAIN} --set modle.dim=8"),
        Case("an override without a value", f"{_TRAIN} --set model.dim"),
        Case("an override of a section", f"{_TRAIN} --set model=sasrec"),
        Case("an override below a value", f"{_TRAIN} --set seed.x=1"),
        Case("an override without a name", f"{_TRAIN} --set =3"),
        Case("an override with an empty part", f"{_TRAIN} --set model..dim=3"),
        Case("text that YAML takes for a number", _TRAIN, write(_CONFIG, "training: {metric: 10}\n")),
        Case("a number in a notation of YAML 1.1", f"{_TRAIN} --set training.batch_size=1:30"),
        Case("yes for true", f"{_TRAIN} --set evaluation.mask_history=yes"),
        Case("an abbreviated knob", f"{_TRAIN} --set training.lr=0.1"),
        Case("a folder without a name", f"{_TRAIN} --set run="),
        Case("a number that is text", f"{_TRAIN} --set training.batch_size=many"),
        Case("a number that is NaN", f"{_TRAIN} --set training.learning_rate=.nan"),
        Case("a batch size of zero", f"{_TRAIN} --set training.batch_size=0"),
        Case("a dropout of 1", f"{_TRAIN} --set model.dropout=1"),
        Case("heads that do not divide the width", f"{_TRAIN} --set model.num_heads=3"),
        Case("an unknown model", f"{_TRAIN} --set model.name=caser"),
        Case("a feature that the dataset lacks", f"{_TRAIN} --set model.name=fdsa --set model.fdsa.features=[sound]"),
        Case("a feature named twice", f"{_TRAIN} --set model.name=missrec --set model.missrec.features=[text,text]"),
        Case("no feature", f"{_TRAIN} --set model.name=fdsa --set model.fdsa.features=[]"),
        Case(
            "windows for a system that sees its whole input",
            f"{_TRAIN} --set model.name=mmmlp --set training.unit=windows",
        ),
        Case(
            "masks for a system that has no mask",
            f"{_TRAIN} --set model.name=sasrec --set training.unit=masks",
        ),
        Case(
            "candidates from the batch for masked items",
            f"{_TRAIN} --set model.name=bert4rec --set training.negatives.draws=64",
        ),
        Case(
            "positions from neither end of a row",
            f"{_TRAIN} --set model.name=bert4rec --set model.bert4rec.position_zero=middle",
        ),
        Case(
            "every item masked",
            f"{_TRAIN} --set model.name=bert4rec --set model.bert4rec.mask_ratio=1.0",
        ),
        Case(
            "a system's item feature that the dataset lacks",
            f"{_TRAIN} --set model.name=unisrec --set model.unisrec.modality=sound",
        ),
        Case("weights left out of no other run", f"{_SASREC} --set training.leave_out=[table.*]"),
        Case("a share of no users", f"{_SASREC} --set training.user_share=0"),
        Case("a share of more than all users", f"{_SASREC} --set training.user_share=1.5"),
        Case("so few users that nobody is chosen", f"{_SASREC} --set training.user_share=0.00001"),
        Case("a graph of all users for a share of them", f"{_TRAIN} --set training.user_share=0.5"),
        Case(
            "contrastive pre-training with item IDs",
            f"{_TRAIN} --set model.name=unisrec --set model.unisrec.objective=contrastive",
        ),
        Case(
            "contrastive pre-training in windows",
            f"{_TRAIN} --set model.name=msm4sr --set model.msm4sr.objective=contrastive --set training.unit=windows",
        ),
        Case(
            "contrastive pre-training with draws",
            f"{_TRAIN} --set model.name=msm4sr --set model.msm4sr.objective=contrastive "
            "--set training.negatives.draws=8",
        ),
        Case(
            "contrastive pre-training one target at a time",
            f"{_TRAIN} --set model.name=msm4sr --set model.msm4sr.objective=contrastive --set training.batch_size=1",
        ),
        Case(
            "contrastive pre-training with learned repeats",
            f"{_TRAIN} --set model.name=msm4sr --set model.msm4sr.objective=contrastive --set model.learn_repeats=true",
        ),
        Case(
            "no feature for a system of one or two", f"{_TRAIN} --set model.name=msm4sr --set model.msm4sr.features=[]"
        ),
        Case(
            "contrastive pre-training of MISSRec with item IDs",
            f"{_TRAIN} --set model.name=missrec --set model.missrec.objective=contrastive",
        ),
        Case(
            "dropped words of a feature that is not read",
            f"{_TRAIN} --set model.name=missrec --set model.missrec.objective=contrastive "
            "--set model.missrec.use_ids=false --set model.missrec.words_of=title",
        ),
        Case(
            "a feature of dropped words that the dataset lacks",
            f"{_TRAIN} --set model.name=unisrec --set model.unisrec.objective=contrastive "
            "--set model.unisrec.use_ids=false --set model.unisrec.word_drop_modality=words",
        ),
        Case("a metric that is not computed", f"{_TRAIN} --set training.metric=ndcg@7"),
        Case("a cut-off of zero", f"{_TRAIN} --set evaluation.ks=[0,10]"),
        Case("a cut-off twice", f"{_TRAIN} --set evaluation.ks=[10,10]"),
        Case("no cut-off", f"{_TRAIN} --set evaluation.ks=[]"),
        Case(
            "learned repeats in a model that is not trained",
            f"{_TRAIN} --set model.name=popularity --set model.learn_repeats=true",
        ),
        Case("ItemKNN without co-occurrence", f"{_TRAIN} --set model.name=itemknn"),
        Case("a negative weight of co-occurrence", f"{_TRAIN} --set evaluation.cooccurrence_weight=-1"),
        Case("hard negatives without draws", f"{_TRAIN} --set training.negatives.hard_share=0.5"),
        Case(
            "hard negatives without modalities",
            f"{_TRAIN} --set training.negatives.draws=8 --set training.negatives.hard_share=0.5 "
            "--set model.mdsrec.modalities=[]",
        ),
        Case(
            "no candidates",
            f"{_TRAIN} --set training.negatives.draws=0 --set training.negatives.in_batch=false",
        ),
        Case("a loss that does not exist", f"{_TRAIN} --set training.loss=bce"),
        Case(
            "gBCE without draws",
            f"{_TRAIN} --set training.loss=gbce --set training.negatives.draws=0",
        ),
        Case(
            "gBCE in contrastive pre-training",
            f"{_TRAIN} --set model.name=msm4sr --set model.msm4sr.objective=contrastive --set training.loss=gbce",
        ),
        Case("a calibration of gBCE above 1", f"{_TRAIN} --set training.gbce_calibration=1.5"),
        Case("sampled centres with a full softmax", f"{_TRAIN} --set model.mdsrec.center_samples=4"),
        Case("a negative weight of a modality", f"{_TRAIN} --set model.mdsrec.rho.text=-1"),
        Case("a weight of a modality that is NaN", f"{_TRAIN} --set model.mdsrec.rho.text=.nan"),
    ),
)

STARTS = Group(
    "jobs/train.py: starting from another run, and frozen weights",
    (
        Case("the run to start from is a dataset", f"{_SASREC} --set training.start_from={{here}}/dataset"),
        Case("the run to start from was not validated", _START, json_field(_INDEX, "best", value=None)),
        Case("the run to start from has no checkpoint", _START, remove("run/checkpoints")),
        Case("the run to start from has a damaged progress record", _START, write(_PROGRESS, "[1]")),
        Case("the run to start from has a shard with one bit changed", _START, flip(_SHARD, 0.9)),
        Case("the run to start from has another width", f"{_START} --set model.dim=16"),
        Case("the run to start from has other positions", f"{_START} --set model.max_length=9"),
        Case("the run to start from has another dataset", _START.replace("{here}/dataset", "{here}/other")),
        Case(
            "the run to start from has no weight of this model",
            f"{_START.replace('model.name=sasrec', 'model.name=gru4rec')} --set training.leave_out=[table.*]",
        ),
        Case("a pattern of weights to leave out that matches none", f"{_START} --set training.leave_out=[towers.*]"),
        Case("a pattern of weights to freeze that matches none", f"{_SASREC} --set training.freeze=[encoder.*]"),
        Case(
            "a module of the other run that it does not have",
            f"{_START} --set 'training.rename={{{{recommender.encoder: recommender.tower}}}}'",
        ),
        Case(
            "a module to load that this model does not have",
            f"{_START} --set 'training.rename={{{{recommender.tower: recommender.encoder}}}}'",
        ),
        Case(
            "modules to rename without another run",
            f"{_SASREC} --set 'training.rename={{{{recommender.tower: recommender.encoder}}}}'",
        ),
        Case("all weights are frozen", f"{_SASREC} --set 'training.freeze=[\"*\"]'"),
        Case("another start for a run that was begun", f"{_CONTINUE} --set training.start_from={{here}}/run"),
    ),
)

INPUTS = Group(
    "jobs/train.py: datasets, graphs, run folders and clusters",
    (
        Case("no dataset", "train --set run={here}/new"),
        Case("no graph for mdsrec", "train --set dataset={here}/dataset --set run={here}/new"),
        Case(
            "no graph for co-occurrence",
            "train --set dataset={here}/dataset --set run={here}/new --set model.name=sasrec "
            "--set evaluation.cooccurrence_weight=1",
        ),
        Case("no run folder", "train --set dataset={here}/dataset --set model.name=popularity"),
        Case("a dataset that is not there", _TRAIN, remove("dataset")),
        Case("the graph of another dataset", _TRAIN.replace("{here}/dataset", "{here}/other")),
        Case("a graph with other parameters", f"{_TRAIN} --set graph_options.num_centers=5"),
        Case("a modality that the graph lacks", f"{_TRAIN} --set model.mdsrec.modalities=[sound]"),
        Case("a graph with one bit changed", _TRAIN, flip("graph/neighbors/text.scores.npy", 0.9)),
        Case("a dataset with one bit changed", _SASREC, flip("dataset/sequences.arrow", 0.4)),
        Case("features that became NaN", _TRAIN, put("dataset/features/text.npy", (7, 3), np.nan)),
        Case(
            "an optimiser that the table does not have",
            f"{_SASREC} --set table.sharding=row_wise --set table.optimizer=adam",
        ),
        Case("the run is a file", _SASREC.replace("/new", "/text.npy")),
        Case("the run is a dataset", _SASREC.replace("/new", "/other")),
        Case("the run is a whole bucket", _SASREC.replace("{here}/new", "s3://bucket")),
        Case("the run was begun with another width", f"{_CONTINUE} --set model.dim=16"),
        Case("a run whose config is cut off", _CONTINUE, write("run/config.yaml", "model: {dim")),
        Case("a run of another dataset", _CONTINUE.replace("/dataset", "/other")),
        Case("a run whose index of checkpoints is cut off", _CONTINUE, cut(_INDEX, 0.5)),
        Case("a cluster address that is no address", f"{_SASREC} --set cluster.address=nonsense"),
        Case("an address of Ray's dashboard", f"{_SASREC} --set cluster.address=http://127.0.0.1:8265"),
        Case("a cluster that does not answer", f"{_SASREC} --set cluster.address=127.0.0.1:1"),
        Case("a Ray Client server that does not answer", f"{_SASREC} --set cluster.address=ray://127.0.0.1:1"),
        Case("a cluster at a port that cannot be", f"{_SASREC} --set cluster.address=127.0.0.1:99999"),
        Case("a cluster at a name that cannot be", f"{_SASREC} --set cluster.address=head..node:6379"),
        Case("RAY_ADDRESS does not answer", _SASREC, environment=(("RAY_ADDRESS", "127.0.0.1:1"),)),
        Case("RAY_ADDRESS is no address", _SASREC, environment=(("RAY_ADDRESS", "nonsense"),)),
        Case("RAY_ADDRESS is Ray's dashboard", _SASREC, environment=(("RAY_ADDRESS", "http://127.0.0.1:8265"),)),
        Case("no workers", f"{_SASREC} --set cluster.num_workers=0"),
        Case(
            "a relative path in a submitted job",
            _SASREC.replace("{here}/new", "runs/new"),
            environment=(("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"),),
        ),
    ),
)

_EVALUATE = "evaluate --run {here}/run"
_RECOMMEND = "recommend --run {here}/run --output {here}/recs.parquet"
_BATCH = "recommend --run {here}/run --output {here}/lists --set cluster.num_workers=1"
_LISTS = f"{_BATCH} --histories {{here}}/lists.parquet"
_TABLE_OF_ONE = table("lists.parquet", user=["a"], history=[["i1"]])
RUNS = Group(
    "jobs/evaluate.py: runs and checkpoints",
    (
        Case("no such run", _EVALUATE, remove("run")),
        Case("a dataset for a run", _EVALUATE.replace("/run", "/dataset")),
        Case("a run that never began", _EVALUATE, remove("run/checkpoints")),
        Case("a run's config with an unknown knob", _EVALUATE, replace("run/config.yaml", "seed:", "sead:")),
        Case("a knob that the run has fixed", f"{_EVALUATE} --set model.dim=16"),
        Case("a knob below a list", f"{_EVALUATE} --set evaluation.ks.a=1"),
        Case("a checkpoint that is not there", f"{_EVALUATE} --checkpoint 7"),
        Case("a checkpoint that is a word", f"{_EVALUATE} --checkpoint newest"),
        Case("a checkpoint that is a path", f"{_EVALUATE} --checkpoint ../../other"),
        Case("the index of checkpoints is cut off", _EVALUATE, cut(_INDEX, 0.5)),
        Case("the index of checkpoints is a list", _EVALUATE, write(_INDEX, "[]")),
        Case("the index of checkpoints is nested too deeply", _EVALUATE, write(_INDEX, "[" * 100_000)),
        Case("the index of checkpoints names no checkpoint", _EVALUATE, write(_INDEX, "{}")),
        Case("the index holds a path for a step", _EVALUATE, json_field(_INDEX, "best", value="../../other")),
        Case("the index holds a number as text", _EVALUATE, json_field(_INDEX, "best", value="1")),
        Case("the index holds a fraction as a step", _EVALUATE, json_field(_INDEX, "best", value=1.5)),
        Case("the index holds a step below zero", _EVALUATE, json_field(_INDEX, "best", value=-1)),
        Case("the index holds a step of 400 digits", _EVALUATE, json_field(_INDEX, "best", value=10**400)),
        Case("the index is of a run that was not validated", _EVALUATE, json_field(_INDEX, "best", value=None)),
        Case("the index names a checkpoint that is gone", _EVALUATE, json_field(_INDEX, "best", value=7)),
        Case("the index is a folder", _EVALUATE, folder(_INDEX)),
        Case("a checkpoint of 5,000 digits", f"{_EVALUATE} --checkpoint {'7' * 5000}"),
        Case("a checkpoint in digits of another script", f"{_EVALUATE} --checkpoint \u0661"),
        Case("progress is cut off", _EVALUATE, write(_PROGRESS, '{"step": 1, "epo')),
        Case("progress is missing", _EVALUATE, remove(_PROGRESS)),
        Case("progress is not text", _EVALUATE, write(_PROGRESS, b"\xff\xfe{}")),
        Case("progress is a list", _EVALUATE, write(_PROGRESS, "[1]")),
        Case("progress is empty", _EVALUATE, write(_PROGRESS, "{}")),
        Case("progress is of another step", _EVALUATE, json_field(_PROGRESS, "step", value=2)),
        Case("progress holds text for a step", _EVALUATE, json_field(_PROGRESS, "step", value="1")),
        Case("progress holds text for fingerprints", _EVALUATE, json_field(_PROGRESS, "fingerprints", value="x")),
        Case("progress holds numbers for checksums", _EVALUATE, json_field(_PROGRESS, "files", value={"a": 1})),
        Case("a shard is cut off", _EVALUATE, cut(_SHARD, 0.6)),
        Case("a shard with one bit changed", _EVALUATE, flip(_SHARD, 0.9)),
        Case("a shard is missing", _EVALUATE, remove(_SHARD)),
        Case("a shard of another checkpoint", _EVALUATE, copy("text.npy", over=_SHARD)),
        Case("a checkpoint of a wider model", _EVALUATE, replace("run/config.yaml", "  dim: 8", "  dim: 16")),
        Case("a checkpoint of a deeper model", _EVALUATE, replace("run/config.yaml", "num_layers: 2", "num_layers: 3")),
        Case("a dataset that was moved", _EVALUATE, move("dataset", "elsewhere")),
        Case("a dataset that was replaced", f"{_EVALUATE} --set dataset={{here}}/other"),
        Case("a dataset with one bit changed since", _EVALUATE, flip("dataset/sequences.arrow", 0.4)),
    ),
)

RECOMMENDATIONS = Group(
    "jobs/recommend.py",
    (
        Case("a list of zero items", f"{_RECOMMEND} --k 0"),
        Case("a run that is a file", _RECOMMEND.replace("/run ", "/text.npy ")),
        Case("a recommendation's dataset with one bit changed", _RECOMMEND, flip("dataset/sequences.arrow", 0.4)),
        Case("a recommendation's shard with one bit changed", _RECOMMEND, flip(_SHARD, 0.9)),
        Case("a recommendation's progress is a list", _RECOMMEND, write(_PROGRESS, "[1]")),
        Case("the output is there", _RECOMMEND, table("recs.parquet", user=["u1"], rank=[1], item=["i1"], score=[0.5])),
        Case("an output of something else", f"{_RECOMMEND.replace('recs.parquet', 'raw.parquet')} --overwrite"),
        Case("an output that is a folder", f"{_RECOMMEND} --overwrite", folder("recs.parquet")),
        Case("recommendations under the name of a CSV file", _RECOMMEND.replace("recs.parquet", "recs.csv")),
        Case("recommendations under a name without a suffix", _RECOMMEND.replace("recs.parquet", "recs")),
        Case("an output in no folder", _RECOMMEND.replace("recs.parquet", "none/recs.parquet")),
        Case("an output in a file", _RECOMMEND.replace("recs.parquet", "text.npy/recs.parquet")),
        Case("an output that is a URI", _RECOMMEND.replace("{here}/recs.parquet", "s3://bucket/recs.parquet")),
        Case("a table of histories that is not there", f"{_BATCH} --histories {{here}}/none.parquet"),
        Case("a table of histories that is CSV", f"{_BATCH} --histories {{here}}/raw.csv"),
        Case("a table of something else", f"{_BATCH} --histories {{here}}/raw.parquet"),
        Case("a history that is text", _LISTS, table("lists.parquet", user=["a"], history=["i1"])),
        Case("a history that is missing", _LISTS, table("lists.parquet", user=["a", "b"], history=[["i1"], None])),
        Case("an unknown item", f"{_LISTS} --on-unknown error", table("lists.parquet", user=["a"], history=[["no"]])),
        Case("lists into a folder of something else", _LISTS.replace("/lists ", "/dataset "), _TABLE_OF_ONE),
        Case("lists into no folder", _LISTS.replace("/lists ", "/none/lists "), _TABLE_OF_ONE),
    ),
)

_VECTORS = "export --run {here}/run --what items --output {here}/v.parquet"
_MODEL = "export --run {here}/run --what model --output {here}/model"
EXPORTS = Group(
    "jobs/export.py: runs",
    (
        Case("neither a graph nor a run", "export --what items --output {here}/v.parquet"),
        Case("a graph and a run", f"{_VECTORS} --graph {{here}}/graph"),
        Case("no such run to export", _VECTORS, remove("run")),
        Case("an unknown part of a run", _VECTORS.replace("items", "towers")),
        Case("vectors in a graph's format", f"{_VECTORS} --to edge_index"),
        Case(
            "a graph in a run's format",
            "export --graph {here}/graph --what cooccurrence --to npy --output {here}/o.npy",
        ),
        Case("vectors under a suffix of no format", _VECTORS.replace("v.parquet", "v.csv")),
        Case("vectors under another format's suffix", f"{_VECTORS} --to npy"),
        Case("an exported run's shard with one bit changed", _VECTORS, flip(_SHARD, 0.9)),
        Case("vectors over something else", f"{_VECTORS.replace('v.parquet', 'raw.parquet')} --overwrite"),
        Case("vectors that are there", _VECTORS, table("v.parquet", item=["i1"], vector=[[0.5]])),
        Case("an array without its ids", f"{_VECTORS.replace('v.parquet', 'text.npy')} --overwrite"),
        Case("a model over something else", f"{_MODEL.replace('/model', '/dataset')} --overwrite"),
        Case("a model in no folder", _MODEL.replace("/model", "/none/model")),
    ),
)

_INDEX = "build_index --run {here}/run --output {here}/index"
INDEXES = Group(
    "jobs/build_index.py",
    (
        Case("no such run to index", _INDEX, remove("run")),
        Case("an unknown kind", f"{_INDEX} --kind tree"),
        Case("an option of another kind", f"{_INDEX} --links 8"),
        Case("too few links", f"{_INDEX} --kind hnsw --links 1"),
        Case("an index in no folder", _INDEX.replace("/index", "/none/index")),
        Case("an index over a dataset", _INDEX.replace("/index", "/dataset")),
        Case("an index over a file", _INDEX.replace("/index", "/text.npy")),
        Case("an indexed run's shard with one bit changed", _INDEX, flip(_SHARD, 0.9)),
    ),
)

_PAGE = "page.html"
_EARLIER_PAGE = f"<!DOCTYPE html>{element('meta', name='generator', content=GENERATOR)}"
_CASES = f"case_study --run {{here}}/run --output {{here}}/{_PAGE}"
CASE_STUDIES = Group(
    "jobs/case_study.py",
    (
        Case("a case page of a folder that is no run", _CASES, remove("run")),
        Case("a page of a run that never began", _CASES, remove("run/checkpoints")),
        Case("a page of a checkpoint that is not there", f"{_CASES} --checkpoint 7"),
        Case("a page of a dataset with one bit changed", _CASES, flip("dataset/sequences.arrow", 0.4)),
        Case("a page of a shard with one bit changed", _CASES, flip(_SHARD, 0.9)),
        Case("a page of a negative seed", f"{_CASES} --seed -1"),
        Case("items of a model without a graph", f"{_CASES} --items i3"),
        Case("a user that is not there", f"{_CASES} --users u3,u12x"),
        Case("an empty name of a user", f"{_CASES} --users u3,,u4"),
        Case("more users than a page holds", f"{_CASES} --users {','.join(f'u{n}' for n in range(51))}"),
        Case("the page is there", _CASES, write(_PAGE, _EARLIER_PAGE)),
        Case("a page over something else", f"{_CASES} --overwrite", write(_PAGE, "mine")),
        Case("a page over a folder", f"{_CASES} --overwrite", folder(_PAGE)),
        Case("a page under the name of another format", _CASES.replace(_PAGE, "page.pdf")),
        Case("a page over a link", f"{_CASES} --overwrite", link(_PAGE, to="raw.csv")),
        Case("a page in no folder", _CASES.replace(_PAGE, f"none/{_PAGE}")),
        Case("a page at a URI", _CASES.replace("{here}/page.html", "s3://bucket/page.html")),
    ),
)

DEMO = Group("jobs/demo.py", (Case("the demo's folder holds other files", "demo --output {here}"),))

LISTINGS = Group(
    "jobs/knobs.py and jobs/config.py",
    (
        Case("a misspelt knob", "knobs mask_histroy"),
        Case("a word that is in no knob", "knobs xyzzyx"),
        Case("settings of a folder that is no run", "config {here}/dataset"),
        Case("settings of a run whose config is no YAML", "config {here}/run", write("run/config.yaml", "model: [\n")),
    ),
)

GROUPS = (CONFIGS, STARTS, INPUTS, RUNS, RECOMMENDATIONS, EXPORTS, INDEXES, CASE_STUDIES, DEMO, LISTINGS)
