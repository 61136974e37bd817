"""Writes a run as a folder from which another program can recommend: encoder of users, items' vectors, rule of scores.

user_encoder.pt2 or .onnx   from item ids and lengths to user vectors
item_vectors.npy            float32 [N, D] by dense id
item_vectors.ids.parquet    row, item (source id)
score.json                  channels, gains, fusion, masking; written last
"""

from __future__ import annotations

from pathlib import Path

from contracts.errors import InputError
from distributed.telemetry import Track, unwatched
from serving.exports import item_vectors, not_written, write_npy
from serving.predictor import Predictor
from serving.score_rule import score_rule
from serving.user_encoder import export_onnx, export_program, user_encoder
from storage.array_file import save_array
from storage.durable_files import replacing_folder
from storage.plain_json import json_text

RULE = "score.json"


def export_model(predictor: Predictor, to: str, folder: Path, track: Track = unwatched) -> None:
    """Write the folder, completely or not at all.

    Args:
        predictor: the run.
        to: "pt2": torch.export; "onnx".
        folder: the folder to write.
        track: shows progress.

    Raises:
        InputError: the system cannot be exported in this format, or the folder cannot be written.
    """
    scorer = predictor.ranking.scorer
    try:
        with replacing_folder(folder, one_writer=True) as aside:
            with predictor.serving():
                encoder = user_encoder(scorer.system, scorer.inputs, scorer.config)
                rule = score_rule(scorer, predictor.step)
            write = export_onnx if to == "onnx" else export_program
            write(encoder, aside / f"user_encoder.{to}")
            write_npy(item_vectors(predictor), aside / "item_vectors.npy", track)
            save_array(aside / "popularity.npy", predictor.ranking.counts)
            (aside / RULE).write_text(json_text(rule, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise not_written(error, folder) from None


def check_folder(folder: Path, overwrite: bool) -> None:
    """Check that a folder may be written. Only a folder that `export_model` wrote may be replaced.

    Raises:
        InputError: it may not.
    """
    if folder.suffix in (".pt2", ".onnx"):
        raise InputError(
            f"--output {folder}: will be a folder, so its name cannot end in {folder.suffix}; name it {folder.stem}"
        )
    if not folder.parent.is_dir():
        raise InputError(f"--output {folder}: the folder that it is in does not exist; create that first")
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not (folder / RULE).is_file() or not (folder / "item_vectors.npy").is_file():
        raise InputError(
            f"--output {folder}: exists and is not an exported model, so it is never replaced; name another"
        )
    if not overwrite:
        raise InputError(f"--output {folder}: exists; name another folder or add --overwrite")
