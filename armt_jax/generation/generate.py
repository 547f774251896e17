"""``generate``: earlier segments are read into the memory, the last one is continued."""

from __future__ import annotations

import functools
from typing import Any

import jax

from armt_jax.generation.decoding import How, Progress, decode
from armt_jax.generation.prompts import read_prompts
from armt_jax.generation.sampling import Sampling
from armt_jax.generation.segments import decode_in_segments
from armt_jax.models.protocol import Params, Segment, SegmentModel, State


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
    state, prompt = read_prompts(
        model,
        params,
        tokens,
        attention_mask,
        how,
        rng,
        segment_size=segment_size,
        max_new_tokens=max_new_tokens,
        alignment=alignment,
        new_segments=new_segments,
    )
    return _continue(
        model,
        params,
        state,
        prompt,
        jax.random.key(0) if rng is None else rng,
        new=max_new_tokens,
        segment_size=segment_size if new_segments else None,
        how=how,
    )


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
