"""Llama models in GGUF files: written here as llama.cpp does, read back, and one real model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import armt_jax
from armt_jax import ConfigError
from armt_jax.interop import gguf_tokenizer, load_gguf, load_hugging_face
from tests.hf_files import MEMORY, about, golden, write_folder

gguf = pytest.importorskip("gguf", reason="needs the package gguf")

BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TEXT = (
    "In 1815, M. Charles-Francois-Bienvenu Myriel was Bishop of D--. It's 75 years; they'll see!\n"
)


def interleaved(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp keeps q and k: the two halves of a head take turns."""
    halves = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(matrix.shape)


def renamed(state: dict[str, np.ndarray], heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    """Transformers' arrays under GGUF's names and in its order."""
    found = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if "lm_head.weight" in state:
        found["output.weight"] = state["lm_head.weight"]
    layers = {int(name.split(".")[2]) for name in state if name.startswith("model.layers.")}
    for layer in layers:
        for theirs, ours in BLOCK.items():
            array = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                array = interleaved(array, heads if theirs == "attn_q" else kv_heads)
            found[f"blk.{layer}.{theirs}.weight"] = array
    return found


def write_gguf(
    path: Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    kind: str = "F32",
    extra: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
) -> Path:
    """A file of transformers' ``config``; matrices stored as ``kind``, vectors as float32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    for key, value in (extra or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    if tokenizer is not None:
        writer.add_tokenizer_model(tokenizer["model"])
        writer.add_tokenizer_pre(tokenizer["pre"])
        writer.add_token_list(tokenizer["tokens"])
        writer.add_token_types(tokenizer["token_type"])
        writer.add_token_merges(tokenizer["merges"])
    stored = getattr(gguf.GGMLQuantizationType, kind)
    for name, array in tensors.items():
        array = np.ascontiguousarray(array, np.float32)
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def golden_gguf(path: Path, case: str, **options: Any) -> Path:
    config = about(case)
    config |= {"rope_theta": config["rope_parameters"]["rope_theta"]}
    state = golden(case).group("state")
    tensors = renamed(state, config["num_attention_heads"], config["num_key_value_heads"])
    return write_gguf(path, config, tensors, **options)


@pytest.mark.parametrize("case", ["llama", "llama_tied"])
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    params, config = load_gguf(golden_gguf(tmp_path / "m.gguf", case), **MEMORY)
    expected, its_config = load_hugging_face(write_folder(tmp_path / "hf", case), **MEMORY)
    assert config == its_config
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    model, tokens = armt_jax.create_model(config), jnp.asarray(golden(case)["tokens"])
    logits = armt_jax.forward(model, params, tokens, segment_size=13).logits
    np.testing.assert_allclose(logits, golden(case)["logits"], rtol=0, atol=1e-4)


def test_llama_3_files_have_its_frequencies(tmp_path: Path) -> None:
    """Heads of four dimensions, and a base so large: one frequency is kept, one divided by 32."""
    config = {**about("llama"), "rope_theta": 1e8}
    tensors = renamed(golden("llama").group("state"), 4, 2)
    tensors["rope_freqs.weight"] = np.array([1, 32], np.float32)
    found = load_gguf(write_gguf(tmp_path / "m.gguf", config, tensors), **MEMORY)[1]
    assert found.rotary_scaling == (32.0, 1.0, 4.0, 8192.0)


KINDS = ("F16", "BF16", "Q8_0", "Q4_0", "Q5_1")


@pytest.mark.parametrize(
    "kind", ["Q4_1", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS)]
)
def test_quantised_matrices_are_the_dequantised_ones_in_their_order(
    kind: str, tmp_path: Path
) -> None:
    """Quantised as llama.cpp does, in its order of rows; each row is then put back."""
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    rest = {"max_position_embeddings": 64, "rms_norm_eps": 0.5, "rope_theta": 5e5}
    rng = np.random.default_rng(0)
    sizes = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    sizes |= {"gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64)}
    state = {"model.embed_tokens.weight": (40, 32), "model.norm.weight": (32,)}
    for part in BLOCK.values():
        name = part.rpartition(".")[2]
        state[f"model.layers.0.{part}.weight"] = sizes.get(name, (32,))
    drawn = {name: rng.normal(size=size).astype(np.float32) for name, size in state.items()}
    path = tmp_path / "m.gguf"
    write_gguf(path, {**shape, **heads, **rest}, renamed(drawn, 4, 2), kind=kind)
    params, config = load_gguf(path, **MEMORY)
    assert (config.is_tied, config.vocab_size, config.rotary_base) == (True, 40, 5e5)
    stored = getattr(gguf.GGMLQuantizationType, kind)

    def coarse(array: np.ndarray) -> np.ndarray:
        return gguf.quants.dequantize(gguf.quants.quantize(array, stored), stored)

    attention = params["layers"]["block"]["self_attn"]
    for name in ("q_proj", "k_proj", "v_proj"):
        original = drawn[f"model.layers.0.self_attn.{name}.weight"]
        np.testing.assert_array_equal(attention[name]["kernel"][0].T, coarse(original))
        assert np.any(coarse(original) != original)
    embedding = coarse(drawn["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["embed"]["embed_tokens"], embedding)


def test_files_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(ConfigError) as error:
            load_gguf(path, **MEMORY)
        return str(error.value)

    path = tmp_path / "m.gguf"
    for key, value, message in (
        ("llama.rope.scaling.type", "yarn", "rope.scaling.type = 'yarn': must be 'none'"),
        ("llama.expert_count", 8, "llama.expert_count = 8: must be 0"),
        ("llama.rope.dimension_count", 2, "llama.rope.dimension_count = 2: must be 4"),
    ):
        assert refusal(golden_gguf(path, "llama", extra={key: value})).endswith(message)
    config = {**about("llama"), "rope_theta": 1e4}
    tensors = renamed(golden("llama").group("state"), 4, 2)
    tensors["rope_freqs.weight"] = np.full(2, 3, np.float32)
    message = "rope_freqs.weight = [3.0, 3.0]: must be those of Llama 3"
    assert refusal(write_gguf(path, config, tensors)).endswith(message)
    del tensors["rope_freqs.weight"]
    tensors["blk.0.attn_q.bias"] = np.ones(16, np.float32)
    del tensors["blk.1.ffn_up.weight"]
    message = refusal(write_gguf(path, config, tensors))
    assert message.removeprefix(f"file {str(path)!r} does not fit: ").split("; ") == [
        "model.layers.0.self_attn.q_proj.bias is not a parameter of this model",
        "model.layers.1.mlp.up_proj.weight is missing",
    ]
    path.write_bytes(path.read_bytes()[:100])
    assert "is damaged or no GGUF file" in refusal(path)
    path.write_bytes(b"not a model")
    assert "is damaged or no GGUF file" in refusal(path)
    assert refusal(tmp_path / "none").endswith("there is no such file")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "need the package gguf" in refusal(path)


def trained_tokenizer(pre: str) -> Tokenizer:
    """A byte-level BPE of 300 tokens with one special token, made without GGUF."""
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 5, trainer)
    # Set after training, which merged digits: only the way of cutting keeps them apart now.
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, cut])
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    return tokenizer


def metadata(tokenizer: Tokenizer, tmp_path: Path, pre: str) -> dict[str, Any]:
    """A tokenizer as GGUF's values, from the ``tokenizer.json`` that it saves."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [3 if token == "<|end|>" else 1 for token in tokens]
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    values = {"model": "gpt2", "pre": pre, "tokens": tokens, "merges": joined}
    return {**values, "token_type": kinds}


@pytest.mark.parametrize("pre", ["gpt-2", "smollm"])
def test_tokenizer_is_the_one_that_was_put_in(pre: str, tmp_path: Path) -> None:
    original = trained_tokenizer(pre)
    path = tmp_path / "m.gguf"
    golden_gguf(path, "llama", tokenizer=metadata(original, tmp_path, pre))
    found = gguf_tokenizer(path)
    for text in (TEXT, "", "1815 1815", "Myriel's\n\n  x<|end|>was", "naïve ☃ 日本"):
        assert found.encode(text).ids == original.encode(text).ids
        assert found.decode(found.encode(text).ids) == original.decode(original.encode(text).ids)
    assert found.encode("<|end|>").ids == [original.token_to_id("<|end|>")]
    # Digits one by one, or not: the two kinds differ.
    assert (len(found.encode("1815").ids) == 4) == (pre == "smollm")
    with pytest.raises(ConfigError, match="there is no such file"):
        gguf_tokenizer(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "llama", "tokenizer.ggml.model = 'llama': must be one of gpt2"),
        ("pre", "qwen2", "tokenizer.ggml.pre = 'qwen2': must be one of gpt-2, smollm, llama-bpe"),
    ],
)
def test_tokenizers_of_other_kinds(name: str, value: str, message: str, tmp_path: Path) -> None:
    values = {**metadata(trained_tokenizer("gpt-2"), tmp_path, "gpt-2"), name: value}
    path = golden_gguf(tmp_path / "m.gguf", "llama", tokenizer=values)
    with pytest.raises(ConfigError) as error:
        gguf_tokenizer(path)
    assert str(error.value) == f"file {str(path)!r}: {message}"
    path = golden_gguf(tmp_path / "n.gguf", "llama")
    with pytest.raises(ConfigError, match=r"tokenizer\.ggml\.model = None"):
        gguf_tokenizer(path)
