"""The user encoder of a trained run as one module, from item ids to a user's vector, and its exports to files.

An exported file needs nothing of this project: PyTorch alone runs the one of torch.export, and ONNX Runtime the other.

Shapes: B users, L the longest input (model.max_length), N items of the catalogue, d width of an ID row, D width of a
user's vector, which is the sum of the widths of all channels.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import Config
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError, TaskFailed
from distributed.inputs import Inputs
from model.blocks.criterion import CrossEntropy
from model.protocol import ItemRows
from model.recommender import Recommender
from model.system import RecommenderSystem
from serving.item_values import item_rows_of, keep_what_users_read, last_states, tensors_of
from storage.durable_files import replacing

# How far an exported vector may be from the encoder's own, relative to its largest entry. Rounding in another order
# gave at most 2e-5 in all systems, with inputs of 50 items, width 64 and weights fifteen times those of a new model,
# and at most 2e-6 with weights five times as large. A wrong operator changes vectors far more.
TOLERANCE = 1e-4
_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class UserEncoder(nn.Module):
    """Computes users' vectors from the ids of their items, by operators that programs without this project can run.

    It holds the rows of all N items that a system's users read, so its size is 4 N w bytes plus the weights of its
    layers, where w is the number of floats of an item (`floats_per_item`): d for SASRec, GRU4Rec, BERT4Rec, SASRecF,
    UniSRec and MISSRec; 2 d for FDSA; (1 + M) d for MDSRec, GRU4RecF and MMMLP with M modalities or features, and 3 d
    for MSM4SR. MISSRec also holds the interest of each item in each feature, 4 N M bytes. What depends on an item
    alone, such as its adapted features, is held instead of what it is computed from.

    The vectors are those that ranking uses. They lack what ranking adds to a score afterwards: learned gains of
    repeated items (`model.learn_repeats`), co-occurrence (`evaluation.cooccurrence_weight`), and the fusion of
    channels (`recommender.fusion`), which needs the vectors of the channels side by side, as they are here.

    Attributes:
        system: the name of the system, for messages.
        num_items: N.
        max_length: L.
    """

    def __init__(self, *, system: str, recommender: Recommender, items: ItemRows, max_length: int) -> None:
        """Make an encoder of these weights and rows, which it does not copy.

        Args:
            system: the name of the system, for messages.
            recommender: the trained model, in evaluation mode.
            items: the rows of all N items, in the order of their ids; with `centers` instead of `center_rows`.
            max_length: L.
        """
        super().__init__()
        self.system, self.num_items, self.max_length = system, len(items.item_ids), max_length
        self._recommender = recommender
        self._keys, self._center_names = tuple(key for key, _ in tensors_of(items)), tuple(items.centers)
        for number, (_, rows) in enumerate(tensors_of(items)):  # by number, because a feature's name may have a dot
            self.register_buffer(f"rows_{number}", rows)
        for number, center in enumerate(items.centers.values()):
            self.register_buffer(f"centers_{number}", center)

    @property
    def floats_per_item(self) -> int:
        """The number of floats that are held for each item, w."""
        return sum(self.get_buffer(f"rows_{number}")[0].numel() for number in range(len(self._keys)))

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return users' vectors, float32 [B, D], so that `vectors @ item_vectors.T` are the scores.

        Args:
            items: int64 [B, L], ids of the items that a user has seen, oldest first, padded on the right; the padding
                may have any value.
            lengths: int64 [B], in 1..L, numbers of items without the padding.
        """
        is_item = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
        ids = torch.where(is_item, items, 0).flatten()
        # Only the rows of the input's items are read, in the order of the input.
        rows = {key: F.embedding(ids, self.get_buffer(f"rows_{number}")) for number, key in enumerate(self._keys)}
        centers = {name: self.get_buffer(f"centers_{number}") for number, name in enumerate(self._center_names)}
        places = torch.arange(ids.shape[0], device=items.device).view(items.shape)
        batch = last_states(places, lengths)
        return self._recommender.weighted_users(item_rows_of(ids, rows, centers), batch).float()


def user_encoder(system: RecommenderSystem, inputs: Inputs, config: Config) -> UserEncoder:
    """Return the user encoder of a trained system, on the system's device, without gradients.

    `distributed.inference.restore.restore_alone` opens a run. The rows of the whole catalogue are computed here, once,
    and are in memory together with the raw features that they are computed from. Centres are exact, as in ranking.

    Args:
        system: the filled system, which stays as it is.
        inputs: the dataset and the graph that it was trained on.
        config: the run's config.

    Raises:
        InputError: the system has no weights, so its users have no vectors of their own; or its vectors are random.
    """
    name = config.model.name
    if not SYSTEMS[name].is_trained:
        raise InputError(
            f"model.name={name}: has no user encoder to export, because it is not trained: its vector is the same for "
            "every user; name the run of a trained system"
        )
    plan = inputs.planner(replace(system.recommender.needs, center_samples=None)).catalogue()
    device = next(system.recommender.parameters()).device
    with torch.no_grad():
        items = system.item_rows(plan.map(lambda tensor: tensor.to(device)))
    recommender = copy.deepcopy(system.recommender).eval()
    recommender.criterion, recommender.repeats, recommender.fusion = CrossEntropy(), None, None
    items = keep_what_users_read(recommender, items)
    encoder = UserEncoder(system=name, recommender=recommender, items=items, max_length=config.model.max_length)
    items_and_lengths = [tensor.to(device) for tensor in random_histories(encoder, 2, seed=0)]
    if not torch.equal(encoder(*items_and_lengths), encoder(*items_and_lengths)):
        raise InputError(
            f"model.name={name}: its user vectors are random, so no file can hold their encoder; name a run without "
            "noise at evaluation (model.mdsrec.gumbel_at_evaluation=false)"
        )
    return encoder


