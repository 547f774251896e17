"""Which parameters are trained, and by which factor of the learning rate.

The one rule is ``rate_factors``; the optimizer, the gradients and the table follow it.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from armt_jax.config import ConfigError, OptimizerConfig, TuningConfig
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.optimizer import create_optimizer

# Memory tokens, projections of the associative memory, RMT-R's retrieval.
MEMORY = re.compile(r"embed\.memory|layers\.memory\..*|retrieval\..*")
LORA = re.compile(r"lora\..*")
GATES = re.compile(r"layers\.memory\.W_mb\..*")
ASSOCIATIVE = re.compile(r"layers\.memory\..*")
TEACHER = re.compile(r"teacher\..*")


def rate_factors(tuning: TuningConfig, params: Any) -> Any:
    """The learning rate's factor of every parameter (arrays, shapes or gradients); 0: frozen.

    Raises:
      ConfigError: a group that names no parameter, or nothing that is trained.
    """
    names = [name for name, _ in leaf_names(params)]
    for index, group in enumerate(tuning.groups):
        if not any(re.fullmatch(group, name) for name in names):
            raise ConfigError(
                f"tuning.groups[{index}] = {group!r}: matches no parameter; the first are "
                f"{', '.join(names[:3])}"
            )
    factors = [_factor(tuning, name) for name in names]
    if not any(factors):
        raise ConfigError(
            f"tuning.trains = {tuning.trains!r}: leaves nothing to train of this model"
        )
    return jax.tree.unflatten(jax.tree.structure(params), factors)


def _factor(tuning: TuningConfig, name: str) -> float:
    if TEACHER.fullmatch(name):
        return 0.0
    of_memory = tuning.memory_factor if ASSOCIATIVE.fullmatch(name) else 1.0
    of_gates = tuning.gate_factor if GATES.fullmatch(name) else 1.0
    return of_memory * of_gates * _group_factor(tuning, name)


def _group_factor(tuning: TuningConfig, name: str) -> float:
    for group, factor in zip(tuning.groups, tuning.factors, strict=True):
        if re.fullmatch(group, name):
            return factor
    if tuning.trains == "all":
        return 1.0
    trained = bool(MEMORY.fullmatch(name))
    if tuning.trains == "lora":
        trained = trained or bool(LORA.fullmatch(name))
    return float(trained)


def freeze(tuning: TuningConfig, params: Any) -> Any:
    """``params`` of which the frozen ones have no gradient: none is computed for them."""
    factors = rate_factors(tuning, params)
    return jax.tree.map(lambda x, f: x if f else lax.stop_gradient(x), params, factors)


def tuned_optimizer(config: OptimizerConfig, tuning: TuningConfig) -> optax.GradientTransformation:
    """``create_optimizer`` for the parameters that are trained; the others have no moments.

    Clipping, too, looks at the gradients of those alone. Frozen parameters get updates of 0, which
    leave them bit-identical.
    """
    optimizer = create_optimizer(config)
    if tuning.is_plain:
        return optimizer

    def trained(params: Any) -> Any:
        return jax.tree.map(bool, rate_factors(tuning, params))

    def scale(updates: Any, params: Any = None) -> Any:
        del params
        factors = rate_factors(tuning, updates)
        return jax.tree.map(lambda u, f: u * f if f else jnp.zeros_like(u), updates, factors)

    return optax.chain(optax.masked(optimizer, trained), optax.stateless(scale))
