"""Builds the model that `model.name` names, and the loss that `training.loss` names."""

from __future__ import annotations

from collections.abc import Callable

from configs.model_options import own_knobs
from configs.schema import ModelConfig, TrainingConfig
from configs.systems.fdsa import FDSAConfig
from configs.systems.gru4rec import GRU4RecConfig
from configs.systems.msm4sr import MSM4SRConfig
from model.bert4rec import BERT4Rec
from model.blocks.criterion import Criterion, CrossEntropy
from model.blocks.gbce import GBCE
from model.fdsa import FDSA
from model.gru4rec import GRU4Rec
from model.gru4recf import GRU4RecF
from model.mdsrec import MDSRec
from model.missrec import MISSRec
from model.mmmlp import MMMLP
from model.msm4sr import MSM4SR
from model.popularity import Popularity
from model.protocol import CatalogueInfo
from model.recommender import Recommender
from model.sasrec import SASRec
from model.sasrecf import SASRecF
from model.unisrec import UniSRec

# ItemKNN's scores are co-occurrence alone. Ranking adds it to the scores of any system, here to scores of zero
# (`distributed/inference/score_gains.py`).
MODELS: dict[str, Callable[[ModelConfig, CatalogueInfo], Recommender]] = {
    "mdsrec": MDSRec,
    "sasrec": lambda config, _: SASRec(config),
    "sasrecf": SASRecF,
    "gru4rec": lambda config, _: GRU4Rec(config, own_knobs(config, GRU4RecConfig)),
    "gru4recf": lambda config, info: GRU4RecF(config, info, own_knobs(config, GRU4RecConfig)),
    "bert4rec": BERT4Rec,
    "fdsa": lambda config, info: FDSA(config, info, own_knobs(config, FDSAConfig)),
    "unisrec": UniSRec,
    "missrec": MISSRec,
    "mmmlp": MMMLP,
    "msm4sr": lambda config, info: MSM4SR(config, info, own_knobs(config, MSM4SRConfig)),
    "itemknn": lambda *_: Popularity(weight=0.0),
    "popularity": lambda *_: Popularity(weight=1.0),
}


def build_model(config: ModelConfig, info: CatalogueInfo) -> Recommender:
    """Return the recommender that a config names, with initial weights.

    Raises:
        InputError: the model needs something that the catalogue lacks.
    """
    recommender = MODELS[config.name](config, info)
    if config.learn_repeats:
        recommender.learn_repeats()
    return recommender


def build_criterion(config: TrainingConfig, num_items: int) -> Criterion:
    """Return the loss that a config names, if `num_items` items can be candidates."""
    if config.loss == "gbce":
        return GBCE(
            num_items=num_items,
            draws=config.negatives.draws,
            calibration=config.gbce_calibration,
            prior_offset=config.gbce_prior_offset,
        )
    return CrossEntropy(use_kernel=config.softmax_kernel == "auto")
