"""``auto`` is the rule that is written down, for shapes on both sides of every line of it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

import armt_jax
from armt_jax.recurrence import run
from armt_jax.recurrence.auto import Shape, fastest_known
from tests.small_models import random_tokens, segments_of, small_model

ALL = ("sequential", "chunked", "diagonal")
DEEP_ONE_TEXT = Shape("gpu", n_layer=12, segments=12, batch=1, length=512)


@pytest.mark.parametrize(
    ("shape", "possible", "expected"),
    [
        (DEEP_ONE_TEXT, ALL, "diagonal"),
        (DEEP_ONE_TEXT._replace(platform="tpu"), ALL, "diagonal"),
        (DEEP_ONE_TEXT._replace(n_layer=8, segments=8), ALL, "diagonal"),
        (DEEP_ONE_TEXT._replace(n_layer=7), ALL, "chunked"),
        (DEEP_ONE_TEXT._replace(segments=11), ALL, "chunked"),
        (DEEP_ONE_TEXT._replace(batch=2), ALL, "chunked"),
        (DEEP_ONE_TEXT, ("sequential", "chunked"), "chunked"),
        (DEEP_ONE_TEXT, ("sequential", "diagonal"), "diagonal"),
        (DEEP_ONE_TEXT, ("sequential",), "sequential"),
        (DEEP_ONE_TEXT._replace(platform="cpu"), ALL, "chunked"),
        (DEEP_ONE_TEXT._replace(platform="cpu"), ("sequential", "diagonal"), "sequential"),
        (Shape("cpu", n_layer=4, segments=50, batch=32, length=5), ALL, "chunked"),
    ],
)
def test_rule(shape: Shape, possible: tuple[str, ...], expected: str) -> None:
    assert fastest_known(shape, possible) == expected


def test_shape_and_possible_schedules_are_those_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Shape, list[str]]] = []

    def choose(shape: Shape, possible: list[str]) -> str:
        asked.append((shape, possible))
        return "sequential"

    monkeypatch.setattr(run, "fastest_known", choose)
    model = small_model(n_layer=3)
    text, state = segments_of(random_tokens(model, 5, 2, 4)), model.init_state(2)
    read = functools.partial(armt_jax.run_segments, model, schedule="auto", need_hidden=False)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def trace(state, reset=None, **changes):
        changed = text._replace(**changes)
        jax.eval_shape(lambda p: read(p, state, changed, reset=reset), params)
        return asked.pop()[1]

    assert trace(state) == ["sequential", "chunked", "diagonal"]
    assert trace(state, reset=jnp.zeros((5, 2), bool)) == ["sequential", "diagonal"]
    assert trace(state, length=jnp.full((5, 2), 4)) == ["sequential", "diagonal"]
    assert trace(model.init_state(2, window=4)) == ["sequential"]
    run.choose_schedule(model, state, text, None)
    assert asked.pop()[0] == Shape("cpu", n_layer=3, segments=5, batch=2, length=4)
