"""The authors' checkpoints: their parameter names and layouts, both ways.

Their names are Hugging Face's under a wrapper: ``memory_cell.memory`` and
``memory_cell.model.<name>``, a block being ``...h.I.layer.<name>`` (GPT-2) or
``...layers.I.layer.<name>`` (GPT-NeoX, Llama) with its memory weights beside it. GPT-2's ``Conv1D``
weights are (in, out), ``torch.nn.Linear``'s (out, in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.models.armt import ARMT
from armt_jax.models.backbones import BACKBONES
from armt_jax.models.protocol import Params

_MODEL = "memory_cell.model."
_ROOT = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "llama": "model."}
_LAYERS = {"gpt2": "h", "gpt_neox": "layers", "llama": "layers"}
# Buffers that the reference saves with its parameters; they are computed here.
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
_BUFFER_ENDS = (*_BUFFERS, ".rotary_emb.inv_freq", ".W_mem", ".z")


def _official_name(
    config: ModelConfig, path: tuple[str, ...], layer: int | None
) -> tuple[str, bool]:
    """The reference name of a parameter path, and whether its matrix is stored transposed."""
    root = _MODEL + _ROOT[config.backbone]
    backbone = BACKBONES[config.backbone]
    group, *rest = path
    if group == "embed":
        return ("memory_cell.memory" if rest == ["memory"] else f"{root}{rest[0]}.weight"), False
    if group == "head":
        if rest[0] == backbone.head:
            return f"{_MODEL}{rest[0]}.weight", True
        return f"{root}{rest[0]}.{_LEAF[rest[1]]}", False
    where = f"{root}{_LAYERS[config.backbone]}.{layer}."
    *modules, leaf = rest[1:]
    inside = "layer." if rest[0] == "block" else ""
    is_linear = leaf == "kernel" and (rest[0] == "memory" or config.backbone != "gpt2")
    return f"{where}{inside}{'.'.join(modules)}.{_LEAF[leaf]}", is_linear


_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def _template(config: ModelConfig) -> Params:
    return jax.eval_shape(lambda: ARMT(config).init(jax.random.key(0)))


def _paths(tree: Params) -> list[tuple[tuple[str, ...], Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(tuple(key.key for key in path), leaf) for path, leaf in leaves]


def _tied_aliases(config: ModelConfig, names: set[str]) -> Callable[[str], bool]:
    """Whether a name of the state dict repeats another (the reference lists tied weights twice)."""

    def is_alias(name: str) -> bool:
        if name.startswith("memory_cell.layers."):
            rest = name.removeprefix("memory_cell.layers.")
            return f"{_MODEL}{_ROOT[config.backbone]}{_LAYERS[config.backbone]}.{rest}" in names
        head = "embed_out" if config.backbone == "gpt_neox" else "lm_head"
        return config.is_tied and name == f"{_MODEL}{head}.weight"

    return is_alias


def load_official(
    state_dict: Mapping[str, np.ndarray],
    config: ModelConfig,
    dtype: jax.typing.DTypeLike | None = None,
) -> Params:
    """Parameters from the authors' ``{name: array}``.

    Args:
      state_dict: the authors' names; aliases of tied weights and buffers are recognised.
      config: of the model the parameters are for.
      dtype: of the result; by default JAX's float (float32 unless x64 is enabled).

    Raises:
      ConfigError: names missing or left over, or arrays of another shape, all listed at once.
    """
    if config.family != "armt":
        raise ConfigError(f"model.family = {config.family!r}: load_official reads armt")
    dtype = jnp.result_type(float) if dtype is None else dtype
    problems: list[str] = []
    used: set[str] = set()

    def fetch(path: tuple[str, ...], layer: int | None, shape: tuple[int, ...]) -> np.ndarray:
        name, transposed = _official_name(config, path, layer)
        if name not in state_dict:
            problems.append(f"{name} is missing")
            return np.zeros(shape)
        used.add(name)
        array = np.asarray(state_dict[name])
        wanted = shape[::-1] if transposed else shape
        if array.shape != wanted:
            problems.append(f"{name} has shape {array.shape}, must be {wanted}")
            return np.zeros(shape)
        return array.T if transposed else array

    def build(path: tuple[str, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[0] != "layers":
            return jnp.asarray(fetch(path, None, leaf.shape), dtype)
        layers = [fetch(path, layer, leaf.shape[1:]) for layer in range(config.n_layer)]
        return jnp.asarray(np.stack(layers), dtype)

    template = _template(config)
    leaves = [build(path, leaf) for path, leaf in _paths(template)]
    names = set(state_dict)
    is_alias = _tied_aliases(config, names)
    for name in sorted(names - used):
        if not is_alias(name) and not name.endswith(_BUFFER_ENDS):
            problems.append(f"{name} is not a parameter of this model")
    if problems:
        raise ConfigError("official checkpoint does not fit: " + "; ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def to_official(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """Parameters under the authors' names and layouts (tied weights once), dtypes kept."""
    state_dict: dict[str, np.ndarray] = {}
    for path, leaf in _paths(params):
        stacked = path[0] == "layers"
        for layer in range(config.n_layer) if stacked else [None]:
            name, transposed = _official_name(config, path, layer)
            array = np.asarray(leaf if layer is None else leaf[layer])
            state_dict[name] = array.T if transposed else array
    return state_dict
