"""What a trained memory writes: its gates on segments with facts, and on those without.

A memory that lasts writes facts and nothing else. How often it does otherwise, in which layer, and
at what text, says why facts are lost long before a loss or an exact match shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.inspection.observe import observe
from armt_jax.models import ARMT
from armt_jax.models.protocol import Params, Segment
from armt_jax.recurrence.gates import OPEN
from armt_jax.recurrence.segmenting import count_overlapping, overlapping
from armt_jax.tasks.babilong.sample import BabilongSample

_BLOCK = 32


@dataclasses.dataclass(frozen=True)
class GateRow:
    """One layer on one kind of segment.

    Attributes:
      layer: its number.
      kind: ``fact``: a fact, or a part of one, stands in the segment; ``noise``: none.
      segments: how many there were.
      opened: of these, in how many a gate of the layer was open (``OPEN``).
      gate: mean over segments and memory tokens.
      gamma: mean of Eq. 3's gamma; None for a rule without it.
      size: mean Frobenius norm of A after these segments.
    """

    layer: int
    kind: str
    segments: int
    opened: int
    gate: float
    gamma: float | None
    size: float


class OpenedBy(NamedTuple):
    """A segment without a fact that opened a gate: the gate, its layer, and the ids ``[t]``."""

    gate: float
    layer: int
    tokens: np.ndarray


def gate_statistics(
    model: ARMT,
    params: Params,
    samples: Sequence[BabilongSample],
    segment_size: int,
    most: int = 20,
    on_block: Callable[[int], None] = lambda done: None,
    segment_overlap: int = 0,
) -> tuple[list[GateRow], list[OpenedBy]]:
    """Gates over ``samples``, all of one length, read side by side.

    Tokens behind the last whole segment are not read.

    Args:
      model, params: see ``observe``.
      samples: of BABILong.
      segment_size: tokens of a segment.
      most: how many segments without a fact to return, those with the widest gates first.
      on_block: is called with the segments read so far of each sample.
      segment_overlap: tokens of a segment that repeat the last ones of the one before.

    Returns:
      Two rows a layer, and what opened gates without being a fact.

    Raises:
      ConfigError: a model that ``observe`` refuses.
    """
    stride = segment_size - segment_overlap
    total = count_overlapping(samples[0].num_tokens, segment_size, segment_overlap)
    holds = [_holds_fact(sample, total, segment_size, stride) for sample in samples]
    holds = np.stack(holds, axis=1)
    state, kept, widest = model.init_state(len(samples)), [], []
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        until = stop * stride + segment_overlap
        tokens = np.stack([one.read(start * stride, until) for one in samples])
        tokens = overlapping(tokens, segment_size, segment_overlap).swapaxes(0, 1)
        segments = Segment(jnp.asarray(tokens), jnp.ones(tokens.shape, bool))
        state, seen = observe(model, params, state, segments)
        small = seen._replace(keys=seen.keys[..., :0], rows=seen.rows[..., :0])
        kept.append(jax.tree.map(np.asarray, small))
        widest += _opened(kept[-1].beta, ~holds[start:stop], tokens)
        widest = sorted(widest, key=lambda one: -one.gate)[:most]
        on_block(stop)
    seen = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    kinds = (("fact", holds), ("noise", ~holds))
    layers = range(seen.beta.shape[1])
    return [_row(seen, i, kind, where) for i in layers for kind, where in kinds], widest


def _holds_fact(sample: BabilongSample, total: int, size: int, stride: int) -> np.ndarray:
    """Bool ``[s]``: which segments have tokens of a fact."""
    holds = np.zeros(total + 1, bool)  # and what is behind the last whole one
    for start, stop in sample.fact_spans:
        first = max(0, (start - size) // stride + 1)
        holds[min(first, total) : (stop - 1) // stride + 1] = True
    return holds[:total]


def _opened(beta: np.ndarray, noise: np.ndarray, tokens: np.ndarray) -> list[OpenedBy]:
    """Of a block: ``beta [s, l, b, m]``, ``noise [s, b]``, ``tokens [s, b, t]``."""
    widest = beta.max(axis=(1, 3))
    layer = beta.max(axis=3).argmax(axis=1)
    return [
        OpenedBy(float(widest[s, b]), int(layer[s, b]), tokens[s, b])
        for s, b in np.argwhere(noise & (widest > OPEN))
    ]


def _row(seen: Any, layer: int, kind: str, where: np.ndarray) -> GateRow:
    beta = seen.beta[:, layer][where]  # [n, m]
    count = beta.shape[0]
    gamma = None if seen.gamma is None else _mean(seen.gamma[:, layer][where])
    opened = int(np.sum(beta.max(axis=-1, initial=0.0) > OPEN))
    return GateRow(layer, kind, count, opened, _mean(beta), gamma, _mean(seen.A[:, layer][where]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
