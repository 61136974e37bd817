"""What the user asks for: which encoder, and how texts and images are prepared for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from contracts.errors import InputError

Modality = Literal["text", "image"]
Several = Literal["mean", "list"]
EXTRA = "pip install -c constraints.txt -e '.[encode]'"


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder and its settings. Every process of a job makes its own encoder from it.

    Attributes:
        name: `tfidf`, `minilm`, `efficientnet-lite0`, or the path of a folder with a model.
        modality: which side of a model with two sides is used.
        pooling: how the vectors of tokens become one; None: what the model's folder says, else the mean.
        normalize: whether vectors are divided by their length; None: what the model's folder says, else no.
        max_length: most tokens of a text that are read; None: as many as the model can.
        prefix: what is put before every text; None: what the model's folder says, else nothing.
        batch_tokens: most tokens of a batch of texts, padding included.
        batch_pixels: most pixels of a batch of images, after they were resized.
        width: values of a vector of TF-IDF.
        fit_texts: number of texts that TF-IDF's projection is computed from.
        fitted: path of the file with what TF-IDF has learned; None for other encoders.
    """

    name: str
    modality: Modality
    pooling: str | None = None
    normalize: bool | None = None
    max_length: int | None = None
    prefix: str | None = None
    batch_tokens: int = 2048
    batch_pixels: int = 32 * 224 * 224
    width: int = 128
    fit_texts: int = 200_000
    fitted: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return all that decides the vectors' bytes. Batches do: sums are rounded differently in other batches."""
        return {name: value for name, value in asdict(self).items() if name != "fitted"}

    def with_batches(self, device: str, tokens: int | None, pixels: int | None) -> EncoderSpec:
        """Return the spec with these sizes of batches; None: what suits the device.

        On a CPU, larger batches of texts leave its caches and are slower.
        """
        suits = (1 << 16, 256 * 224 * 224) if device == "cuda" else (self.batch_tokens, self.batch_pixels)
        return replace(self, batch_tokens=tokens or suits[0], batch_pixels=pixels or suits[1])


class Encoder(Protocol):
    """Turns texts or images into vectors."""

    @property
    def width(self) -> int:
        """The number of values of a vector."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says about the encoder (`facts.label_of`)."""
        ...

    def encode(self, values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """Return float32 [n, width], and for each value why it has no vector, or an empty text.

        Args:
            values: texts; or images, each the path of a file or the bytes of one.
        """
        ...


def missing_package(package: str, needed_for: str) -> InputError:
    """Return the error for a package of the extra `encode` that is not installed."""
    return InputError(
        f"{needed_for}: needs the package {package}, which is not installed; run in the project's folder: {EXTRA}"
    )
