"""What a memory does while its model is trained: gates, gamma and sizes of A, layer by layer.

A memory that is not used looks like a hard task: the loss goes down, and more slowly. Its gates
say it. A gate that shuts early, while what the memory recalls is still noise, has no gradient that
would open it again (``BUILD_NOTES.md``, "Language modelling").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from armt_jax.config import AnyExperiment
from armt_jax.inspection.observe import Observation, observe
from armt_jax.models import ARMT, create_model
from armt_jax.models.protocol import Params, Segment
from armt_jax.recurrence.gates import OPEN
from armt_jax.sharding import replicated
from armt_jax.tuning import plain_params

# A mean gate below it: what is written is lost beside what a float32 holds already.
SHUT = 1e-6


class MemoryLog:
    """Statistics of ``train.memory_contexts`` contexts of a validation set, for the metrics."""

    def __init__(self, config: AnyExperiment, mesh: Mesh) -> None:
        self._config = config
        model = create_model(config.model)
        self._contexts = config.train.memory_contexts if isinstance(model, ARMT) else 0

        def look(params: Params, segments: Segment) -> dict[str, jax.Array]:
            plain = plain_params(config, params)
            state = model.init_state(segments.tokens.shape[1])
            _, seen = observe(model, plain, state, segments)
            return _means(seen, jnp.any(segments.mask, axis=-1))

        self._told = False
        self._look = jax.jit(look, out_shardings=replicated(mesh))

    def __call__(self, params: Params, batch: Any, say: Callable[[str], None]) -> dict[str, float]:
        """``memory/gate_0`` and so on for the contexts of ``batch``; empty where there is no log.

        Per layer: ``gate``, mean of beta; ``open``, share of segments in which a gate is (more than
        ``recurrence.gates.OPEN``); ``gamma``, mean of Eq. 3's, of rules that have it; ``size``,
        mean Frobenius norm of A behind the context. ``say`` is told, once, where all gates are
        shut.
        """
        if self._contexts == 0:
            return {}
        tokens = np.swapaxes(np.asarray(batch.context[: self._contexts]), 0, 1)
        mask = np.swapaxes(np.asarray(batch.context_mask[: self._contexts]), 0, 1)
        if mask.ndim == 2:
            mask = np.broadcast_to(mask[:, :, None], tokens.shape)
        found = jax.device_get(self._look(params, Segment(jnp.asarray(tokens), jnp.asarray(mask))))
        layers = self._config.model.layers_with_memory
        if not self._told and max(found["gate"][list(layers)]) < SHUT:
            self._told = True
            say("warning: the write gates of all layers are shut; the memory is not used")
        return {
            f"memory/{name}_{layer}": float(values[layer])
            for name, values in found.items()
            for layer in layers
        }


def _means(seen: Observation, there: jax.Array) -> dict[str, jax.Array]:
    """``[l]`` each; segments ``there [s, b]`` count."""
    weights = there[:, None, :] / jnp.maximum(jnp.sum(there), 1)

    def mean(values: jax.Array) -> jax.Array:  # of [s, l, b]
        return jnp.sum(jnp.where(there[:, None, :], values, 0) * weights, axis=(0, 2))

    found = {
        "gate": mean(jnp.mean(seen.beta, axis=-1)),
        "open": mean(jnp.max(seen.beta, axis=-1) > OPEN),
        "size": jnp.mean(seen.A[-1], axis=-1),
    }
    if seen.gamma is not None:
        found["gamma"] = mean(jnp.mean(seen.gamma, axis=-1))
    return found
