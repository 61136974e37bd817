"""Encodes texts with a sentence-transformers folder, or with any Hugging Face text model and a choice of pooling.

Nothing is fetched: files are read from the folder alone, and code in a folder is never run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.errors import InputError
from data.encoding.batches import token_batches
from data.encoding.model_checks import check_length, check_tokenizer, complete_weights
from data.encoding.model_folder import loading
from data.encoding.request import EncoderSpec, missing_package

POOLINGS = ("mean", "cls", "max", "lasttoken")
NO_TEXT = "no text"


class TextModel:
    """A sentence-transformers model (an `Encoder` of texts).

    Attributes:
        width: values of a vector.
        facts: what the manifest says about the encoder.
    """

    def __init__(self, *, spec: EncoderSpec, folder: Path, facts: Mapping[str, Any], device: str) -> None:
        """Load the model. Raises InputError if the folder holds no model of texts that can be read."""
        with loading(folder), complete_weights(folder, ("pooler",)):
            model = _pooled(spec, folder) if not (folder / "modules.json").exists() else _ready_made(spec, folder)
            check_tokenizer(model.tokenizer, folder)
        if spec.normalize is not None:
            model = _with_normalization(model, spec.normalize)
        if spec.max_length is not None:
            _limit(model, spec.max_length)
        self._model = model.to(device).eval()
        self._spec = spec
        prompts = model.prompts or {}
        self._prefix = spec.prefix if spec.prefix is not None else prompts.get(model.default_prompt_name or "", "")
        self.width = int(model.get_embedding_dimension())
        self.facts = {
            **facts,
            "pooling": _pooling_of(model),
            "normalized": _is_normalized(model),
            "preprocessing": {"max_length": model.max_seq_length, "prefix": self._prefix},
            "width": self.width,
        }

    def encode(self, values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """Return float32 [n, width], and why a text has no vector; see `Encoder`."""
        texts = [str(value or "").strip() for value in values]
        vectors = np.zeros((len(texts), self.width), np.float32)
        rows = np.flatnonzero([bool(text) for text in texts])
        if len(rows):
            chosen = [self._prefix + texts[row] for row in rows]
            for batch in token_batches(self._lengths(chosen), self._spec.batch_tokens):
                with torch.inference_mode():
                    inputs = self._model.preprocess([chosen[index] for index in batch])
                    inputs = {
                        name: value.to(self._model.device) if isinstance(value, torch.Tensor) else value
                        for name, value in inputs.items()
                    }
                    vectors[rows[batch]] = self._model(inputs)["sentence_embedding"].float().cpu().numpy()
        return vectors, ["" if text else NO_TEXT for text in texts]

    def _lengths(self, texts: list[str]) -> np.ndarray:
        """Return the number of tokens of each text, int64, at most the model's limit."""
        limit = self._model.max_seq_length
        encoded = self._model.tokenizer(texts, truncation=limit is not None, max_length=limit, padding=False)
        return np.array([len(tokens) for tokens in encoded["input_ids"]])


def _library() -> Any:
    try:
        import sentence_transformers
    except ModuleNotFoundError:
        raise missing_package("sentence-transformers", "encoding texts with a model") from None
    return sentence_transformers


def _ready_made(spec: EncoderSpec, folder: Path) -> Any:
    """Return the model of a sentence-transformers folder, whose modules must be classes of that library."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    for module in modules:
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            raise InputError(
                f"--encoder {folder}: modules.json names {module.get('type')!r}, which is no class of "
                "sentence-transformers, and code that comes with a model is never run; use another model"
            )
        if str(module["type"]).endswith(".CLIPModel"):
            raise InputError(
                f"--encoder {folder}: is a wrapper of a CLIP model; name the folder inside it, "
                f"{folder / (module.get('path') or '.')}"
            )
    if spec.pooling is not None:
        raise InputError(f"--pooling {spec.pooling}: {folder} says itself how to pool (modules.json); leave it out")
    return _library().SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)


def _pooled(spec: EncoderSpec, folder: Path) -> Any:
    """Return a model that pools the last states of a transformer."""
    library = _library()
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    local = {"local_files_only": True, "trust_remote_code": False}
    transformer = Transformer(str(folder), model_kwargs=local, processor_kwargs=local, config_kwargs=local)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=spec.pooling or "mean")
    return library.SentenceTransformer(modules=[transformer, pooling], device="cpu")


def _modules_of(model: Any, name: str) -> list[Any]:
    return [module for module in model if type(module).__name__ == name]


def _is_normalized(model: Any) -> bool:
    return bool(_modules_of(model, "Normalize"))


def _with_normalization(model: Any, wanted: bool) -> Any:
    """Return the model with a last module that normalises, or without one."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    kept = [module for module in model if type(module).__name__ != "Normalize"]
    changed = _library().SentenceTransformer(modules=[*kept, *([Normalize()] if wanted else [])], device="cpu")
    changed.prompts, changed.default_prompt_name = model.prompts, model.default_prompt_name
    return changed


def _limit(model: Any, max_length: int) -> None:
    check_length(max_length, model.tokenizer, model.max_seq_length)
    model.max_seq_length = max_length


def _pooling_of(model: Any) -> str:
    modes = [module.pooling_mode for module in _modules_of(model, "Pooling")]
    others = [type(module).__name__ for module in model if type(module).__name__ not in _PLAIN]
    return ", ".join([*(mode if isinstance(mode, str) else "+".join(mode) for mode in modes), *others]) or "none"


_PLAIN = ("Transformer", "Pooling", "Normalize")
