"""Llama models in GGUF files (llama.cpp's), quantised or not: weights and tokenizer in one.

    params, config = armt_jax.interop.load_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")
    tokenizer = armt_jax.interop.gguf_tokenizer("SmolLM2-135M-Instruct.Q4_1.gguf")

The package ``gguf`` reads and dequantises (``pip install -r requirements-gguf.txt``); the result
is float32 or what ``dtype`` says, never quantised.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.interop.gguf_tokenizer import build_tokenizer
from armt_jax.interop.hugging_face import model_config
from armt_jax.interop.pretrained import import_params
from armt_jax.interop.weights import Weights
from armt_jax.models.attention import frequency_divisors
from armt_jax.models.protocol import Params

# GGUF's names of a block's parts, and Hugging Face's.
_BLOCK = {
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
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# By what Llama 3 divides its rotary frequencies, and the three of its four settings that all its
# releases share (``rope_scaling`` of their ``config.json``); the file has the quotients only.
_DIVISORS = "rope_freqs.weight"
_LLAMA3 = (1.0, 4.0, 8192.0)
_FIELDS = {
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_kv_head": "attention.head_count_kv",
    "d_model": "embedding_length",
    "d_ff": "feed_forward_length",
    "n_positions": "context_length",
    "layer_norm_eps": "attention.layer_norm_rms_epsilon",
}


def load_gguf(
    path: str | os.PathLike[str],
    *,
    rng: jax.Array | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    **settings: Any,
) -> tuple[Params, ModelConfig]:
    """A Llama model with an associative memory, which starts as the model itself.

    Arguments and result are those of ``load_hugging_face``, for a file.

    Raises:
      ConfigError: no package ``gguf``, no such file, a damaged one, another architecture, weights
        that do not fit (all listed at once).
    """
    reader = _open(path)
    where = f"file {str(path)!r}"
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    fields = _fields(reader, tensors, where)
    if _DIVISORS in tensors:
        fields["rotary_scaling"] = _rotary_scaling(tensors.pop(_DIVISORS).data, fields, where)
    config = model_config(fields, settings)
    named = {_hugging_face_name(name): tensor for name, tensor in tensors.items()}
    # GGUF writes axes with the fastest first.
    shapes = {name: tuple(int(n) for n in t.shape[::-1]) for name, t in named.items()}

    def read(name: str) -> np.ndarray:
        tensor = named[name]
        try:
            array = _gguf().quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise ConfigError(f"{where}: {name} is {kind}, which gguf cannot dequantise") from error
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.n_head if name.endswith("q_proj.weight") else config.kv_heads
            return half_split_rows(array, heads)
        return array

    params = import_params(Weights(shapes, read), config, what=where, rng=rng, dtype=dtype)
    return params, config


def gguf_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a GGUF file's metadata (byte-level BPE); ``.save`` writes tokenizer.json.

    Raises:
      ConfigError: as ``load_gguf``, or a tokenizer of another kind.
    """
    reader = _open(path)
    values = {
        name.removeprefix("tokenizer.ggml."): field.contents()
        for name, field in reader.fields.items()
        if name.startswith("tokenizer.ggml.")
    }
    return build_tokenizer(values, f"file {str(path)!r}")


def half_split_rows(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows ``[heads * e, d]`` from interleaved rotary pairs to half-split ones.

    llama.cpp turns dimensions ``(2 i, 2 i + 1)`` of a head together and its files keep the rows of
    q and k in that order; here and in Hugging Face's files it is ``(i, i + e / 2)``.
    """
    pairs = matrix.reshape(heads, matrix.shape[0] // heads // 2, 2, *matrix.shape[1:])
    return pairs.swapaxes(1, 2).reshape(matrix.shape)


def _gguf() -> Any:
    try:
        # Optional, so not imported where every user would need it.
        return importlib.import_module("gguf")
    except ImportError as error:
        raise ConfigError(
            "GGUF files need the package gguf: pip install -r requirements-gguf.txt"
        ) from error


def _open(path: str | os.PathLike[str]) -> Any:
    gguf = _gguf()
    if not Path(path).is_file():
        raise ConfigError(f"file {str(path)!r}: there is no such file")
    try:
        return gguf.GGUFReader(path)
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise ConfigError(f"file {str(path)!r}: is damaged or no GGUF file ({error})") from error


def _fields(reader: Any, tensors: dict[str, Any], where: str) -> dict[str, Any]:
    def value(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    architecture = value("general.architecture")
    if architecture != "llama":
        raise ConfigError(f"{where}: general.architecture = {architecture!r}: must be 'llama'")
    missing = [f"llama.{key}" for key in _FIELDS.values() if value(f"llama.{key}") is None]
    # Files of models whose heads share no keys leave it out.
    missing = [key for key in missing if key != "llama.attention.head_count_kv"]
    missing += ["token_embd.weight"] if "token_embd.weight" not in tensors else []
    if missing:
        raise ConfigError(f"{where}: lacks {', '.join(missing)}")
    fields = {name: value(f"llama.{key}") for name, key in _FIELDS.items()}
    width = fields["d_model"] // fields["n_head"]
    expected = {
        "llama.rope.dimension_count": width,
        "llama.attention.key_length": width,
        "llama.attention.value_length": width,
        "llama.rope.scaling.type": "none",
        "llama.expert_count": 0,
    }
    for key, wanted in expected.items():
        if value(key, wanted) != wanted:
            raise ConfigError(f"{where}: {key} = {value(key)!r}: must be {wanted!r}")
    fields["layer_norm_eps"] = _as_written(fields["layer_norm_eps"])
    return {
        "backbone": "llama",
        **fields,
        "rotary_base": _as_written(value("llama.rope.freq_base", 10000.0)),
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_embeddings": "output.weight" not in tensors,
    }


def _rotary_scaling(divisors: np.ndarray, fields: dict[str, Any], where: str) -> tuple[float, ...]:
    """The settings of ``models.attention.frequency_divisors`` that give ``divisors``."""
    dims = fields["d_model"] // fields["n_head"]
    scaling = (_as_written(np.max(divisors)), *_LLAMA3)
    if divisors.shape == (dims // 2,) and scaling[0] >= 1:
        expected = frequency_divisors(dims, fields["rotary_base"], scaling)
        if np.allclose(divisors, expected, rtol=1e-5, atol=0):
            return scaling
    raise ConfigError(f"{where}: {_DIVISORS} = {divisors.tolist()}: must be those of Llama 3")


def _as_written(value: float) -> float:
    """A float32 of the file as the decimal it was made from: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value)))


def _hugging_face_name(name: str) -> str:
    """A GGUF name under Hugging Face's; an unknown one as it is, to be listed as left over."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block is not None and block[2] in _BLOCK:
        return f"model.layers.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
    return _OUTER.get(name, name)
