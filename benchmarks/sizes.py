"""The models that are measured: Appendix E's and GPT-2 small with the paper's memory."""

from __future__ import annotations

from typing import Any

from armt_jax.config import ModelConfig

RETRIEVAL: dict[str, Any] = {
    "n_layer": 4,
    "n_head": 4,
    "d_model": 128,
    "num_mem_tokens": 4,
    "d_mem": 32,
}
GPT2_SMALL: dict[str, Any] = {
    "n_layer": 12,
    "n_head": 12,
    "d_model": 768,
    "num_mem_tokens": 10,
    "d_mem": 64,
}

# What reads long texts.
READERS: dict[str, dict[str, Any]] = {
    "gpt2_small": {**GPT2_SMALL, "vocab_size": 50257},
    "small": {**RETRIEVAL, "vocab_size": 50257},
    "small_bytes": {**RETRIEVAL, "vocab_size": 256},
}
# Segments of a block and devices that share a segment, where reading was fastest (two CPU cores): a
# small model's block must be long for two devices to get going, and GPT-2 small needs one device.
READ_BEST = {"gpt2_small": (8, 1), "small": (32, 2), "small_bytes": (32, 2)}


def reader_config(name: str, segment: int) -> ModelConfig:
    """The reader called ``name``, with positions for segments of ``segment`` tokens."""
    sizes = READERS[name]
    return ModelConfig(n_positions=max(1024, segment + sizes["num_mem_tokens"]), **sizes)
