"""Exact match by teacher forcing: positions, masks, NaN, and the equality with greedy decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.exact_match import (
    count_matches,
    exact_match,
    exact_match_from_logits,
    predicted_tokens,
    predicting_positions,
)
from armt_jax.training.loss import next_token_loss

VOCAB = 3


def toy_logits(tokens: np.ndarray) -> jax.Array:
    """Logits ``[n, t, v]`` of a causal model: each position sees all tokens up to its own."""
    rng = np.random.default_rng(7)
    length = tokens.shape[-1]
    mixing = (np.tril(rng.normal(size=(8, 8))) + 2 * np.eye(8))[:length, :length]
    table = rng.normal(size=(VOCAB, 8))
    hidden = np.tanh(np.einsum("ij,njd->nid", mixing, table[tokens]))
    return jnp.asarray(hidden @ rng.normal(size=(8, VOCAB)))


def greedy(prompt: np.ndarray, new_tokens: int) -> np.ndarray:
    """Continue prompts ``[n, t]`` token by token, reading the tokens it has chosen itself."""
    tokens = prompt
    for _ in range(new_tokens):
        chosen = np.argmax(np.asarray(toy_logits(tokens))[:, -1], axis=-1)
        tokens = np.concatenate([tokens, chosen[:, None]], axis=1)
    return tokens[:, prompt.shape[1] :]


@pytest.mark.parametrize("value_size", [1, 2])
def test_teacher_forced_exact_match_is_greedy_exact_match(value_size):
    # Every text of 3 + value_size + 1 tokens over the toy vocabulary: right answers, and wrong
    # ones of every kind (mistake at the first, a middle, the last token, several).
    grid = np.meshgrid(*[np.arange(VOCAB)] * (4 + value_size), indexing="ij")
    texts = np.stack(grid, axis=-1).reshape(-1, 4 + value_size)
    prompt, answers = texts[:, :3], texts[:, 3:]
    decoded = greedy(prompt, value_size + 1)
    expected = np.all(decoded == answers, axis=-1)
    logits = toy_logits(texts)
    matches = exact_match_from_logits(logits, jnp.asarray(texts), value_size)
    np.testing.assert_array_equal(np.asarray(matches), expected)
    # One right answer per prompt, and each is found.
    assert expected.sum() == VOCAB**3
    # Tokens after a mistake do differ between the two, so this is not true by construction.
    forced = np.asarray(predicted_tokens(logits))[:, 2:-1]
    assert np.any(forced != decoded)


def test_only_the_answer_counts():
    # key 3 4, '-' 101, value 7 8, ',' 102
    query = np.array([3, 4, 101, 7, 8, 102])
    right = np.array([0, 0, 7, 8, 102, 0])
    for place in range(6):
        predicted = right.copy()
        predicted[place] = 55
        expected = place not in (2, 3, 4)
        assert bool(exact_match(jnp.asarray(predicted), jnp.asarray(query), 2)) is expected


def test_leading_axes_and_jit():
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(2, size=(4, 5, 6)))
    predicted = jnp.asarray(rng.integers(2, size=(4, 5, 6)))
    matches = jax.jit(exact_match, static_argnames="value_size")(predicted, tokens, value_size=1)
    assert matches.shape == (4, 5)
    assert matches.dtype == bool
    expected = [
        [all(predicted[b, q, i] == tokens[b, q, i + 1] for i in (3, 4)) for q in range(5)]
        for b in range(4)
    ]
    np.testing.assert_array_equal(np.asarray(matches), expected)
    assert 0 < int(matches.sum()) < matches.size


def test_positions_are_those_the_loss_takes():
    np.testing.assert_array_equal(
        predicting_positions(6, 2), [False, False, True, True, True, False]
    )
    # The loss over those positions sees the answer's logits and no others.
    tokens = jnp.asarray([[3, 4, 5, 1, 2, 0]])
    mask = jnp.asarray(predicting_positions(6, 2))[None]
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 7)))
    touched = jax.grad(lambda x: next_token_loss(x, tokens, mask))(logits)
    np.testing.assert_array_equal(np.asarray(jnp.any(touched != 0, axis=-1)), np.asarray(mask))


def test_positions_and_exact_match_select_the_same():
    tokens = jnp.arange(1, 8)
    shifted = jnp.roll(tokens, -1)
    for value_size in (1, 2, 4):
        positions = predicting_positions(7, value_size)
        for place in range(7):
            predicted = shifted.at[place].set(99)
            assert bool(exact_match(predicted, tokens, value_size)) is not bool(positions[place])


def test_nan_logits_match_nothing():
    # argmax of NaNs is 0: a diverged model would be right wherever the answer is token 0.
    tokens = jnp.zeros((2, 4), jnp.int32)
    logits = jnp.zeros((2, 4, 3)).at[..., 0].set(1.0)
    poisoned = logits.at[1, 2].set(jnp.nan)
    assert np.asarray(exact_match_from_logits(logits, tokens, 1)).tolist() == [True, True]
    assert np.asarray(exact_match_from_logits(poisoned, tokens, 1)).tolist() == [True, False]


def test_ties_go_to_the_lowest_id():
    logits = jnp.asarray([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    assert np.asarray(predicted_tokens(logits)).tolist() == [1, 0]


def test_counts_leave_out_padding():
    matches = jnp.asarray([[True, True, False], [True, False, True]])
    real = jnp.asarray([[True, True, True], [True, False, False]])
    count = jax.jit(count_matches)(matches, real)
    assert (int(count.correct), int(count.total)) == (3, 4)
    every = count_matches(matches)
    assert (int(every.correct), int(every.total)) == (4, 6)
    empty = count_matches(matches, jnp.zeros_like(real))
    assert (int(empty.correct), int(empty.total)) == (0, 0)


def test_bad_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"predicted of shape \(2, 5\).*\(2, 6\)"):
        exact_match(jnp.zeros((2, 5), int), jnp.zeros((2, 6), int), 1)
    with pytest.raises(ConfigError, match=r"tokens of shape \(\)"):
        exact_match(jnp.asarray(1), jnp.asarray(1), 1)
    with pytest.raises(ConfigError, match="query length = 2: must be at least 3"):
        predicting_positions(2, 1)
    with pytest.raises(ConfigError, match="value_size = 0"):
        predicting_positions(6, 0)
    with pytest.raises(ConfigError, match=r"real of shape \(3,\)"):
        count_matches(jnp.ones((2,), bool), jnp.ones((3,), bool))
