"""MISSRec (Wang et al., ACM MM 2023), trained to predict the next item, or pre-trained to contrast a batch's targets.

Before each epoch, the adapted features of all items are clustered; the centres are the *interests*. An encoder reads
the interests of the items in the input, each once. A decoder reads the items themselves and attends to the encoded
interests. The decoder is not causal, so each state sees the whole input, and the model trains prefix rows only.

The user's vector has a cosine with each of an item's vectors: its ID row and its adapted features. `DynamicFusion`
makes one score of them.

Pre-training (`objective: contrastive`) has no item IDs. Beside the next item, the state of an input should find that of
a changed copy, which lacks some items, or in which words of some items' texts were dropped.

Shapes: S sequences of a group, L positions, T = M L interests of a sequence, R items with a role, M features, K
interests, d width of a row, d_m of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.model_options import ModelConfig, own_knobs
from configs.systems.missrec import MISSRecConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.augmentation import random_positions, without_items
from model.blocks.clustering import minibatch_kmeans
from model.blocks.contrastive import contrastive_loss, fused_contrastive_loss
from model.blocks.density_peaks import density_peaks
from model.blocks.feature_maps import chosen_features, numbered
from model.blocks.interest_transformer import InterestDecoder, InterestEncoder, initialise_attention
from model.blocks.score_fusion import DynamicFusion
from model.blocks.sequence_encoder import NORM_EPS, initialise
from model.blocks.sequence_groups import Sequences, at_targets, in_groups, read_groups
from model.blocks.unit_vectors import unit_vectors
from model.cpu.dropout import dropout
from model.protocol import CatalogueFeatures, CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender

Memory = tuple[Tensor, Tensor]  # encoded interests [S, T, d], and which of them are real, bool [S, T]

_BLOCK = 16384  # items whose features are read at a time


class MISSRec(Recommender):
    """An encoder of interests and a decoder of items, over adapted features with or without ID rows.

    Attributes:
        interests: [K + 1, d], the centres of the present epoch. Row 0 is zero; it stands for no interest.
        interest_of: int32 [N, M], the interest of each item in each feature, 1..K; 0 for an item without the feature.
        draw_dropped: chooses, from a group and a share, the positions that a changed copy lacks or has with words
            dropped, bool [S, L]. Tests replace it.
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
        self.contrasts = knobs.objective == "contrastive"
        self.names = chosen_features(info, "missrec", knobs.features, at_least_one=True)
        with_dropped_words = _checked_words(knobs, self.names, info) if self.contrasts else ()
        self.needs = ItemNeeds(id_rows=knobs.use_ids, features=(*self.names, *with_dropped_words))
        of_features = [Channel(m, 1.0, is_modality=True, cosine_temperature=knobs.temperature) for m in self.names]
        of_ids = [Channel("id", 1.0, cosine_temperature=knobs.temperature)] if knobs.use_ids else []
        self.channels = (*of_ids, *of_features)
        self.fusion = DynamicFusion(temperature=knobs.temperature, with_ids=knobs.use_ids)
        self.adaptors = nn.ModuleList(nn.Linear(info.feature_dims[name], config.dim) for name in self.names)
        self.module_features = numbered("adaptors", self.names)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.input_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.encoder, self.decoder = InterestEncoder(config), InterestDecoder(config)
        self.draw_dropped: Callable[[Sequences, float], Tensor] = random_positions
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
            return [self._state(group, rows[0], next(memories))]

        def inputs() -> list[Tensor]:
            return [cast(Tensor, sum(self._adapted(items), items.ids if items.ids is not None else 0.0))]

        return in_groups(batch, items.per_item("inputs", inputs), states) * len(self.channels)

    def _state(self, group: Sequences, inputs_SLd: Tensor, memory: Memory) -> Tensor:
        """Return the state at the last item of each sequence, [S, 1, d]."""
        inputs_SLd = self.input_norm(inputs_SLd + self.positions.weight[: group.length])
        state: Tensor = self.decoder(dropout(inputs_SLd, self.rate, self.training), group, *memory)
        return state

    @property
    def loss_labels(self) -> tuple[str, ...]:
        return ("item", "sequence") if self.contrasts else super().loss_labels

    def contrastive_losses(self, items: ItemRows, batch: Batch, target_ids: Tensor) -> list[tuple[float, Tensor]]:
        """Return the losses of a state that should find its target, and of one that should find the changed copy's."""
        users = self.scored_users(items, batch)
        own = [F.embedding(batch.targets, vectors) for vectors in self.scored_items(items)]
        ids = target_ids, self.gather(target_ids)
        assert self.fusion is not None
        of_items = fused_contrastive_loss(self.fusion, users, own, [self.gather(vectors) for vectors in own], *ids)
        copies = unit_vectors(self._changed_copies(items, batch)[0])
        of_sequences = contrastive_loss([(users[0], copies)], [(users[0], self.gather(copies))], *ids)
        return [(1.0, of_items), (self.knobs.sequence_weight, of_sequences)]

    def _changed_copies(self, items: ItemRows, batch: Batch) -> tuple[Tensor, list[Memory]]:
        """Return the states of changed copies of the inputs, [B, d], and their encoded interests for each group.

        All copies of a step have the same kind of change.
        """

        def compute() -> tuple[Tensor, list[Memory]]:
            adapted = self._adapted(items)
            streams = [cast(Tensor, sum(adapted)), self.interest_of[items.item_ids].long()]
            drops_words = self.training and bool(torch.rand(()) < self.knobs.word_drop_share)  # on the CPU: no waiting
            if drops_words:
                of_words = self.names.index(self.knobs.words_of)
                streams.append(streams[0] - adapted[of_words] + self._with_dropped_words(items, of_words))
            states, memories = [], []
            for group, (inputs, of_positions, *without_words) in read_groups(batch, streams):
                if self.training:
                    changed_SL = self.draw_dropped(group, self.knobs.item_dropout)
                    if drops_words:
                        inputs = torch.where(changed_SL[:, :, None], without_words[0], inputs)
                    else:
                        group, (inputs, of_positions) = without_items(group, [inputs, of_positions], changed_SL)
                memories.append(self._memory(group, of_positions))
                states.append([self._state(group, inputs, memories[-1])])
            return at_targets(batch, states)[0], memories

        return items.derived("changed copies", compute)

    def _with_dropped_words(self, items: ItemRows, number: int) -> Tensor:
        """Return adapted vectors of texts from which words were dropped, or of vectors with dropout, [R, d]."""
        raw = items.features[self.knobs.word_drop_modality or self.names[number]].to(self.interests.dtype)
        if self.knobs.word_drop_modality is None:
            raw = dropout(raw, self.knobs.word_dropout, self.training)
        return self._adapted_feature(number, raw)

    def penalty(self, items: ItemRows, batch: Batch) -> Tensor | float:
        """Return gamma / d * sum_s |mean of the encoded interests of sequence s|^2, over inputs and changed copies."""
        total = torch.zeros((), device=self.interests.device, dtype=self.interests.dtype)
        copies = self._changed_copies(items, batch)[1] if self.contrasts else []
        for memory_STd, is_interest_ST in (*self._memories(items, batch), *copies):
            weights_ST1 = is_interest_ST[:, :, None] / is_interest_ST.sum(dim=1)[:, None, None]
            means_Sd = (memory_STd * weights_ST1).sum(dim=1)
            total = total + (means_Sd * means_Sd).sum() / means_Sd.shape[1]
        return self.knobs.diversity_weight * total

    def _memories(self, items: ItemRows, batch: Batch) -> list[Memory]:
        """Return the encoded interests of each group."""
        return items.derived("memories", lambda: self._encoded(items, batch))

    def _encoded(self, items: ItemRows, batch: Batch) -> list[Memory]:
        of_items_RM = self.interest_of[items.item_ids].long()
        return [self._memory(group, of_positions) for group, (of_positions,) in read_groups(batch, [of_items_RM])]

    def _memory(self, group: Sequences, of_positions_SLM: Tensor) -> Memory:
        """Return the encoded interests of a group's sequences, given the interests of their items, int64."""
        of_sequence_ST = (of_positions_SLM * group.is_item()[:, :, None]).flatten(1)
        # Each interest counts once: after sorting, an interest that equals the one before it is left out.
        of_sequence_ST = of_sequence_ST.sort(dim=1).values
        is_new_ST = F.pad(of_sequence_ST[:, 1:] != of_sequence_ST[:, :-1], (1, 0), value=True)
        is_interest_ST = is_new_ST & (of_sequence_ST > 0)
        # A sequence without any interest has one that is zero, because attention needs a key.
        is_interest_ST[:, 0] |= ~is_interest_ST.any(dim=1)
        return self.encoder(self.interests[of_sequence_ST], is_interest_ST), is_interest_ST

    def _adapted(self, items: ItemRows) -> list[Tensor]:
        """Return the adapted features of the items, [R, d] each."""

        def compute() -> list[Tensor]:
            raw = [items.features[name].to(self.interests.dtype) for name in self.names]
            return [self._adapted_feature(number, x) for number, x in enumerate(raw)]

        return items.per_item("adapted", compute)

    def _adapted_feature(self, number: int, raw: Tensor) -> Tensor:
        adapted: Tensor = self.adaptors[number](raw)
        return adapted * self._present(raw)[:, None].to(raw.dtype)

    def _present(self, raw: Tensor) -> Tensor:
        """Return which rows [n, d_m] count as features, bool [n]."""
        if self.knobs.missing_features == "bias":
            return torch.ones(len(raw), dtype=torch.bool, device=raw.device)
        return (raw != 0).any(dim=1)


def _checked_words(knobs: MISSRecConfig, names: tuple[str, ...], info: CatalogueInfo) -> tuple[str, ...]:
    """Return the feature with dropped words, which is read beside the others; none if dropout stands for it.

    Raises:
        InputError: the feature whose words are dropped is not read, or the catalogue has no such vectors of its width.
    """
    if not knobs.word_drop_share:
        return ()
    if knobs.words_of not in names:
        raise InputError(
            f"model.missrec.words_of={knobs.words_of}: is none of the features that are read ({', '.join(names)}); "
            "name the one that stands for texts, or set model.missrec.word_drop_share to 0"
        )
    name, width = knobs.word_drop_modality, info.feature_dims[knobs.words_of]
    if name is None:
        return ()
    if info.feature_dims.get(name) != width or name in names:
        raise InputError(
            f"model.missrec.word_drop_modality={name}: must be a feature of the dataset with vectors of {width} "
            f"numbers, as {knobs.words_of} has, and not among model.missrec.features; prepare the dataset with one, or "
            "leave word_drop_modality unset"
        )
    return (name,)
