"""Tiny random models of each kind that jobs/encode_items.py reads, in the form of their real folders.

Their weights are larger than a training would begin with, so that different texts get clearly different vectors.
"""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ["red", "blue", "green", "drill", "saw", "cat", "dog", "glue", "tape", "paper", "big", "small"]


def save_tokenizer(folder: Path, max_length: int = 32) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=max_length,
    ).save_pretrained(folder)


def bert(folder: Path, seed: int = 0, **save: object) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=4 + len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).eval().save_pretrained(folder, **save)
    save_tokenizer(folder)
    return folder


def sentence_transformer(folder: Path, pooling: str = "cls", normalize: bool = True, prompt: str = "") -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(bert(folder.with_name(f"{folder.name}-bert"))))
    modules = [transformer, Pooling(24, pooling_mode=pooling), *([Normalize()] if normalize else [])]
    prompts = {"prompts": {"document": prompt}, "default_prompt_name": "document"} if prompt else {}
    SentenceTransformer(modules=modules, device="cpu", **prompts).save(str(folder))
    return folder


def clip(folder: Path, seed: int = 0) -> Path:
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(seed)
    text = {
        "vocab_size": 4 + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 2,
        "initializer_factor": 10.0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
        "patch_size": 8, "initializer_factor": 10.0,
    }  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).eval().save_pretrained(folder)
    save_tokenizer(folder, 12)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    torch.manual_seed(0)
    text = {
        "vocab_size": 4 + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 10, "projection_size": 16,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval().save_pretrained(folder)
    save_tokenizer(folder, 10)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
