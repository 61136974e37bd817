"""Model folders on disk: their digest, the refusal of unsafe weights, and errors of libraries in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from contracts.errors import InputError
from storage.fingerprints import files_digest

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Not part of a model's revision: what people write about it.
_PROSE = (".md", ".png", ".gitattributes")


def revision_of(folder: Path) -> str:
    """Return the SHA-256 over the names and the content of a folder's files, but for hidden ones and prose."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() not in _PROSE
    )
    return files_digest(files)


def check_weights(folder: Path) -> None:
    """Refuse pickled weights that hold more than tensors, before a library opens them.

    Raises:
        InputError: a file cannot be loaded with `torch.load(weights_only=True)`.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _PICKLES or not path.is_file():
            continue
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except Exception as error:  # the unpickler raises errors of every kind for damaged files
            raise InputError(
                f"--encoder {folder}: {path.name} cannot be loaded as plain tensors ({first_line(error)}), and pickles "
                "can run code; save the weights as model.safetensors, or remove the file"
            ) from None


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn errors of the libraries that load a model into an InputError; keep their progress bars and notes quiet.

    Raises:
        InputError: the block raised one, or the folder holds no model that can be read.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from transformers.utils import logging as notes

        before = notes.get_verbosity()
        notes.set_verbosity_error()
        notes.disable_progress_bar()
    except ModuleNotFoundError:
        before = None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (InputError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # OSError, ValueError, KeyError, safetensors' own, and more: all of them are the folder's
        raise InputError(
            f"--encoder {folder}: no model could be loaded from this folder ({first_line(error)}); it should hold "
            "config.json, model.safetensors and the tokenizer's or image processor's files"
        ) from None
    finally:
        if before is not None:
            notes.set_verbosity(before)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, shortened."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