def export_program(encoder: UserEncoder, path: Path) -> None:
    """Write an encoder as a program of torch.export, which `torch.export.load(path).module()` runs.

    The program takes `items` int64 [B, L] and `lengths` int64 [B], as `UserEncoder.forward` does, for any B >= 1. The
    file has the rows of all items; `UserEncoder` says how many bytes they are. It is compared with the encoder before
    it gets its name. MDSRec's centres of all B users are computed at once, where this project would take them in parts:
    with k centres and a feed-forward of width f, one call needs about 4 B k (8 d + f) bytes.

    Args:
        encoder: an encoder on the CPU.
        path: the file to write or replace; its name should end in .pt2.

    Raises:
        InputError: torch.export cannot record the system's operators.
        TaskFailed: the written program computes other vectors.
    """
    program = _recorded(encoder)
    with replacing(path) as temporary:
        with temporary.open("wb") as file, _quiet():
            torch.export.save(program, file)
        with temporary.open("rb") as file, _quiet():
            loaded = torch.export.load(file).module()
        _compare(encoder, lambda items, lengths: cast(Tensor, loaded(items, lengths)), path)


def export_onnx(encoder: UserEncoder, path: Path) -> None:
    """Write an encoder as an ONNX model with inputs `items` and `lengths`, for any B >= 1, and the output `users`.

    The file has the rows of all items; `UserEncoder` says how many bytes they are. An ONNX file ends at 2 GB. A larger
    model's rows and weights are in a second file, whose name is that of the first with ".data" after it; the two must
    stay together. The model is compared with the encoder, on ONNX Runtime, before the files get their names.

    Args:
        encoder: an encoder on the CPU.
        path: the file to write or replace; its name should end in .onnx.

    Raises:
        InputError: an optional package is missing, or ONNX lacks one of the system's operators.
        TaskFailed: the written model computes other vectors.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{path}: writing ONNX needs the packages {', '.join(missing)}; install them with: pip install "
            f"{' '.join(_ONNX_PACKAGES)}"
        )
    program = _recorded(encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".unfinished") as folder:
        written = Path(folder) / path.name
        try:
            with _quiet():
                model = torch.onnx.export(
                    program,
                    dynamo=True,
                    input_names=["items", "lengths"],
                    output_names=["users"],
                    verbose=False,
                )
        except torch.onnx.OnnxExporterError as error:
            raise InputError(_refusal(encoder, "ONNX", error)) from error
        assert model is not None
        model.save(written)
        _compare(encoder, _on_onnx_runtime(written), path)
        data = path.with_name(f"{path.name}.data")
        names = [name for name in (data.name, path.name) if (written.parent / name).exists()]
        for name in names:  # the model last, because it refers to its data
            with replacing(path.with_name(name)) as temporary:
                os.replace(written.parent / name, temporary)
        if data.name not in names:
            data.unlink(missing_ok=True)  # of an earlier, larger model


def random_histories(encoder: UserEncoder, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs of an encoder, int64 [B, L] and [B], with random items and every length in turn, from L down to 1.

    Args:
        encoder: its catalogue and longest input are used.
        count: B.
        seed: seed of the items.
    """
    rng = np.random.default_rng(seed)
    items = rng.integers(0, encoder.num_items, (count, encoder.max_length))
    lengths = encoder.max_length - np.arange(count) % encoder.max_length
    items[np.arange(encoder.max_length) >= lengths[:, None]] = 0
    return torch.from_numpy(items), torch.from_numpy(lengths)


def _recorded(encoder: UserEncoder) -> torch.export.ExportedProgram:
    """Return the encoder's operators as torch.export records them, for any number of users.

    Raises:
        InputError: torch.export cannot record them.
    """
    users = torch.export.Dim("users", min=1)
    try:
        with _quiet():
            # Three users: torch.export takes a size of one for a constant.
            return torch.export.export(
                encoder, random_histories(encoder, 3, seed=0), dynamic_shapes=({0: users}, {0: users}), strict=False
            )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InputError(_refusal(encoder, "torch.export", error)) from error


def _refusal(encoder: UserEncoder, target: str, error: Exception) -> str:
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (
        f"model.name={encoder.system}: {target} cannot record this system's user encoder ({why}); rank or recommend "
        "with this project instead"
    )


def _compare(encoder: UserEncoder, exported: Callable[[Tensor, Tensor], Tensor], path: Path) -> None:
    """Check that an exported encoder returns the encoder's vectors, for one user and many, and for every length.

    Raises:
        TaskFailed: it does not.
    """
    for count in (1, 2 * encoder.max_length + 1):
        items, lengths = random_histories(encoder, count, seed=1)
        expected, found = encoder(items, lengths), exported(items, lengths)
        difference = (found - expected).abs().amax(dim=1) / expected.abs().amax(dim=1).clamp(min=1e-30)
        if found.shape != expected.shape or not bool((difference <= TOLERANCE).all()):
            raise TaskFailed(
                f"{path}: not written, because the exported user encoder of {encoder.system} differs from the "
                f"system's own by {float(difference.max()):.1e} of a vector's largest entry (limit {TOLERANCE})"
            )


def _on_onnx_runtime(path: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that runs an ONNX file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda items, lengths: torch.from_numpy(
        session.run(["users"], {"items": items.numpy(), "lengths": lengths.numpy()})[0]
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the notices of torch's exporters on packages and functions that are not used here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
