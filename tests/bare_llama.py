"""A Llama in plain NumPy straight from a GGUF file's tensors: no memory, no cache, no renaming.

Rotary positions turn neighbouring dimensions ``(2 i, 2 i + 1)``, as llama.cpp does with the rows of
q and k as the file has them: nothing of the importer is used, and its order of rows not either.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class BareLlama:
    """One file's model."""

    def __init__(self, gguf: Any, path: str) -> None:
        self.quants, reader = gguf.quants, gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.get = lambda key: reader.get_field(f"llama.{key}").contents()

    def weight(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        return self.quants.dequantize(tensor.data, tensor.tensor_type)

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """``[t, v]`` of ``tokens [t]``."""
        embedding = self.weight("token_embd.weight")
        x = embedding[tokens]
        for layer in range(self.get("block_count")):
            x = self._block(f"blk.{layer}.", x)
        head = embedding if "output.weight" not in self.tensors else self.weight("output.weight")
        return self._norm("output_norm.weight", x) @ head.T

    def _block(self, name: str, x: np.ndarray) -> np.ndarray:
        length, heads = len(x), self.get("attention.head_count")
        groups = self.get("attention.head_count_kv")
        normed = self._norm(f"{name}attn_norm.weight", x)
        q, k, v = (normed @ self.weight(f"{name}attn_{part}.weight").T for part in "qkv")
        q = self._turn(q.reshape(length, heads, -1))
        k = self._turn(k.reshape(length, groups, -1))
        v = v.reshape(length, groups, -1)
        attended = np.zeros_like(q)
        for head in range(heads):
            group = head * groups // heads
            scores = q[:, head] @ k[:, group].T / np.sqrt(q.shape[-1])
            scores[np.triu_indices(length, 1)] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            attended[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, group]
        x = x + attended.reshape(length, -1) @ self.weight(f"{name}attn_output.weight").T
        normed = self._norm(f"{name}ffn_norm.weight", x)
        gate = normed @ self.weight(f"{name}ffn_gate.weight").T
        hidden = gate / (1 + np.exp(-gate)) * (normed @ self.weight(f"{name}ffn_up.weight").T)
        return x + hidden @ self.weight(f"{name}ffn_down.weight").T

    def _turn(self, x: np.ndarray) -> np.ndarray:
        base, width = self.get("rope.freq_base"), x.shape[-1]
        angles = np.arange(len(x))[:, None] / base ** (np.arange(0, width, 2) / width)
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
        return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        mean = np.mean(x**2, axis=-1, keepdims=True)
        epsilon = self.get("attention.layer_norm_rms_epsilon")
        return x / np.sqrt(mean + epsilon) * self.weight(name)


def next_token_loss(logits: np.ndarray, tokens: np.ndarray) -> float:
    """Mean negative log-likelihood of ``tokens [t]`` after the first, in nats."""
    logits = logits[:-1] - logits[:-1].max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, tokens[1:, None], axis=-1)[:, 0]
    return float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - chosen))
