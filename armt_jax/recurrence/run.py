"""``run_segments``, the one entry to every schedule, and ``forward`` over a whole text."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh

from armt_jax.config import REMATS, ConfigError
from armt_jax.models.armt import ARMT
from armt_jax.models.protocol import (
    LayerwiseModel,
    Params,
    Segment,
    SegmentModel,
    State,
)
from armt_jax.recurrence.auto import Shape, fastest_known
from armt_jax.recurrence.chunked import run_chunked
from armt_jax.recurrence.diagonal import run_diagonal
from armt_jax.recurrence.pipeline import run_pipeline
from armt_jax.recurrence.refusals import why_not
from armt_jax.recurrence.segmenting import groups, segment_lengths
from armt_jax.recurrence.sequential import run_sequential
from armt_jax.recurrence.truncation import last_window
from armt_jax.recurrence.whole import run_whole

SCHEDULES = ("sequential", "chunked", "diagonal", "pipeline", "whole", "auto")


def run_segments(
    model: SegmentModel,
    params: Params,
    state: State,
    segments: Segment,
    *,
    schedule: str = "sequential",
    remat: str = "none",
    bptt: int = 0,
    need_hidden: bool = True,
    reset: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> tuple[State, jax.Array | None]:
    """Read equal segments, leaves ``[s, b, t]``, from ``state``.

    Every schedule and every ``remat`` give the same values and gradients; ``bptt`` the same values.

    Args:
      model, params, state: see ``SegmentModel``.
      segments: stacked along axis 0; a row without any token leaves its memory alone.
      schedule: ``sequential``, which every model has; ``chunked``: faster to train, for ARMT
        without a sliding window; ``diagonal``: all layers at once on different segments, for models
        with a memory in each layer; ``pipeline``: so over devices of ``mesh``; ``whole``: as one,
        for models to which segments are nothing; ``auto``: see ``choose_schedule``.
      remat: ``none``; ``segment``: recompute each segment (each step of ``diagonal`` and
        ``pipeline``) in the backward pass, keeping only what goes from one to the next; ``sqrt``:
        keep even that for about every ``sqrt(s)``-th only (``remat_scan``). ``chunked`` always
        recomputes segments and keeps one state per chunk: there ``sqrt`` goes by chunks.
      bptt: gradients flow within windows of so many segments, counted from the first one, and the
        state goes on between them as a value; 0: through the whole text. Where only the final
        state counts (``need_hidden=False``) that is the last window: everything before it is read
        without a gradient, in constant memory.
      need_hidden: False where only the final state matters.
      reset: ``[s, b]`` bool, True where a row's memory is emptied before the segment, so that texts
        can follow each other in one row. Not for ``chunked``.
      mesh: of the pipeline only, with an axis ``stage``.

    Returns:
      The state after the last segment, and hidden states ``[s, b, t, d]`` (None if not needed).

    Raises:
      ConfigError: a schedule that there is not, or that model, state or mesh cannot have.
    """
    _check_options(schedule, remat, bptt)
    reset = _checked_reset(reset, segments)
    if schedule == "auto":
        schedule = choose_schedule(model, state, segments, reset, remat, bptt)
    why = why_not(schedule, model, state, segments, reset, remat, bptt)
    if why is not None:
        raise ConfigError(f"schedule = {schedule!r}: {why}")
    # A state that has read something already makes the text longer: its own concern.
    model.config.check_text(segments.tokens.shape[0] * segments.tokens.shape[2])
    options: dict[str, Any] = {"need_hidden": need_hidden, "mesh": mesh}
    first = 0 if need_hidden else last_window(segments.tokens.shape[0], bptt)
    if first:  # gradients of the final state end there
        before, segments, early, reset = _split(segments, reset, first)
        fixed = lax.stop_gradient((params, state))
        state = lax.stop_gradient(_run(schedule, model, *fixed, before, reset=early, **options)[0])
    options.update(remat=remat, bptt=bptt, reset=reset)
    return _run(schedule, model, params, state, segments, **options)


def _run(
    schedule: str,
    model: SegmentModel,
    *text: Any,
    mesh: Mesh | None,
    reset: jax.Array | None,
    **options: Any,
) -> tuple[State, jax.Array | None]:
    """``run_segments`` by a schedule that model and state can have."""
    if isinstance(model, ARMT) and schedule == "chunked":
        return run_chunked(model, *text, **options)
    if isinstance(model, LayerwiseModel) and schedule == "diagonal":
        return run_diagonal(model, *text, reset=reset, **options)
    if isinstance(model, LayerwiseModel) and schedule == "pipeline":
        return run_pipeline(model, *text, reset=reset, mesh=mesh, **options)
    if schedule == "whole":
        return run_whole(model, *text, need_hidden=options["need_hidden"])
    return run_sequential(model, *text, reset=reset, **options)


def _check_options(schedule: str, remat: str, bptt: int) -> None:
    if schedule not in SCHEDULES:
        raise ConfigError(f"schedule = {schedule!r}: must be one of {', '.join(SCHEDULES)}")
    if remat not in REMATS:
        raise ConfigError(f"remat = {remat!r}: must be one of {', '.join(REMATS)}")
    if bptt < 0:
        raise ConfigError(f"bptt = {bptt}: must be 0 (the whole text) or more")


def _split(segments: Segment, reset: jax.Array | None, index: int) -> tuple[Any, ...]:
    """Segments before ``index`` and from it on, then the same of ``reset``."""
    before, after = (
        jax.tree.map(lambda leaf, part=part: leaf[part], (segments, reset))
        for part in (slice(index), slice(index, None))
    )
    return before[0], after[0], before[1], after[1]


def choose_schedule(
    model: SegmentModel,
    state: State,
    segments: Segment,
    reset: jax.Array | None,
    remat: str = "none",
    bptt: int = 0,
) -> str:
    """What ``auto`` stands for: see ``recurrence.auto``.

    Arguments as in ``run_segments``. Never ``pipeline``: that needs a mesh made for it.
    """
    possible = [
        name
        for name in ("sequential", "chunked", "diagonal", "whole")
        if why_not(name, model, state, segments, reset, remat, bptt) is None
    ]
    count, batch, length = segments.tokens.shape
    shape = Shape(jax.default_backend(), model.config.n_layer, count, batch, length)
    return fastest_known(shape, possible)


def _checked_reset(reset: jax.Array | None, segments: Segment) -> jax.Array | None:
    if reset is None:
        return None
    expected = segments.tokens.shape[:2]
    shape, dtype = jnp.shape(reset), jnp.result_type(reset)
    if shape != expected or dtype.name != "bool":
        raise ConfigError(f"reset of {dtype} {shape}: must be bool {expected}, segments and batch")
    return jnp.asarray(reset)


class Output(NamedTuple):
    """Attributes: ``logits [b, n, v]`` at token positions, and the final ``state``."""

    logits: jax.Array
    state: State


def check_tokens(tokens: jax.Array | np.ndarray, vocab_size: int) -> jax.Array:
    """``tokens`` as int32, refused where empty, not ``[b, n]`` or outside the vocabulary.

    The range is checked for concrete arrays only: inside ``jit`` there are no values to look at.
    """
    if np.ndim(tokens) != 2 or 0 in np.shape(tokens):
        shape = np.shape(tokens)
        raise ConfigError(f"tokens of shape {shape}: must be [batch, length], neither of them 0")
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ConfigError(f"tokens of dtype {tokens.dtype}: must be integers")
    if not isinstance(tokens, Tracer):
        values = np.asarray(tokens)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= vocab_size:
            wrong = low if low < 0 else high
            raise ConfigError(f"token id {wrong}: must be in [0, {vocab_size}), the vocabulary")
    return jnp.asarray(tokens, jnp.int32)


def check_mask(
    attention_mask: jax.Array | np.ndarray | None, tokens: jax.Array | np.ndarray
) -> jax.Array:
    """``attention_mask [b, n]`` as bool, all True for None; refused where its shape differs."""
    if attention_mask is None:
        return jnp.ones(tokens.shape, bool)
    if attention_mask.shape != tokens.shape:
        raise ConfigError(
            f"attention_mask of shape {attention_mask.shape}: must be {tokens.shape}, the tokens'"
        )
    return jnp.asarray(attention_mask, bool)


def read_runs(
    model: SegmentModel,
    params: Params,
    state: State,
    text: Segment,
    runs: list[tuple[int, int, int]],
    *,
    schedule: str = "sequential",
    need_hidden: bool = True,
) -> tuple[State, list[jax.Array]]:
    """Read runs of equal segments (``segmenting.groups``) of a text ``[b, n]``.

    Returns:
      The final state, and per run the hidden states ``[b, count * length, d]``.
    """
    hidden: list[jax.Array] = []
    batch = text.tokens.shape[0]
    for first, count, length in runs:

        def cut(x: jax.Array, first: int = first, count: int = count, length: int = length):
            piece = x[:, first : first + count * length]
            return piece.reshape(batch, count, length).swapaxes(0, 1)

        segments = Segment(cut(text.tokens), cut(text.mask))
        state, out = run_segments(
            model, params, state, segments, schedule=schedule, need_hidden=need_hidden
        )
        if out is not None:
            hidden.append(out.swapaxes(0, 1).reshape(batch, count * length, -1))
    return state, hidden


def _first_state(model: Any, params: Params, batch_size: int, window: int | None) -> State:
    dtype = model.compute_dtype(params)
    if window is None:
        return model.init_state(batch_size, dtype)
    return model.init_state(batch_size, dtype, window)


def forward(
    model: SegmentModel,
    params: Params,
    tokens: jax.Array,
    *,
    segment_size: int,
    alignment: str = "left",
    attention_mask: jax.Array | None = None,
    sliding_window: bool = False,
    schedule: str = "sequential",
) -> Output:
    """Read texts in segments and return the logits of every token.

    Args:
      model: from ``create_model``.
      params: its parameters.
      tokens: ``[b, n]`` integer ids.
      segment_size: tokens per segment.
      alignment: which segment is ragged, see ``segment_lengths``.
      attention_mask: ``[b, n]``, False at padding.
      sliding_window: let tokens attend to the previous segment's tokens (detached).
      schedule: see ``run_segments``.

    Returns:
      ``Output``: logits ``[b, n, v]`` and the state after the last segment.

    Raises:
      ConfigError: tokens, mask, sizes or schedule that cannot be.
    """
    tokens = check_tokens(tokens, model.config.vocab_size)
    mask = check_mask(attention_mask, tokens)
    if sliding_window and not isinstance(model, ARMT):
        raise ConfigError(
            f"sliding_window = True: must be False for model.family = {model.config.family!r}, "
            "it is a variant of ARMT"
        )
    lengths = segment_lengths(tokens.shape[1], segment_size, alignment)
    model.config.check_segment(max(lengths) * (2 if sliding_window and len(lengths) > 1 else 1))
    model.config.check_text(tokens.shape[1])
    state = _first_state(model, params, tokens.shape[0], max(lengths) if sliding_window else None)
    runs = groups(lengths)
    text = Segment(tokens, mask)
    state, hidden = read_runs(model, params, state, text, runs, schedule=schedule)
    return Output(model.readout(params, jnp.concatenate(hidden, axis=1)), state)
