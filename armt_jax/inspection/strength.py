"""How much of a fact is left after noise has been read: by recall, and by what is answered.

After the fact's segment, the keys that were just written recall ``y_0`` from each layer. After n
segments of noise they recall ``y_n``. Over the memory tokens of a layer,

    strength     = <y_n, y_0> / <y_0, y_0>            1 right behind the fact, 0 where it is gone
    interference = |y_n - strength y_0| / |y_0|       what else has come there

and, where a question and its answer are given, the probability of the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.inspection.observe import observe
from armt_jax.memory import associative
from armt_jax.models import ARMT
from armt_jax.models.armt import ArmtState
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.recurrence.segmenting import count_overlapping
from armt_jax.streaming import StreamReader

# Added to |y_0|^2: a layer that recalls nothing has strength 0, not NaN.
_TINY = 1e-30


class Strength(NamedTuple):
    """What is left of a fact at some distances.

    Attributes:
      distances: int ``[n]``, segments of noise read after the fact.
      strength, interference: ``[n, l]``.
      answer: ``[n]``, the probability of the answer; None where none was given.
    """

    distances: np.ndarray
    strength: np.ndarray
    interference: np.ndarray
    answer: np.ndarray | None


class Asked(NamedTuple):
    """A question with its answer: ids ``[t]``, of which the first ``prompt`` are the question."""

    tokens: np.ndarray
    prompt: int


def fact_strength(
    reader: StreamReader,
    params: Params,
    state: ArmtState,
    fact: Segment,
    noise: np.ndarray,
    distances: Sequence[int],
    asked: Asked | None = None,
) -> Strength:
    """Write a fact and look for it again after more and more noise.

    Args:
      reader: of the model.
      params: the model's, layers stacked.
      state: before the fact, of one text.
      fact: one segment, leaves ``[1, t]``.
      noise: ids ``[n]``, of which whole segments are read, cut as the reader cuts a text.
      distances: in segments, ascending, the last one no more than the noise has.
      asked: a question about the fact, and its answer.

    Raises:
      ConfigError: distances that descend or go beyond the noise, a model of another family.
    """
    overlap = reader.segment_overlap
    room = count_overlapping(noise.size, reader.segment_size, overlap)
    if list(distances) != sorted({d for d in distances if 0 <= d <= room}):
        raise ConfigError(
            f"distances = {list(distances)}: must ascend from 0 to {room}, the segments of noise"
        )
    one = jax.tree.map(lambda leaf: leaf[None], fact)
    state, seen = observe(reader.model, params, state, one)
    keys = seen.keys[0]
    first = _recall(reader.model, state, keys)
    answers = []
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    stream = reader.start(1)._replace(memory=jax.tree.map(jnp.copy, state))
    done = 0
    for distance in distances:
        until = distance * reader.stride + overlap if distance else 0
        stream, done = reader.feed(stream, noise[None, done:until]), until
        memory = jax.device_put(stream.memory, jax.devices()[0])
        rows.append(_compared(_recall(reader.model, memory, keys), first))
        if asked is not None:
            answers.append(_probability(reader.model, params, memory, asked))
    strength, interference = (np.stack(column) for column in zip(*rows, strict=True))
    return Strength(
        np.array(distances), strength, interference, np.array(answers) if asked else None
    )


def _recall(model: SegmentModel, state: ArmtState, keys: jax.Array) -> np.ndarray:
    """What keys ``[l, b, m, k]`` recall from the memories of their layers: ``[l, b, m, d]``."""
    assert isinstance(model, ARMT)
    memories = associative.MemoryState(*state[:3])
    return np.asarray(jax.vmap(functools.partial(associative.recall, model.rule))(memories, keys))


def _compared(y: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axes = (1, 2, 3)
    length = np.sum(first * first, axis=axes) + _TINY
    strength = np.sum(y * first, axis=axes) / length
    rest = y - strength[:, None, None, None] * first
    return strength, np.sqrt(np.sum(rest * rest, axis=axes) / length)


def _probability(model: SegmentModel, params: Params, state: ArmtState, asked: Asked) -> float:
    tokens = jnp.asarray(asked.tokens, jnp.int32)[None, None]
    return float(_answer_probability(model, params, state, tokens, asked.prompt))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _answer_probability(
    model: SegmentModel, params: Params, state: ArmtState, tokens: jax.Array, prompt: int
) -> jax.Array:
    hidden = model.ask(params, state, Segment(tokens, jnp.ones(tokens.shape, bool)))
    logits = model.readout(params, hidden[:, :, prompt - 1 : -1])
    scores = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    right = jnp.take_along_axis(scores, tokens[:, :, prompt:, None], axis=-1)
    return jnp.exp(jnp.sum(right))
