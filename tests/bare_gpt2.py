"""GPT-2 over one text in plain NumPy: no memory, no memory tokens, no cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from armt_jax import ModelConfig


def read_alone(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """Logits ``[t, v]`` of ``tokens [t]`` from the first position on."""
    embed = {key: np.asarray(leaf) for key, leaf in params["embed"].items()}
    x = embed["wte"][tokens] + embed["wpe"][: len(tokens)]
    for l in range(config.n_layer):
        x = _block(config, _layer(params["layers"]["block"], l), x)
    return _norm(config, _layer(params["head"]["ln_f"], None), x) @ embed["wte"].T


def _layer(tree: Any, l: int | None) -> Any:
    if isinstance(tree, dict):
        return {key: _layer(leaf, l) for key, leaf in tree.items()}
    return np.asarray(tree if l is None else tree[l])


def _block(config: ModelConfig, p: Any, x: np.ndarray) -> np.ndarray:
    length, width = x.shape
    qkv = _dense(p["attn"]["c_attn"], _norm(config, p["ln_1"], x))
    attended = np.zeros((length, width))
    for h in range(config.n_head):
        cut = slice(h * config.head_dim, (h + 1) * config.head_dim)
        q, k, v = (part[:, cut] for part in np.split(qkv, 3, axis=1))
        for t in range(length):
            weights = np.exp(k[: t + 1] @ q[t] / np.sqrt(config.head_dim))
            attended[t, cut] = weights @ v[: t + 1] / weights.sum()
    x = x + _dense(p["attn"]["c_proj"], attended)
    hidden = _dense(p["mlp"]["c_fc"], _norm(config, p["ln_2"], x))
    hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return x + _dense(p["mlp"]["c_proj"], hidden)


def _dense(p: Any, x: np.ndarray) -> np.ndarray:
    return x @ p["kernel"] + p["bias"]


def _norm(config: ModelConfig, p: Any, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config.layer_norm_eps)
    return centred / deviation * p["scale"] + p["bias"]
