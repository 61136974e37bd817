"""UniSRec (Hou et al., KDD 2022), trained to predict the next item, or pre-trained to contrast the targets of a batch.

An item is the output of an adaptor, a mixture of experts over the item's text vector; in the transductive setting its
ID row is added. A SASRec tower encodes the items of the input. The score is the cosine of its state and the item,
divided by a temperature.

Pre-training (`objective: contrastive`) has no item IDs. Beside the next item, the state of an input should find that of
a changed copy, which lacks some items, or in which words of some items' texts were dropped.

Shapes: S sequences of a group, L positions, R items with a role, G experts, d width of a row, d_m of the feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.model_options import ModelConfig, own_knobs
from configs.systems.unisrec import UniSRecConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.augmentation import random_positions, without_items
from model.blocks.contrastive import contrastive_loss
from model.blocks.experts import mixture
from model.blocks.sequence_encoder import SequenceEncoder, initialise
from model.blocks.sequence_groups import Sequences, in_groups
from model.blocks.unit_vectors import unit_vectors
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender

# What the paper's code adds to the scale of the gate's noise.
_LEAST_SCALE = 1e-2


class UniSRec(Recommender):
    """A causal Transformer over adapted features, with ID rows (transductive) or without any (inductive).

    Attributes:
        draw_dropped: chooses, from a group and a share, the positions that a changed copy lacks or has with words
            dropped, bool [S, L]. Tests replace it by recorded positions.
    """

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue does not have the features that the adaptor reads, or their widths differ.
        """
        super().__init__()
        self.knobs = knobs = own_knobs(config, UniSRecConfig)
        self.contrasts = knobs.objective == "contrastive"
        self.needs = ItemNeeds(id_rows=knobs.use_ids, features=_features_read(knobs, info))
        name = "id" if knobs.use_ids else knobs.modality
        self.channels = (Channel(name, 1.0, is_modality=not knobs.use_ids, cosine_temperature=knobs.temperature),)
        self.adaptor = Adaptor(info.feature_dims[knobs.modality], config.dim, knobs)
        self.module_features = {"adaptor": knobs.modality}
        self.encoder = SequenceEncoder(config)
        self.draw_dropped: Callable[[Sequences, float], Tensor] = random_positions
        initialise(self, config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        return [self._adapted(items)]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        if not self.adaptor.is_noisy:
            return in_groups(batch, [self._adapted(items)], lambda group, rows: [self.encoder(rows[0], group).states])
        # The authors draw the gate's noise for each position of a sequence, and once more for each candidate. So the
        # experts of each of the R items are computed once, and mixed at each position.
        streams = self.adaptor.before_noise(self._features(items))
        ids = [items.ids] if items.ids is not None else []

        def states(group: Sequences, rows: list[Tensor]) -> list[Tensor]:
            inputs = sum(rows[len(streams) :], self.adaptor.mixed(rows[: len(streams)]))
            return [self.encoder(inputs, group).states]

        return in_groups(batch, [*streams, *ids], states)

    def _adapted(self, items: ItemRows) -> Tensor:
        """Return the adapted feature of each item, plus its ID row if there are ID rows, [R, d]."""

        def compute() -> list[Tensor]:
            adapted: Tensor = self.adaptor(self._features(items))
            return [adapted if items.ids is None else adapted + items.ids]

        # In training, the input and the candidates each draw dropout and noise of their own.
        (adapted,) = compute() if self.training else items.per_item("adapted", compute)
        return adapted

    def _features(self, items: ItemRows) -> Tensor:
        return items.features[self.knobs.modality].to(self.adaptor.gate.dtype)

    @property
    def loss_labels(self) -> tuple[str, ...]:
        return ("item", "sequence") if self.contrasts else super().loss_labels

    def contrastive_losses(self, items: ItemRows, batch: Batch, target_ids: Tensor) -> list[tuple[float, Tensor]]:
        """Return the losses of a state that should find its target, and of one that should find the changed copy's."""
        states = self.scored_users(items, batch)[0]
        targets = unit_vectors(self.adaptor(self._features(items)[batch.targets]))
        copies = unit_vectors(self._changed_copies(items, batch))
        ids, losses = self.gather(target_ids), []
        for weight, right in ((1.0, targets), (self.knobs.sequence_weight, copies)):
            wrong = self.gather(right)
            losses.append((weight, contrastive_loss([(states, right)], [(states, wrong)], target_ids, ids)))
        return losses

    def _changed_copies(self, items: ItemRows, batch: Batch) -> Tensor:
        """Return the states of changed copies of the inputs, [B, d]; all of them have the same kind of change."""
        streams = self.adaptor.before_noise(self._features(items))
        drops_words = self.training and bool(torch.rand(()) < self.knobs.word_drop_share)  # on the CPU: no waiting
        others = self.adaptor.before_noise(self._with_dropped_words(items)) if drops_words else []

        def states(group: Sequences, rows: list[Tensor]) -> list[Tensor]:
            parts, others = rows[: len(streams)], rows[len(streams) :]
            if self.training:
                changed = self.draw_dropped(group, self.knobs.item_dropout)
                if drops_words:
                    parts = [
                        torch.where(changed[:, :, None], other, part) for part, other in zip(parts, others, strict=True)
                    ]
                else:
                    group, parts = without_items(group, parts, changed)
            return [self.encoder(self.adaptor.mixed(parts), group).states]

        return in_groups(batch, [*streams, *others], states)[0]

    def _with_dropped_words(self, items: ItemRows) -> Tensor:
        """Return vectors of texts from which words were dropped, [R, d_m], or vectors with dropout in their place."""
        if self.knobs.word_drop_modality is None:
            return dropout(self._features(items), self.knobs.word_dropout, self.training)
        return items.features[self.knobs.word_drop_modality].to(self.adaptor.gate.dtype)


def _features_read(knobs: UniSRecConfig, info: CatalogueInfo) -> tuple[str, ...]:
    features = {"modality": knobs.modality}
    if knobs.objective == "contrastive" and knobs.word_drop_modality is not None:
        features["word_drop_modality"] = knobs.word_drop_modality
    for knob, name in features.items():
        if name not in info.feature_dims:
            raise InputError(
                f"model.unisrec.{knob}={name}: the dataset has no such item feature (it has "
                f"{', '.join(sorted(info.feature_dims)) or 'no features'}); name one that it has, or prepare the "
                f"dataset with --features {name}=FILE"
            )
        width, expected = info.feature_dims[name], info.feature_dims[knobs.modality]
        if width != expected:
            raise InputError(
                f"model.unisrec.{knob}={name}: its vectors have {width} numbers, and those of "
                f"modality={knobs.modality} have {expected}; name a feature that the same encoder computed"
            )
    return tuple(features.values())


class Adaptor(nn.Module):
    """A mixture of experts, sum_g gate_g(x) * (dropout(x) - b_g) W_g, with learned b_g ("parametric whitening").

    The gate is softmax(x W_gate + epsilon * (softplus(x W_noise) + 0.01)) in training, with epsilon ~ N(0, 1), and
    softmax(x W_gate) in evaluation. An item without the feature has x = 0.

    Attributes:
        draw: returns standard normal numbers in the shape of a tensor. They come from the random numbers of the step,
            as dropout's do. Tests replace it by recorded numbers.
    """

    def __init__(self, feature_dim: int, dim: int, knobs: UniSRecConfig) -> None:
        super().__init__()
        self.rate = knobs.adaptor_dropout
        self.gate = nn.Parameter(torch.zeros(feature_dim, knobs.num_experts))
        self.noise = nn.Parameter(torch.zeros_like(self.gate)) if knobs.gate_noise else None
        self.shifts = nn.Parameter(torch.zeros(knobs.num_experts, feature_dim))
        self.experts = nn.ModuleList(nn.Linear(feature_dim, dim, bias=False) for _ in range(knobs.num_experts))
        self.draw: Callable[[Tensor], Tensor] = torch.randn_like

    @property
    def is_noisy(self) -> bool:
        """Whether the gate has noise at present."""
        return self.training and self.noise is not None

    def forward(self, features_Rm: Tensor) -> Tensor:
        """Return the adapted features, [R, d]."""
        return self.mixed(self.before_noise(features_Rm))

    def before_noise(self, features_Rm: Tensor) -> list[Tensor]:
        """Return all that `mixed` needs of each item: experts [R, G * d], gate logits [R, G], and noise scales [R, G].

        Without noise there are no noise scales.
        """
        experts = [
            expert(dropout(features_Rm, self.rate, self.training) - shift)
            for expert, shift in zip(self.experts, self.shifts, strict=True)
        ]
        parts = [torch.cat(experts, dim=-1), features_Rm @ self.gate]
        if self.noise is not None and self.training:
            parts.append(F.softplus(features_Rm @ self.noise) + _LEAST_SCALE)
        return parts

    def mixed(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the experts of `before_noise` mixed by the gate, with noise drawn for each row, [..., d]."""
        experts, logits, *scales = parts
        for scale in scales:
            logits = logits + self.draw(scale) * scale
        return mixture(experts, logits)
