"""Refuses model folders that a library would load without a word, although their vectors would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import InputError

# Counted, not learned: some checkpoints hold them, others do not.
_COUNTED = ("position_ids",)


@contextmanager
def complete_weights(folder: Path, unread: Sequence[str]) -> Iterator[None]:
    """Refuse models, loaded within the block, of which the folder lacks weights. Transformers draws those at random.

    Every model that Transformers loads within the block is looked at, also those that sentence-transformers asks for.

    Args:
        folder: the model's folder, for the message.
        unread: parts of names, such as "pooler", of weights that no vector depends on.

    Raises:
        InputError: a weight is missing; names the first.
    """
    from transformers import PreTrainedModel

    missing: set[str] = set()
    original = PreTrainedModel.__dict__["from_pretrained"]

    def recording(model_class: Any, *arguments: Any, output_loading_info: bool = False, **options: Any) -> Any:
        model, found = original.__func__(model_class, *arguments, output_loading_info=True, **options)
        missing.update(found["missing_keys"])
        return (model, found) if output_loading_info else model

    PreTrainedModel.from_pretrained = classmethod(recording)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = original
    names = sorted(name for name in missing if not set(name.split(".")) & {*unread, *_COUNTED})
    if names:
        others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        raise InputError(
            f"--encoder {folder}: the weights lack {names[0]}{others}, which would be drawn at random; download the "
            "model again, or name a model that was trained for vectors"
        )


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Refuse a folder without the tokenizer's words: without them, every word is the same unknown one.

    Raises:
        InputError: none of the files is there; names them.
    """
    named = getattr(tokenizer, "vocab_files_names", None) or {}  # tokenizers of bytes or characters need no file
    if named and not any(next(folder.rglob(name), None) for name in named.values()):
        raise InputError(
            f"--encoder {folder}: has no file of the tokenizer ({' or '.join(sorted(named.values()))}), so all words "
            "would be the same; download these files as well"
        )


def check_length(max_length: int, tokenizer: Any, most: int | None) -> None:
    """Check `--max-length` against what the model reads, and against the tokens that stand around every text.

    Raises:
        InputError: it is too large, or leaves no room for a token of a text.
    """
    if most is not None and max_length > most:
        raise InputError(f"--max-length {max_length}: the model reads at most {most} tokens; lower it")
    special = int(tokenizer.num_special_tokens_to_add())
    if max_length <= special:
        raise InputError(
            f"--max-length {max_length}: leaves no room for a word, since the model puts {special} tokens of its own "
            f"around every text; give at least {special + 1}"
        )
