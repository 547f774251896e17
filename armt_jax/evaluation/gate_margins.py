"""How far a memory's write gates are from mistaking noise for facts, and moving their border.

A hard gate is shut below one logit and wide open above another. Training stops pushing once facts
are above the one and noise below the other, on what it has seen; where between them the border lies
is left to chance. Facts, and far more noise than a loss sees, show how much room there is on either
side, and the border can be moved after training: ``W_mb``'s bias of every layer, by one number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.memory import associative
from armt_jax.models import ARMT
from armt_jax.models.protocol import Params, Segment
from armt_jax.recurrence.gates import OPEN
from armt_jax.recurrence.segmenting import count_overlapping, overlapping
from armt_jax.tasks.babilong.sample import BabilongSample


class MarginRow(NamedTuple):
    """What one border would do.

    Attributes:
      raised: how much higher a logit has to be to open a gate.
      written: share of the facts that open one.
      whole: share of the facts that open one all the way.
      opened: segments of noise that open one.
      searched: of so many.
    """

    raised: float
    written: float
    whole: float
    opened: int
    searched: int


@dataclasses.dataclass(frozen=True, eq=False)
class GateMargins:
    """Logits of the widest gate, over layers with a memory and memory tokens.

    Attributes:
      facts: ``[n]``, of every fact, see ``fact_logits``.
      noise: ``[k]``, of segments of noise.
    """

    facts: np.ndarray
    noise: np.ndarray

    def row(self, model: ARMT, raised: float) -> MarginRow:
        """What ``model``'s gates would do with a border that is higher by ``raised``."""
        facts, noise = (
            np.asarray(associative.gate(model.rule, jnp.asarray(logits - raised, jnp.float32)))
            for logits in (self.facts, self.noise)
        )
        return MarginRow(
            raised,
            float(np.mean(facts > OPEN)),
            float(np.mean(facts > 1 - OPEN)),
            int(np.sum(noise > OPEN)),
            self.noise.size,
        )


def check_hard(model: ARMT) -> None:
    """Refuse gates that no logit shuts.

    Raises:
      ConfigError: they are no hard ones.
    """
    if model.rule.gate != "hard":
        raise ConfigError(
            f"model.rule = {model.config.memory_rule!r}: its gates are sigmoids, which are never "
            "shut, so there is no border to move; must be a rule with hard gates (delta_hard)"
        )


def fact_logits(
    model: ARMT,
    params: Params,
    samples: Sequence[BabilongSample],
    segment_size: int,
    segment_overlap: int = 0,
) -> np.ndarray:
    """The widest gate's logit ``[n]`` for every fact that stands whole in a segment.

    Contexts of one length are read side by side, from an empty memory on. Of a fact that stands
    whole in two segments, which overlap, it is the higher one: either may write it.

    Raises:
      ConfigError: contexts without a fact that stands whole in a segment.
    """
    stride = segment_size - segment_overlap
    count = count_overlapping(samples[0].num_tokens, segment_size, segment_overlap)
    tokens = np.stack([one.read(0, count * stride + segment_overlap) for one in samples])
    tokens = overlapping(tokens, segment_size, segment_overlap).swapaxes(0, 1)
    layers = jnp.asarray(model.config.layers_with_memory)

    def step(state: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        segment = Segment(tokens, jnp.ones(tokens.shape, bool))
        logits = model.gate_logits(params, state, segment)
        return model.write(params, state, segment), jnp.max(logits[layers], axis=(0, 2))

    start = model.init_state(len(samples))
    _, widest = jax.jit(lambda tokens: jax.lax.scan(step, start, tokens))(jnp.asarray(tokens))
    widest, starts = np.asarray(widest, np.float32), np.arange(count) * stride
    found = []
    for logits, sample in zip(widest.T, samples, strict=True):
        for first, stop in sample.fact_spans:
            whole = logits[(starts <= first) & (stop <= starts + segment_size)]
            found += [whole.max()] if whole.size else []
    if not found:
        raise ConfigError(
            f"segment_size = {segment_size}: no fact of {len(samples)} contexts stands whole in a "
            "segment; must be longer, or the contexts more"
        )
    return np.asarray(found, np.float32)


def raise_border(model: ARMT, params: Params, by: float) -> Params:
    """``params`` whose gates open ``by`` later: the biases of ``W_mb``, less ``by``.

    Raises:
      ConfigError: as ``check_hard``, or a change that is not finite.
    """
    check_hard(model)
    if not np.isfinite(by):
        raise ConfigError(f"raised = {by}: must be a number")

    def change(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return leaf - jnp.asarray(by, leaf.dtype) if name == "layers.memory.W_mb.bias" else leaf

    return jax.tree_util.tree_map_with_path(change, params)
