"""The knobs of GRU4Rec, which GRU4RecF has too."""

from __future__ import annotations

from pydantic import StrictFloat, StrictInt

from configs.knobs import RESULT, Section, knob


class GRU4RecConfig(Section):
    """The size of the GRUs and their dropout. The defaults are RecBole's."""

    hidden_size: StrictInt = knob(128, RESULT, "width of a GRU's hidden state", ge=1)
    num_layers: StrictInt = knob(1, RESULT, "number of GRU layers; model.num_layers does not apply", ge=1)
    dropout: StrictFloat = knob(
        0.3, RESULT, "dropout rate of the ID rows that enter a GRU; model.dropout does not apply", ge=0, lt=1
    )
