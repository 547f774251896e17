"""Prompts: what can be continued, and what is left of it once its earlier segments are read."""

from __future__ import annotations

import functools

import jax
import numpy as np
from jax.core import Tracer

from armt_jax.config import ConfigError
from armt_jax.generation.decoding import How
from armt_jax.generation.sampling import check_sampling
from armt_jax.models.protocol import Params, Segment, SegmentModel, State
from armt_jax.recurrence.run import check_mask, check_tokens, read_runs
from armt_jax.recurrence.segmenting import groups, segment_lengths


def _check_request(model: SegmentModel, how: How, rng: jax.Array | None, new: int) -> None:
    check_sampling(how.sampling, rng)
    if new < 1:
        raise ConfigError(f"max_new_tokens = {new}: must be at least 1")
    stop = how.stop_token
    if stop is not None and not 0 <= stop < model.config.vocab_size:
        accepted = f"must be in [0, {model.config.vocab_size}), the vocabulary"
        raise ConfigError(f"stop_token = {stop}: {accepted}")


def read_prompts(
    model: SegmentModel,
    params: Params,
    tokens: jax.Array,
    attention_mask: jax.Array | None,
    how: How,
    rng: jax.Array | None,
    *,
    segment_size: int,
    max_new_tokens: int,
    alignment: str,
    new_segments: bool,
) -> tuple[State, Segment]:
    """The state after all segments of ``tokens [b, n]`` but the last, and that one.

    Raises:
      ConfigError: a prompt or a way to go on that cannot be, or no room for so many tokens.
    """
    _check_request(model, how, rng, max_new_tokens)
    tokens = check_tokens(tokens, model.config.vocab_size)
    mask = check_mask(attention_mask, tokens)
    if not isinstance(mask, Tracer) and not np.all(mask[:, -1]):
        row = int(np.argmin(mask[:, -1]))
        raise ConfigError(
            f"attention_mask[{row}, -1] = False: a prompt ends with a token, pad it on the left"
        )
    lengths = segment_lengths(tokens.shape[1], segment_size, alignment)
    if new_segments:
        _check_new_segments(model, segment_size, alignment, tokens.shape[1] + max_new_tokens)
    else:
        if len(lengths) > 1:
            model.config.check_segment(max(lengths[:-1]))
        model.config.check_new_tokens(tokens.shape[1], lengths[-1], max_new_tokens)
    state = model.init_state(tokens.shape[0], model.compute_dtype(params))
    if len(lengths) > 1:
        text = Segment(tokens, mask)
        state = _read(model, params, state, text, tuple(groups(lengths[:-1])))
    start = tokens.shape[1] - lengths[-1]
    return state, Segment(tokens[:, start:], mask[:, start:])


def _check_new_segments(model: SegmentModel, size: int, alignment: str, total: int) -> None:
    if alignment != "left":
        raise ConfigError(
            f"alignment = {alignment!r}: must be 'left' with new_segments, where a longer text has "
            "the same segments"
        )
    model.config.check_segment(size)
    model.config.check_text(total)


@functools.partial(jax.jit, static_argnames=("model", "runs"))
def _read(
    model: SegmentModel,
    params: Params,
    state: State,
    text: Segment,
    runs: tuple[tuple[int, int, int], ...],
) -> State:
    return read_runs(model, params, state, text, list(runs), need_hidden=False)[0]
