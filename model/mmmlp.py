"""MMMLP (Liang et al., WWW 2023): MLP-Mixers over the item IDs and each feature of the input.

Each stream is a matrix of L positions and d columns. A mixer layer mixes its positions, then its columns. The token
mixer has a weight for each pair of positions and no mask, so every state sees the whole input, and the model trains
prefix rows only. Scores are products of the state at the last item with the items' ID rows.

The authors' image stream begins with image patches. Features are ready vectors here, and a linear map to the width d
takes the patches' place.

Shapes: S sequences of a group, L positions, R items with a role, d width of a row, d_m of a feature.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.model_options import ModelConfig, own_knobs
from configs.systems.mmmlp import MMMLPConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.feature_maps import chosen_features, numbered
from model.blocks.sequence_encoder import initialise
from model.blocks.sequence_groups import Sequences, in_groups
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender

_NORM_EPS = 1e-12  # of the LayerNorms outside the mixers; those inside have PyTorch's default, as the authors' do


class MMMLP(Recommender):
    """The streams of mixers, concatenated, normalised and joined by a linear map."""

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue does not have a named feature, or none at all.
        """
        super().__init__()
        knobs = own_knobs(config, MMMLPConfig)
        self.names = chosen_features(info, "mmmlp", knobs.features)
        self.needs = ItemNeeds(id_rows=True, features=self.names)
        self.channels = (Channel("id", 1.0),)
        self.length = config.max_length
        self.projections = nn.ModuleList(
            nn.Linear(info.feature_dims[name], config.dim, bias=False) for name in self.names
        )
        # Of the ID stream and then of each feature's. Passes of a stream share the weights of its mixers.
        self.passes = (config.num_layers, *[knobs.feature_passes] * len(self.names))
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim, eps=_NORM_EPS) for _ in self.passes)
        self.mixers = nn.ModuleList(MixerLayer(config, knobs.expansion) for _ in self.passes)
        self.module_features = numbered("projections", self.names)
        self.module_features |= numbered("norms", self.names, first=1) | numbered("mixers", self.names, first=1)
        joined = len(self.passes) * config.dim
        self.join_norm = nn.LayerNorm(joined, eps=_NORM_EPS)
        self.join = nn.Linear(joined, config.dim)
        initialise(self, config.init_std)  # leaves the token mixers as PyTorch initialises them, as the authors do

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.ids is not None
        ids = items.ids

        def projected() -> list[Tensor]:
            return [
                projection(items.features[name].to(ids.dtype))
                for name, projection in zip(self.names, self.projections, strict=True)
            ]

        streams = [ids, *items.per_item("projected", projected)]
        return in_groups(batch, streams, lambda group, streams: [self._states(group, streams)])

    def _states(self, group: Sequences, streams: list[Tensor]) -> Tensor:
        """Return the state at the last item of each sequence, [S, 1, d]."""
        assert group.num_queries == 1, "each state sees the whole input, so a sequence has one state only"
        last = group.last_items()[:, 0]
        mixed = [self._mixed(number, self._padded(group, stream), last) for number, stream in enumerate(streams)]
        joined = self.join(self.join_norm(torch.cat(mixed, dim=-1)))
        # The authors normalise the user's state by the same LayerNorm as the rows that enter the ID stream.
        state: Tensor = self.norms[0](joined)
        return state

    def _mixed(self, number: int, stream_SLd: Tensor, last_S: Tensor) -> Tensor:
        """Return a stream after its passes, at position `last_S` of each sequence, [S, 1, d].

        Nothing reads the other positions after the last pass, so it computes this one alone.
        """
        mixer = self.mixers[number]
        assert isinstance(mixer, MixerLayer)
        stream_SLd = self.norms[number](stream_SLd)
        for _ in range(self.passes[number] - 1):
            stream_SLd = mixer(stream_SLd)
        return mixer.at(stream_SLd, last_S)

    def _padded(self, group: Sequences, stream_SLd: Tensor) -> Tensor:
        """Return a stream with zeros after each sequence's last item, and with `max_length` positions.

        Token mixers read every position, so padding has a value of its own here: the LayerNorm's bias, after the norm.
        """
        padded = F.pad(stream_SLd, (0, 0, 0, self.length - group.length))
        is_item = torch.arange(self.length, device=padded.device) < group.lengths[:, None]
        return padded.masked_fill(~is_item[:, :, None], 0.0)


class MixerLayer(nn.Module):
    """A token mixer, which mixes the L positions of each column; then a channel mixer, which mixes the d columns."""

    def __init__(self, config: ModelConfig, expansion: int) -> None:
        super().__init__()
        dim, length = config.dim, config.max_length
        self.rate, self.relu = config.dropout, config.activation == "relu"
        over_positions = partial(nn.Conv1d, kernel_size=1)  # a linear map of the second dimension of [S, L, d]
        self.token_norm, self.channel_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_expand = over_positions(length, expansion * length)
        self.token_contract = over_positions(expansion * length, length)
        self.channel_expand = nn.Linear(dim, expansion * dim)
        self.channel_contract = nn.Linear(expansion * dim, dim)

    def forward(self, stream_SLd: Tensor) -> Tensor:
        """Return x' + CHANNEL(LayerNorm(x')) with x' = x + TOKEN(LayerNorm(x)), [S, L, d]."""
        mixed = self.token_contract(self._inner_positions(stream_SLd))
        return self._over_columns(stream_SLd + self._dropped(mixed))

    def at(self, stream_SLd: Tensor, position_S: Tensor) -> Tensor:
        """Return what `forward` returns, at one position of each sequence, [S, 1, d]; dropout draws for it alone."""
        assert self.token_contract.bias is not None
        rows = self.token_contract.weight[:, :, 0].index_select(0, position_S)[:, None]  # [S, 1, expansion * L]
        mixed = rows @ self._inner_positions(stream_SLd)
        mixed = mixed + self.token_contract.bias.index_select(0, position_S)[:, None, None]
        chosen = position_S[:, None, None].expand(-1, 1, stream_SLd.shape[-1])
        return self._over_columns(stream_SLd.gather(1, chosen) + self._dropped(mixed))

    def _inner_positions(self, stream_SLd: Tensor) -> Tensor:
        """Return the inner values of the token mixer, [S, expansion * L, d]."""
        return self._activated(self.token_expand(self.token_norm(stream_SLd)))

    def _over_columns(self, stream: Tensor) -> Tensor:
        inner = self._activated(self.channel_expand(self.channel_norm(stream)))
        return stream + self._dropped(self.channel_contract(inner))

    def _activated(self, inner: Tensor) -> Tensor:
        """Return the inner values of an MLP after its activation and dropout."""
        return self._dropped(F.relu(inner) if self.relu else F.gelu(inner))

    def _dropped(self, values: Tensor) -> Tensor:
        return dropout(values, self.rate, self.training)
