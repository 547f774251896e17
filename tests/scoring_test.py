"""Answers that are marked score as those at the end do, and what fills up a query says nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from armt_jax.evaluation.scoring import AnswerAtEnd, MarkedAnswer, Reading, Scoring
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
