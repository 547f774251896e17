"""The authors' checkpoints: their parameter names and layouts, both ways.

Their names are Hugging Face's under a wrapper: ``memory_cell.memory`` and
``memory_cell.model.<name>``, a block being ``...h.I.layer.<name>`` (GPT-2) or
``...layers.I.layer.<name>`` (GPT-NeoX, Llama) with its memory beside it: ARMT's weights, PRMT's
``memory (1, m, d)``. RMT's blocks are not wrapped and have no ``layer.``. GPT-2's ``Conv1D``
weights are (in, out), ``torch.nn.Linear``'s (out, in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.models import create_model
from armt_jax.models.backbones import BACKBONES
from armt_jax.models.frozen import check_frozen
from armt_jax.models.protocol import Params

FAMILIES = ("armt", "rmt", "prmt")
_MODEL = "memory_cell.model."
_ROOT = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "llama": "model."}
_LAYERS = {"gpt2": "h", "gpt_neox": "layers", "llama": "layers"}
# Buffers that the reference saves with its parameters; they are computed here.
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
_BUFFER_ENDS = (*_BUFFERS, ".rotary_emb.inv_freq", ".W_mem", ".z")


class _Place(NamedTuple):
    """Where a parameter is in a state dict: its name, and what is done to read and write it."""

    name: str
    read: Callable[[np.ndarray], np.ndarray] = np.asarray
    write: Callable[[np.ndarray], np.ndarray] = np.asarray


def _official_place(config: ModelConfig, path: tuple[str, ...], layer: int | None) -> _Place:
    """The reference's place for a parameter path."""
    root = _MODEL + _ROOT[config.backbone]
    backbone = BACKBONES[config.backbone]
    group, *rest = path
    if group == "embed":
        return _Place("memory_cell.memory" if rest == ["memory"] else f"{root}{rest[0]}.weight")
    if group == "head":
        if rest[0] == backbone.head:
            return _Place(f"{_MODEL}{rest[0]}.weight", np.transpose, np.transpose)
        return _Place(f"{root}{rest[0]}.{_LEAF[rest[1]]}")
    where = f"{root}{_LAYERS[config.backbone]}.{layer}."
    if rest == ["memory"]:
        return _Place(f"{where}memory", lambda x: x[0], lambda x: x[None])
    *modules, leaf = rest[1:]
    inside = "layer." if rest[0] == "block" and config.family != "rmt" else ""
    name = f"{where}{inside}{'.'.join(modules)}.{_LEAF[leaf]}"
    if leaf == "kernel" and (rest[0] == "memory" or config.backbone != "gpt2"):
        return _Place(name, np.transpose, np.transpose)
    return _Place(name)


_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def _template(config: ModelConfig) -> Params:
    return jax.eval_shape(lambda: create_model(config).init(jax.random.key(0)))


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
      ConfigError: a family that the authors have no names for; names missing or left over, or
        arrays of another shape, all listed at once; a memory in a layer that has none here.
    """
    _check_family(config)
    dtype = jnp.result_type(float) if dtype is None else dtype
    problems: list[str] = []
    used: set[str] = set()

    def fetch(path: tuple[str, ...], layer: int | None, shape: tuple[int, ...]) -> np.ndarray:
        name, read, write = _official_place(config, path, layer)
        blank = np.zeros(shape)
        if name not in state_dict:
            problems.append(f"{name} is missing")
            return blank
        used.add(name)
        array = np.asarray(state_dict[name])
        wanted = write(blank).shape
        if array.shape != wanted:
            problems.append(f"{name} has shape {array.shape}, must be {wanted}")
            return blank
        return read(array)

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
    params = jax.tree.unflatten(jax.tree.structure(template), leaves)
    check_frozen(config, params)
    return params


def to_official(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """Parameters under the authors' names and layouts (tied weights once), dtypes kept.

    Raises:
      ConfigError: a family that the authors have no names for.
    """
    _check_family(config)
    state_dict: dict[str, np.ndarray] = {}
    for path, leaf in _paths(params):
        stacked = path[0] == "layers"
        for layer in range(config.n_layer) if stacked else [None]:
            place = _official_place(config, path, layer)
            state_dict[place.name] = place.write(np.asarray(leaf if layer is None else leaf[layer]))
    return state_dict


def _check_family(config: ModelConfig) -> None:
    if config.family not in FAMILIES:
        raise ConfigError(
            f"model.family = {config.family!r}: must be one of {', '.join(FAMILIES)}, which the "
            "authors' code has names for"
        )
