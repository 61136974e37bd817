"""From `model.name` to a model."""

from __future__ import annotations

from configs.schema import ModelConfig
from model.mdsrec import MDSRec
from model.popularity import Popularity
from model.protocol import CatalogueInfo
from model.recommender import Recommender
from model.sasrec import SASRec
from model.sasrecf import SASRecF


def build_model(config: ModelConfig, info: CatalogueInfo) -> Recommender:
    """The recommender that a config names, with fresh weights; its `needs` say what to load for it.

    Raises:
        InputError: the config asks for something that the catalogue lacks.
    """
    recommender = _build(config, info)
    if config.learn_repeats:
        recommender.learn_repeats()
    return recommender


def _build(config: ModelConfig, info: CatalogueInfo) -> Recommender:
    if config.name == "mdsrec":
        return MDSRec(config, info)
    if config.name == "sasrec":
        return SASRec(config)
    if config.name == "sasrecf":
        return SASRecF(config, info)
    return Popularity(weight=0.0 if config.name == "itemknn" else 1.0)
