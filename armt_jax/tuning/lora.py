"""Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): ``W + scale * down @ up``.

Pure functions of the parameter tree. The low-rank factors stand beside the parameters under
``lora``, in the places of the matrices that they change: ``lora.layers.block.mlp.c_fc`` has ``down
[l, i, r]`` and ``up [l, r, o]`` for ``layers.block.mlp.c_fc.kernel [l, i, o]``. ``up`` starts at
zero, so that a model starts as what it was.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ConfigError, TuningConfig
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.sharding.rules import leaf_names

KEY = "lora"
_KERNEL = ".kernel"


def lora_targets(tuning: TuningConfig, params: Params) -> list[str]:
    """Names of the weight matrices ``[l, i, o]`` of layers that ``lora_targets`` matches.

    Raises:
      ConfigError: there is none.
    """
    found = [
        name
        for name, leaf in leaf_names(params)
        if name.endswith(_KERNEL)
        and re.fullmatch(tuning.lora_targets, name.removesuffix(_KERNEL))
        and len(leaf.shape) == 3
    ]
    if not found:
        raise ConfigError(
            f"tuning.lora_targets = {tuning.lora_targets!r}: matches no weight matrix of a layer"
        )
    return found


def init_lora(tuning: TuningConfig, rng: jax.Array, params: Params) -> Params:
    """Fresh factors for ``params``: ``down`` normal with ``1 / sqrt(i)``, ``up`` zero."""
    factors: Params = {}
    for name in lora_targets(tuning, params):
        path = name.split(".")[:-1]
        kernel = _get(params, [*path, "kernel"])
        layers, inputs, outputs = kernel.shape
        rng, own = jax.random.split(rng)
        down = jax.random.normal(own, (layers, inputs, tuning.lora_rank), kernel.dtype)
        up = jnp.zeros((layers, tuning.lora_rank, outputs), kernel.dtype)
        factors = _put(factors, path, {"down": down / inputs**0.5, "up": up})
    return factors


def merge_lora(tuning: TuningConfig, params: Params) -> Params:
    """``params`` with ``lora`` merged into the matrices, and nothing under ``lora`` any more."""
    merged = {key: value for key, value in params.items() if key != KEY}
    for name in lora_targets(tuning, merged):
        path = name.split(".")[:-1]
        kernel, factor = _get(merged, [*path, "kernel"]), _get(params[KEY], path)
        change = jnp.einsum("lir,lro->lio", factor["down"], factor["up"])
        merged = _put(merged, [*path, "kernel"], kernel + tuning.lora_scale * change)
    return merged


@dataclasses.dataclass(frozen=True)
class WithLora:
    """A model whose parameters have ``lora`` beside them; ``TunedScoring`` merges these.

    Everything but ``init`` is the model's own.
    """

    model: SegmentModel
    tuning: TuningConfig

    def init(self, rng: jax.Array) -> Params:
        """Fresh parameters of both; the model's own are those that it draws without ``lora``."""
        params = self.model.init(rng)
        own = jax.random.fold_in(rng, 1)
        return {**params, KEY: init_lora(self.tuning, own, params)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def _get(tree: Params, path: list[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Params, path: list[str], value: Any) -> Params:
    """A copy of nested dicts with ``value`` at ``path``."""
    key, *rest = path
    return {**tree, key: _put(tree.get(key, {}), rest, value) if rest else value}
