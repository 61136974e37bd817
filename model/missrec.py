"""MISSRec (Wang et al., ACM MM 2023), trained from scratch on one dataset by predicting the next item.

Before each epoch, the adapted features of all items are clustered; the centres are the *interests*. An encoder reads
the interests of the items in the input, each once. A decoder reads the items themselves and attends to the encoded
interests. The decoder is not causal, so each state sees the whole input, and the model trains prefix rows only.

The user's vector has a cosine with each of an item's vectors: its ID row and its adapted features. `DynamicFusion`
makes one score of them.

Shapes: S sequences of a group, L positions, T = M L interests of a sequence, R items with a role, M features, K
interests, d width of a row, d_m of a feature.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.model_options import ModelConfig, own_knobs
from configs.systems.missrec import MISSRecConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.clustering import minibatch_kmeans
from model.blocks.density_peaks import density_peaks
from model.blocks.feature_maps import chosen_features
from model.blocks.interest_transformer import InterestDecoder, InterestEncoder, initialise_attention
from model.blocks.score_fusion import DynamicFusion
from model.blocks.sequence_encoder import NORM_EPS, initialise
from model.blocks.sequence_groups import Sequences, in_groups, read_groups
from model.cpu.dropout import dropout
from model.protocol import CatalogueFeatures, CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender

_BLOCK = 16384  # items whose features are read at a time


class MISSRec(Recommender):
    """An encoder of interests and a decoder of items, over adapted features with or without ID rows.

    Attributes:
        interests: [K + 1, d], the centres of the present epoch. Row 0 is zero; it stands for no interest.
        interest_of: int32 [N, M], the interest of each item in each feature, 1..K; 0 for an item without the feature.
    """

    interests: Tensor
    interest_of: Tensor
    epoch_buffers = ("interests", "interest_of")

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue does not have a named feature, or none at all; or the layers cannot be halved.
        """
        super().__init__()
        knobs = own_knobs(config, MISSRecConfig)
        if config.num_layers % 2:
            raise InputError(
                f"model.num_layers={config.num_layers}: missrec has as many encoder layers as decoder layers, so "
                "num_layers must be even; set it to 2"
            )
        self.knobs, self.rate = knobs, config.dropout
        self.names = chosen_features(info, "missrec", knobs.features, at_least_one=True)
        self.needs = ItemNeeds(id_rows=knobs.use_ids, features=self.names)
        of_features = [Channel(m, 1.0, is_modality=True, cosine_temperature=knobs.temperature) for m in self.names]
        of_ids = [Channel("id", 1.0, cosine_temperature=knobs.temperature)] if knobs.use_ids else []
        self.channels = (*of_ids, *of_features)
        self.fusion = DynamicFusion(temperature=knobs.temperature, with_ids=knobs.use_ids)
        self.adaptors = nn.ModuleList(nn.Linear(info.feature_dims[name], config.dim) for name in self.names)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.input_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.encoder, self.decoder = InterestEncoder(config), InterestDecoder(config)
        initialise(self, config.init_std)
        initialise_attention(self)
        num_features = info.num_items * len(self.names)
        self.num_interests = min(math.ceil(knobs.interest_ratio * num_features), knobs.max_interests)
        self.register_buffer("interests", torch.zeros(self.num_interests + 1, config.dim))
        self.register_buffer("interest_of", torch.zeros(info.num_items, len(self.names), dtype=torch.int32))

    def begin_epoch(self, catalogue: CatalogueFeatures) -> None:
        """Find the interests: cluster the adapted features of all items, whatever the feature."""
        points, places = self._points(catalogue)
        self.interests.zero_()
        self.interest_of.zero_()
        if len(points):
            centers, nearest = self._clustered(points, min(self.num_interests, len(points)))
            self.interests[1 : 1 + len(centers)] = centers
            self.interest_of.view(-1)[places] = nearest.to(torch.int32) + 1

    def _points(self, catalogue: CatalogueFeatures) -> tuple[Tensor, Tensor]:
        """Return the adapted features of all items [n, d], and the place of each in `interest_of`, int64 [n].

        All of them are in memory at once, on rank 0: 4 M d bytes for each item.
        """
        room = catalogue.num_items * len(self.names)
        points = self.interests.new_empty(room, self.interests.shape[1])
        places = torch.empty(room, dtype=torch.int64, device=points.device)
        count = 0
        for start in range(0, catalogue.num_items, _BLOCK):
            stop = min(start + _BLOCK, catalogue.num_items)
            for column, name in enumerate(self.names):
                raw = catalogue.rows(name, start, stop).to(points.dtype)
                rows = self._present(raw).nonzero()[:, 0]
                found = slice(count, count + len(rows))
                points[found] = self.adaptors[column](raw[rows])
                places[found] = (start + rows) * len(self.names) + column
                count += len(rows)
        return points[:count], places[:count]

    def _clustered(self, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        if self.knobs.clustering == "kmeans":
            return minibatch_kmeans(points, count, self.knobs.clustering_steps)
        return density_peaks(points, count, math.ceil(self.knobs.neighbor_ratio * len(points)))

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Return the vectors that the user's vector is compared with: the ID rows, then each adapted feature."""
        return [*([items.ids] if items.ids is not None else []), *self._adapted(items)]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        memories = iter(self._memories(items, batch))

        def states(group: Sequences, rows: list[Tensor]) -> list[Tensor]:
            inputs = self.input_norm(rows[0] + self.positions.weight[: group.length])
            return [self.decoder(dropout(inputs, self.rate, self.training), group, *next(memories))]

        def inputs() -> list[Tensor]:
            return [cast(Tensor, sum(self._adapted(items), items.ids if items.ids is not None else 0.0))]

        return in_groups(batch, items.per_item("inputs", inputs), states) * len(self.channels)

    def penalty(self, items: ItemRows, batch: Batch) -> Tensor | float:
        """Return gamma / d * sum_s |mean of the encoded interests of sequence s|^2."""
        total = torch.zeros((), device=self.interests.device, dtype=self.interests.dtype)
        for memory_STd, is_interest_ST in self._memories(items, batch):
            weights_ST1 = is_interest_ST[:, :, None] / is_interest_ST.sum(dim=1)[:, None, None]
            means_Sd = (memory_STd * weights_ST1).sum(dim=1)
            total = total + (means_Sd * means_Sd).sum() / means_Sd.shape[1]
        return self.knobs.diversity_weight * total

    def _memories(self, items: ItemRows, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Return for each group the encoded interests [S, T, d], and which of them are real, bool [S, T]."""
        return items.derived("memories", lambda: self._encoded(items, batch))

    def _encoded(self, items: ItemRows, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        of_items_RM = self.interest_of[items.item_ids].long()
        found = []
        for group, (of_positions_SLM,) in read_groups(batch, [of_items_RM]):
            is_item_SL = torch.arange(group.length, device=group.lengths.device) < group.lengths[:, None]
            of_sequence_ST = (of_positions_SLM * is_item_SL[:, :, None]).flatten(1)
            # Each interest counts once: after sorting, an interest that equals the one before it is left out.
            of_sequence_ST = of_sequence_ST.sort(dim=1).values
            is_new_ST = F.pad(of_sequence_ST[:, 1:] != of_sequence_ST[:, :-1], (1, 0), value=True)
            is_interest_ST = is_new_ST & (of_sequence_ST > 0)
            # A sequence without any interest has one that is zero, because attention needs a key.
            is_interest_ST[:, 0] |= ~is_interest_ST.any(dim=1)
            found.append((self.encoder(self.interests[of_sequence_ST], is_interest_ST), is_interest_ST))
        return found

    def _adapted(self, items: ItemRows) -> list[Tensor]:
        """Return the adapted features of the items, [R, d] each."""

        def compute() -> list[Tensor]:
            raw = [items.features[name].to(self.interests.dtype) for name in self.names]
            return [
                adaptor(x) * self._present(x)[:, None].to(x.dtype)
                for adaptor, x in zip(self.adaptors, raw, strict=True)
            ]

        return items.per_item("adapted", compute)

    def _present(self, raw: Tensor) -> Tensor:
        """Return which rows [n, d_m] count as features, bool [n]."""
        if self.knobs.missing_features == "bias":
            return torch.ones(len(raw), dtype=torch.bool, device=raw.device)
        return (raw != 0).any(dim=1)
