"""Answers that are marked score as those at the end do, and what fills up a query says nothing."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.scoring import AnswerAtEnd, MarkedAnswer, Reading, Scoring
from armt_jax.models import Segment
from armt_jax.training.step import accumulate_gradients
from tests.small_models import assert_close, quick_jit
from tests.step_test import MODEL, SCORING, TASK, busy_params, draw_batch


class Marked(NamedTuple):
    """A batch with masks of tokens, as BABILong has them."""

    context: Any
    context_mask: Any
    queries: Any
    query_mask: Any
    loss_mask: Any


def marked(batch: Any, behind: int = 0) -> Marked:
    """The retrieval ``batch`` with its answers marked, and ``behind`` tokens behind every query."""
    length = batch.queries.shape[-1]
    queries = np.pad(batch.queries, ((0, 0), (0, 0), (0, behind)), constant_values=7)
    place = np.arange(length + behind)
    asked = batch.query_mask[:, :, None] & (place < length)
    predicts = (place >= length - 2 - TASK.value_size) & (place < length - 1)
    context_mask = np.broadcast_to(batch.context_mask[:, :, None], batch.context.shape)
    return Marked(batch.context, context_mask, queries, asked, asked & predicts)


def gradients(scoring: Scoring, batch: Any) -> Any:
    def run(params: Any, batch: Any) -> Any:
        return accumulate_gradients(MODEL, params, batch, scoring, 1, reading=Reading())

    return quick_jit(run)(busy_params(), batch)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("longest", "behind"), [(3, 4), pytest.param(5, 0, marks=pytest.mark.slow)]
)
def test_marked_answers_score_as_answers_at_the_end(longest: int, behind: int) -> None:
    batch = draw_batch(3)
    assert not batch.query_mask.all()  # some queries are padding
    expected = gradients(SCORING, batch)
    found = gradients(MarkedAnswer(longest), marked(batch, behind))
    assert_close(found, expected, 1e-12)
    count = float(MarkedAnswer(longest).count(marked(batch, behind)))
    assert count == float(SCORING.count(batch)) == batch.query_mask.sum() * 3


def test_every_token_of_an_answer_must_be_right() -> None:
    """The model's own predictions as answers are right, and wrong with any one token changed."""
    batch = marked(draw_batch(3), behind=2)
    params = busy_params()
    score = quick_jit(lambda batch: MarkedAnswer(3).score(MODEL, params, batch))
    predicted = _follow_the_model(params, batch)
    right = score(predicted).matches
    asked = int(batch.query_mask.any(-1).sum())
    assert (int(right.correct), int(right.total)) == (asked, asked)
    row, query = np.argwhere(batch.loss_mask.any(-1))[0]
    for place in np.flatnonzero(batch.loss_mask[row, query]) + 1:
        queries = predicted.queries.copy()
        queries[row, query, place] = (queries[row, query, place] + 1) % 100
        assert int(score(predicted._replace(queries=queries)).matches.correct) < asked


def _follow_the_model(params: Any, batch: Marked) -> Marked:
    """``batch`` with the answers that the model gives, token by token."""
    queries = batch.queries.copy()
    predict = quick_jit(lambda batch: MODEL.readout(params, _hidden(params, batch)).argmax(-1))
    for place in np.flatnonzero(batch.loss_mask.any((0, 1))):
        tokens = np.asarray(predict(batch._replace(queries=queries)))
        queries[:, :, place + 1] = tokens[:, :, place]
    return batch._replace(queries=queries)


def _hidden(params: Any, batch: Marked) -> jax.Array:
    from armt_jax.evaluation.scoring import _ask

    return _ask(MODEL, params, batch, Reading(), 1)[0]


def test_answer_at_end_is_a_value() -> None:
    """Static under jit: equal settings are one compilation."""
    assert AnswerAtEnd(2) == AnswerAtEnd(2) != AnswerAtEnd(1)
    assert hash(MarkedAnswer(3)) == hash(MarkedAnswer(3))


