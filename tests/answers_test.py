"""Answers from a memory: greedy ones are those of reading everything again for every token."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.answers import answer_prompts
from armt_jax.generation import Sampling
from armt_jax.recurrence import run_segments
from tests.small_models import lively_params, random_tokens, segments_of, small_model

MODEL = small_model(n_layer=1)
PARAMS = lively_params(MODEL)
TEXT = random_tokens(MODEL, 2, 3, 5)  # 2 segments of 3 texts


@functools.cache
def memory():
    state = MODEL.init_state(3)
    return run_segments(MODEL, PARAMS, state, segments_of(TEXT), need_hidden=False)[0]


@jax.jit
def last_token(queries):
    """The likeliest token after each of ``queries [3, 1, t]``, from the memories."""
    hidden = MODEL.ask(PARAMS, memory(), segments_of(queries))
    return MODEL.readout(PARAMS, hidden[:, 0, -1]).argmax(-1)


def prompts_of(*lengths: int) -> list[np.ndarray]:
    return [np.asarray(random_tokens(MODEL, n, seed=n)) for n in lengths]


def slowly(row: int, prompt: np.ndarray, count: int) -> list[int]:
    """One token after another, each from a reading of the prompt alone."""
    ids = list(prompt)
    for _ in range(count):
        query = np.asarray(ids, np.int32)[None, None]
        ids.append(int(last_token(jnp.asarray(np.repeat(query, 3, axis=0)))[row]))
    return ids[len(prompt) :]


def test_answers_are_those_of_reading_again() -> None:
    prompts = [prompts_of(3, 1), prompts_of(4), prompts_of(2, 5)]
    found = answer_prompts(MODEL, PARAMS, memory(), prompts, max_new_tokens=4, stop_token=-1)
    assert [len(row) for row in found] == [2, 1, 2]
    for row, (asked, answers) in enumerate(zip(prompts, found, strict=True)):
        for prompt, answer in zip(asked, answers, strict=True):
            assert list(answer) == slowly(row, prompt, 4)
    # Texts differ, so answers do: the memory is read.
    same = [prompts_of(3)] * 3
    texts = answer_prompts(MODEL, PARAMS, memory(), same, max_new_tokens=8, stop_token=-1)
    assert len({tuple(answer) for (answer,) in texts}) > 1


def test_an_answer_ends_before_the_stop_token() -> None:
    prompts = [prompts_of(3)] * 3
    (whole,), *_ = answer_prompts(MODEL, PARAMS, memory(), prompts, max_new_tokens=6, stop_token=-1)
    stop = int(whole[2])
    first = list(whole).index(stop)
    (cut,), *_ = answer_prompts(MODEL, PARAMS, memory(), prompts, max_new_tokens=6, stop_token=stop)
    assert list(cut) == list(whole[:first])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([[], [], []], "must be one"), ([[np.zeros(0, int)], [], []], "must be one"),
     ([prompts_of(9), [], []], "segment length = 17")],
)  # fmt: skip
def test_impossible_prompts_are_refused(prompts, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        answer_prompts(MODEL, PARAMS, memory(), prompts, max_new_tokens=8, stop_token=0)


def test_drawn_answers_follow_the_key_and_the_temperature() -> None:
    prompts = [prompts_of(3, 3), prompts_of(3), prompts_of(3)]

    def draw(temperature: float, seed: int, **changes: float) -> list[list[int]]:
        sampling = Sampling(temperature)._replace(**changes)
        key = jax.random.key(seed)
        settings = {"max_new_tokens": 8, "stop_token": None, "sampling": sampling, "rng": key}
        found = answer_prompts(MODEL, PARAMS, memory(), prompts, **settings)
        return [answer.tolist() for row in found for answer in row]

    greedy = draw(0.0, 0)
    assert greedy[0] == slowly(0, prompts[0][0], 8)
    assert draw(1e-6, 0) == greedy == draw(2.0, 0, top_k=1)
    drawn = draw(2.0, 0)
    assert drawn == draw(2.0, 0) != draw(2.0, 1)
    assert drawn[0] != drawn[1]  # the same question twice: each draws for itself
    # Without logits that tell tokens apart, every token is a draw of its own.
    flat = jax.tree.map(jnp.zeros_like, PARAMS)
    settings = {"max_new_tokens": 8, "stop_token": None, "sampling": Sampling(1.0)}
    found = answer_prompts(MODEL, flat, memory(), prompts, **settings, rng=jax.random.key(0))
    assert all(len(set(answer.tolist())) > 3 for row in found for answer in row)
    with pytest.raises(ConfigError, match="rng = None"):
        answer_prompts(
            MODEL, PARAMS, memory(), prompts, max_new_tokens=8, stop_token=0, sampling=Sampling(1.0)
        )
