"""Encodes texts or images with a CLIP or SigLIP folder: the vectors in which texts and images are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.errors import InputError
from data.encoding.batches import token_batches
from data.encoding.images import UnusableImage, open_image
from data.encoding.model_checks import check_length, check_tokenizer, complete_weights
from data.encoding.model_folder import loading
from data.encoding.request import EncoderSpec
from data.encoding.text_models import NO_TEXT


class _Tower:
    """What both sides share: the model, and what is known about it."""

    def __init__(self, *, spec: EncoderSpec, folder: Path, facts: Mapping[str, Any], device: str) -> None:
        from transformers import AutoModel

        if spec.pooling is not None:
            raise InputError(f"--pooling {spec.pooling}: CLIP and SigLIP pool in their own way; leave it out")
        if spec.prefix and spec.modality == "image":
            raise InputError("--prefix: is for texts; leave it out")
        with loading(folder), complete_weights(folder, _UNREAD[spec.modality]):
            model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        unused = "vision_model" if spec.modality == "text" else "text_model"
        if hasattr(model, unused):
            setattr(model, unused, None)  # a tower that is not used need not take memory
        self._model = model.to(device).eval()
        self._device, self._spec = device, spec
        self._normalize = bool(spec.normalize)
        config = model.config
        width = getattr(config, "projection_dim", None) or getattr(config, f"{_SIDE[spec.modality]}_config").hidden_size
        self.width = int(width)
        self.facts: dict[str, Any] = {
            **facts,
            "pooling": "the model's own",
            "normalized": self._normalize,
            "width": self.width,
        }

    def _vectors(self, function: Callable[..., Any], inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        with torch.inference_mode():
            found = function(**{name: value.to(self._device) for name, value in inputs.items()})
            vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
            if self._normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            return vectors.float().cpu().numpy()


_SIDE = {"text": "text", "image": "vision"}
_SCALES = ("logit_scale", "logit_bias")  # of cosines, not of vectors
_UNREAD = {
    "text": ("vision_model", "visual_projection", *_SCALES),
    "image": ("text_model", "text_projection", *_SCALES),
}


class TextTower(_Tower):
    """The text side (an `Encoder` of texts)."""

    def __init__(self, *, spec: EncoderSpec, folder: Path, facts: Mapping[str, Any], device: str) -> None:
        """Load it. Raises InputError if the folder has no such model or tokenizer."""
        super().__init__(spec=spec, folder=folder, facts=facts, device=device)
        from transformers import AutoTokenizer

        with loading(folder):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            check_tokenizer(self._tokenizer, folder)
        most = int(self._model.config.text_config.max_position_embeddings)
        if spec.max_length is not None:
            check_length(spec.max_length, self._tokenizer, most)
        self._max_length = spec.max_length or most
        # SigLIP was trained on texts that were all padded to one length, without a mask.
        self._pads_to_end = str(self._model.config.model_type).startswith("siglip")
        self._prefix = spec.prefix or ""
        self.facts["preprocessing"] = {"max_length": self._max_length, "prefix": self._prefix}

    def encode(self, values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """Return float32 [n, width], and why a text has no vector; see `Encoder`."""
        texts = [str(value or "").strip() for value in values]
        vectors = np.zeros((len(texts), self.width), np.float32)
        rows = np.flatnonzero([bool(text) for text in texts])
        if len(rows):
            chosen = [self._prefix + texts[row] for row in rows]
            shape = {"truncation": True, "max_length": self._max_length}
            if self._pads_to_end:
                lengths = np.full(len(chosen), self._max_length)
            else:
                lengths = np.array([len(tokens) for tokens in self._tokenizer(chosen, **shape)["input_ids"]])
            padding = "max_length" if self._pads_to_end else "longest"
            for batch in token_batches(lengths, self._spec.batch_tokens):
                inputs = self._tokenizer([chosen[i] for i in batch], padding=padding, return_tensors="pt", **shape)
                if self._pads_to_end:
                    inputs = {"input_ids": inputs["input_ids"]}
                vectors[rows[batch]] = self._vectors(self._model.get_text_features, inputs)
        return vectors, ["" if text else NO_TEXT for text in texts]


class ImageTower(_Tower):
    """The image side (an `Encoder` of images)."""

    def __init__(
        self, *, spec: EncoderSpec, folder: Path, facts: Mapping[str, Any], device: str, image_folder: Path | None
    ) -> None:
        """Load it. Raises InputError if the folder has no such model or image processor."""
        super().__init__(spec=spec, folder=folder, facts=facts, device=device)
        from transformers import AutoImageProcessor

        with loading(folder):
            # The processor that computes with Pillow and NumPy, as the models were trained; it needs no torchvision.
            self._processor = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        self._image_folder = image_folder
        settings = self._processor.to_dict()
        self.facts["preprocessing"] = {
            "resize": settings.get("size"),
            "crop": settings.get("crop_size") if settings.get("do_center_crop") else None,
            "resample": settings.get("resample"),
            "mean": settings.get("image_mean"),
            "std": settings.get("image_std"),
        }

    def encode(self, values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """Return float32 [n, width], and why an image has no vector; see `Encoder`."""
        return encode_images(
            values,
            folder=self._image_folder,
            width=self.width,
            batch_pixels=self._spec.batch_pixels,
            prepare=lambda image: self._processor(images=image, return_tensors="np")["pixel_values"][0],
            forward=lambda pixels: self._vectors(self._model.get_image_features, {"pixel_values": pixels}),
        )


def encode_images(
    values: Sequence[Any],
    *,
    folder: Path | None,
    width: int,
    batch_pixels: int,
    prepare: Callable[[Any], np.ndarray],
    forward: Callable[[torch.Tensor], np.ndarray],
) -> tuple[np.ndarray, list[str]]:
    """Return float32 [n, width], and why an image has no vector.

    Images are opened one after the other, so that one image and one batch of prepared ones are in memory.

    Args:
        values: paths of files, bytes, or None.
        folder: the folder that relative paths start from.
        width: values of a vector.
        batch_pixels: most pixels of a batch.
        prepare: turns a `PIL.Image` into float32 [3, height, width].
        forward: turns images [b, 3, height, width] into float32 [b, width].
    """
    vectors, reasons = np.zeros((len(values), width), np.float32), [""] * len(values)
    rows: list[int] = []
    waiting: list[np.ndarray] = []

    def flush() -> None:
        if rows:
            vectors[rows] = forward(torch.from_numpy(np.stack(waiting)))
            rows.clear()
            waiting.clear()

    for row, value in enumerate(values):
        if value is None or not len(value):
            reasons[row] = "no image"
            continue
        try:
            pixels = np.ascontiguousarray(prepare(open_image(value, folder)), np.float32)
        except UnusableImage as error:
            reasons[row] = str(error)
            continue
        if waiting and (waiting[0].shape != pixels.shape or (len(waiting) + 1) * pixels[0].size > batch_pixels):
            flush()
        rows.append(row)
        waiting.append(pixels)
    flush()
    return vectors, reasons