PASSAGES = (1, 2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "schedule", ["sequential", pytest.param("chunked", marks=pytest.mark.slow)]
)
def test_passages_count_in_the_value_and_not_in_the_gradient(schedule: str) -> None:
    """As reading with three parameters: two constants around the ones that are trained."""
    batch = marked(draw_batch(3))
    params = busy_params()
    scoring, reading = MarkedAnswer(3, *PASSAGES), Reading(schedule)

    def loss(scoring: MarkedAnswer, params: Any) -> jax.Array:
        return scoring.score(MODEL, params, batch, reading).loss

    value, found = quick_jit(jax.value_and_grad(functools.partial(loss, scoring)))(params)
    np.testing.assert_allclose(value, quick_jit(functools.partial(loss, MarkedAnswer(3)))(params))
    expected = quick_jit(jax.grad(functools.partial(_apart, batch)))(params, params)
    assert_close(found, expected, 1e-10)
    whole = quick_jit(jax.grad(functools.partial(loss, MarkedAnswer(3))))(params)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True)
    assert not all(np.allclose(one, other) for one, other in pairs), (
        "what was read without a gradient had none to give: this tests nothing"
    )


@pytest.mark.usefixtures("x64")
def test_drift_is_what_the_stretch_behind_changes() -> None:
    """The same loss, and the relative change of each layer's memory for every scored token."""
    batch, params, weight = marked(draw_batch(3)), busy_params(), 0.25
    plain, drifting = MarkedAnswer(3, *PASSAGES), MarkedAnswer(3, *PASSAGES, weight)

    def loss(scoring: MarkedAnswer, params: Any) -> jax.Array:
        return scoring.score(MODEL, params, batch, Reading("sequential")).loss

    def expected(params: Any) -> jax.Array:
        start, after = _around(batch, jax.lax.stop_gradient(params), params)
        drifts = []
        for old, new in zip(jax.lax.stop_gradient(start)[:2], after[:2], strict=True):
            size = jnp.mean(jnp.stack([jnp.sum(text**2) for layer in old for text in layer]))
            for was, now in zip(old, new, strict=True):
                square = jnp.stack([jnp.sum((b - a) ** 2) for a, b in zip(was, now, strict=True)])
                drifts.append(jnp.mean(jnp.sqrt(square / size + 1e-10) - 1e-5))
        return loss(plain, params) + weight * jnp.mean(jnp.stack(drifts)) * plain.count(batch)

    found = quick_jit(jax.value_and_grad(functools.partial(loss, drifting)))(params)
    assert_close(found, quick_jit(jax.value_and_grad(expected))(params), 1e-9)


def _around(batch: Marked, fixed: Any, params: Any) -> Any:
    """Memories before the stretch behind, read with ``fixed``, and after it, with ``params``."""
    tokens, mask = jnp.swapaxes(batch.context, 0, 1), jnp.swapaxes(batch.context_mask, 0, 1)
    state, last = MODEL.init_state(tokens.shape[1]), tokens.shape[0] - PASSAGES[1]
    for index in range(last):
        state = MODEL.write(fixed, state, Segment(tokens[index], mask[index]))
    after = state
    for index in range(last, tokens.shape[0]):
        after = MODEL.write(params, after, Segment(tokens[index], mask[index]))
    return state, after


def _apart(batch: Marked, params: Any, fixed: Any) -> jax.Array:
    """The loss, segment by segment; the memory behind is that between, plus a constant."""
    tokens, mask = jnp.swapaxes(batch.context, 0, 1), jnp.swapaxes(batch.context_mask, 0, 1)
    state, last = MODEL.init_state(tokens.shape[1]), tokens.shape[0] - PASSAGES[1]
    for index in range(last):
        chosen = fixed if index < PASSAGES[0] else params
        state = MODEL.write(chosen, state, Segment(tokens[index], mask[index]))
    later = state
    for index in range(last, tokens.shape[0]):
        later = MODEL.write(fixed, later, Segment(tokens[index], mask[index]))
    A, z = (
        now + jax.lax.stop_gradient(after - now)
        for now, after in ((state.A, later.A), (state.z, later.z))
    )
    state = later._replace(A=A, z=z)
    everything = np.ones(batch.queries.shape, bool)
    hidden = MODEL.ask(params, state, Segment(jnp.asarray(batch.queries), jnp.asarray(everything)))
    losses = optax.softmax_cross_entropy_with_integer_labels(
        MODEL.readout(params, hidden)[:, :, :-1], batch.queries[:, :, 1:]
    )
    return jnp.sum(jnp.where(batch.loss_mask[:, :, :-1], losses, 0.0))


def test_passages_and_pipelines_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"mesh\.stage = 2: must be 1 with passages"):
        MarkedAnswer(3, 1, 0).score(MODEL, {}, marked(draw_batch(3)), Reading(), stages=2)
