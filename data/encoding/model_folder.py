"""Model folders on disk: their digest, the refusal of unsafe weights, and errors of libraries in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from contracts.errors import InputError
from data.encoding.wording import one_line
from storage.fingerprints import files_digest

_POINTER = b"version https://git-lfs"  # what Git leaves in place of a large file
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
    """Refuse files that Git has not fetched, and pickles that hold more than tensors, before a library opens them.

    Raises:
        InputError: a file is a pointer of Git LFS, or cannot be loaded with `torch.load(weights_only=True)`.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _is_pointer(path):
            raise InputError(
                f"--encoder {folder}: {path.name} is a pointer of Git LFS in place of the file; run `git lfs pull` in "
                "that folder"
            )
        if path.suffix.lower() not in _PICKLES or not path.is_file():
            continue
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except Exception as error:  # the unpickler raises errors of every kind for damaged files
            raise InputError(
                f"--encoder {folder}: {path.name} cannot be loaded as plain tensors ({first_line(error)}), and pickles "
                "can run code; save the weights as model.safetensors, or remove the file"
            ) from None


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


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
        if "trust_remote_code" in str(error):
            raise InputError(
                f"--encoder {folder}: this model needs code from its folder, which is never run; choose another"
            ) from None
        raise InputError(
            f"--encoder {folder}: no model could be loaded from this folder ({first_line(error)}); it should hold "
            "config.json, model.safetensors and the tokenizer's or image processor's files"
        ) from None
    finally:
        if before is not None:
            notes.set_verbosity(before)


def first_line(error: Exception) -> str:
    """Return an error's kind and text in one line, shortened."""
    return f"{type(error).__name__}: {one_line(error, 160)}"
