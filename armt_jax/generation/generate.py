"""``generate``: earlier segments are read into the memory, the last one is continued."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from armt_jax.config import ConfigError
from armt_jax.generation.decoding import How, Progress, decode
from armt_jax.generation.sampling import Sampling, check_sampling
from armt_jax.generation.segments import decode_in_segments
from armt_jax.models.protocol import Params, Segment, SegmentModel, State
from armt_jax.recurrence.run import check_mask, check_tokens, read_runs
from armt_jax.recurrence.segmenting import groups, segment_lengths


def generate(
    model: SegmentModel,
    params: Params,
    tokens: jax.Array,
    *,
    segment_size: int,
    max_new_tokens: int,
    alignment: str = "left",
    new_segments: bool = False,
    attention_mask: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: jax.Array | None = None,
    stop_token: int | None = None,
) -> jax.Array:
    """Continue texts: greedy by default, sampled with a ``temperature`` and a key.

    Args:
      model: from ``create_model``.
      params: its parameters.
      tokens: ``[b, n]`` prompts.
      segment_size: tokens per segment.
      max_new_tokens: how many to generate.
      alignment, attention_mask: as in ``forward``; in the last segment padding takes no position,
        and stands on the left.
      new_segments: False: the last segment grows with its text, as in the authors' code, and
        nothing is written. True: a segment of ``segment_size`` tokens is written to the memory and
        the next one begins. Texts may then be of any length, and every token is the one that
        ``forward`` of all before it predicts; ``alignment`` must be ``left``.
      temperature, top_k, top_p: see ``Sampling``.
      rng: key for sampling.
      stop_token: a text ends after it; the rest of its row is filled with it.

    Returns:
      ``[b, max_new_tokens]`` int32.

    Raises:
      ConfigError: settings that cannot be.
    """
    how = How(Sampling(temperature, top_k, top_p), stop_token, scores=False)
    return _generate(
        model,
        params,
        tokens,
        attention_mask,
        rng,
        how=how,
        segment_size=segment_size,
        max_new_tokens=max_new_tokens,
        alignment=alignment,
        new_segments=new_segments,
    )[0]


def generate_with_scores(
    model: SegmentModel,
    params: Params,
    tokens: jax.Array,
    *,
    segment_size: int,
    max_new_tokens: int,
    alignment: str = "left",
    new_segments: bool = False,
    attention_mask: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: jax.Array | None = None,
    stop_token: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As ``generate``; also the raw logits of every step ``[b, new, v]``, 0 after an early stop."""
    ids, scores = _generate(
        model,
        params,
        tokens,
        attention_mask,
        rng,
        how=How(Sampling(temperature, top_k, top_p), stop_token),
        segment_size=segment_size,
        max_new_tokens=max_new_tokens,
        alignment=alignment,
        new_segments=new_segments,
    )
    assert scores is not None
    return ids, scores


def _generate(
    model: SegmentModel,
    params: Params,
    tokens: jax.Array,
    attention_mask: jax.Array | None,
    rng: jax.Array | None,
    *,
    how: How,
    segment_size: int,
    max_new_tokens: int,
    alignment: str,
    new_segments: bool,
) -> tuple[jax.Array, jax.Array | None]:
    tokens = check_tokens(tokens, model.config.vocab_size)
    mask = check_mask(attention_mask, tokens)
    _check_request(model, mask, how, rng, max_new_tokens)
    lengths = segment_lengths(tokens.shape[1], segment_size, alignment)
    if new_segments:
        _check_new_segments(model, segment_size, alignment, tokens.shape[1] + max_new_tokens)
    else:
        if len(lengths) > 1:
            model.config.check_segment(max(lengths[:-1]))
        model.config.check_new_tokens(tokens.shape[1], lengths[-1], max_new_tokens)
    state = model.init_state(tokens.shape[0], model.compute_dtype(params))
    text = Segment(tokens, mask)
    if len(lengths) > 1:
        state = _read(model, params, state, text, tuple(groups(lengths[:-1])))
    start = tokens.shape[1] - lengths[-1]
    return _continue(
        model,
        params,
        state,
        Segment(tokens[:, start:], mask[:, start:]),
        jax.random.key(0) if rng is None else rng,
        new=max_new_tokens,
        segment_size=segment_size if new_segments else None,
        how=how,
    )


def _check_request(
    model: SegmentModel, mask: jax.Array, how: How, rng: jax.Array | None, new: int
) -> None:
    if not isinstance(mask, Tracer) and not np.all(mask[:, -1]):
        row = int(np.argmin(mask[:, -1]))
        raise ConfigError(
            f"attention_mask[{row}, -1] = False: a prompt ends with a token, pad it on the left"
        )
    check_sampling(how.sampling, rng)
    if new < 1:
        raise ConfigError(f"max_new_tokens = {new}: must be at least 1")
    stop = how.stop_token
    if stop is not None and not 0 <= stop < model.config.vocab_size:
        accepted = f"must be in [0, {model.config.vocab_size}), the vocabulary"
        raise ConfigError(f"stop_token = {stop}: {accepted}")


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


@functools.partial(jax.jit, static_argnames=("model", "new", "segment_size", "how"))
def _continue(
    model: SegmentModel,
    params: Params,
    state: State,
    prompt: Segment,
    rng: jax.Array,
    *,
    new: int,
    segment_size: int | None,
    how: How,
) -> tuple[jax.Array, jax.Array | None]:
    settings: dict[str, Any] = {"new": new, "how": how}
    if segment_size is None:
        start = Progress.start(prompt.tokens.shape[0])
        return decode(model, params, state, prompt, rng, start, **settings)[:2]
    found = decode_in_segments(
        model, params, state, prompt, rng, segment_size=segment_size, **settings
    )
    return found.ids, found.scores
