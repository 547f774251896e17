"""Scores of every token against NumPy, resets against segments alone, sums of an evaluation."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import forward
from armt_jax.config import ConfigError
from armt_jax.evaluation import segment_losses
from armt_jax.evaluation.next_tokens import NextTokens, token_scores
from armt_jax.evaluation.scoring import Reading
from armt_jax.evaluation.segment_losses import LossReader, SegmentSums
from armt_jax.models import Segment
from armt_jax.recurrence import run_segments
from armt_jax.tasks.language_modelling import Context, Contexts, TokenDocuments
from armt_jax.training.step import accumulate_gradients
from tests.small_models import assert_close, lively_params, quick_jit, small_model

MODEL = small_model(n_layer=1)
SIZE = 3
BYTES = np.arange(23) % 4 + 1


def contexts(segments: int = 4, seed: int = 0) -> Contexts:
    """Three documents of random tokens; the last context of each is padded."""
    rng = np.random.default_rng(seed)
    sizes = (14, 27, 20)
    tokens = rng.integers(0, 23, sum(sizes))
    return Contexts(TokenDocuments(tokens, np.cumsum([0, *sizes])), segments, SIZE)


def whole_batch(segments: int = 4) -> Context:
    made = contexts(segments)
    return made.batch(range(len(made)))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Nats, by the definition."""
    top = logits.max(-1, keepdims=True)
    total = top[..., 0] + np.log(np.exp(logits - top).sum(-1))
    return total - np.take_along_axis(logits, targets[..., None], -1)[..., 0]


def expected_scores(params: Any, batch: Context, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Losses and right tokens ``[b, s, t]``: texts read by ``forward``, or each segment alone."""
    logits_of = quick_jit(
        lambda p, t, m: forward(MODEL, p, t, segment_size=SIZE, attention_mask=m).logits
    )
    rows, segments, _ = batch.context.shape
    length = SIZE if reset else segments * SIZE
    texts = batch.context.reshape(-1, length)
    logits = np.asarray(logits_of(params, texts, batch.context_mask.reshape(-1, length)))
    logits = logits.reshape(rows, segments, SIZE, -1)
    losses = cross_entropy(logits, batch.targets)
    right = (logits.argmax(-1) == batch.targets) & batch.context_mask
    return np.where(batch.context_mask, losses, 0), right


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reset", [False, True])
def test_scores_are_those_of_the_logits_of_the_text(reset: bool) -> None:
    params, batch = lively_params(MODEL), whole_batch()
    assert not batch.context_mask.all()
    losses, right = expected_scores(params, batch, reset)
    found = quick_jit(lambda p, b: token_scores(MODEL, p, b, reset=reset))(params, batch)
    np.testing.assert_allclose(found.losses, losses, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(found.right, right)
    scores = quick_jit(lambda p, b: NextTokens(reset).score(MODEL, p, b))(params, batch)
    assert float(scores.loss) == pytest.approx(losses.sum(), abs=1e-9)
    count = int(batch.context_mask.sum())
    assert (int(scores.matches.correct), int(scores.matches.total)) == (right.sum(), count)
    assert float(NextTokens(reset).count(batch)) == count


@pytest.mark.usefixtures("x64")
def test_a_reset_is_the_recurrences_reset_in_values_and_gradients() -> None:
    """The same segments with ``run_segments``' own reset in front of each."""
    params, batch = lively_params(MODEL), whole_batch()

    def by_reset(params: Any) -> jax.Array:
        tokens, mask = (jnp.swapaxes(leaf, 0, 1) for leaf in batch[:2])
        state = MODEL.init_state(tokens.shape[1])
        every = jnp.ones(tokens.shape[:2], bool)
        _, hidden = run_segments(MODEL, params, state, Segment(tokens, mask), reset=every)
        assert hidden is not None
        logp = jax.nn.log_softmax(MODEL.readout(params, hidden).swapaxes(0, 1))
        taken = jnp.take_along_axis(logp, batch.targets[..., None], -1)[..., 0]
        return -jnp.sum(jnp.where(batch.context_mask, taken, 0))

    expected = quick_jit(jax.value_and_grad(by_reset))(params)
    found = quick_jit(
        jax.value_and_grad(lambda p: NextTokens(reset=True).score(MODEL, p, batch).loss)
    )(params)
    assert_close(found, expected, 1e-10)
    kept = quick_jit(lambda p: NextTokens().score(MODEL, p, batch).loss)(params)
    assert abs(float(kept) - float(expected[0])) > 1e-3, "the memory should matter here"


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_padding_says_nothing_and_pieces_add_up() -> None:
    params = lively_params(MODEL)
    batch = Context(*(leaf[:6] for leaf in whole_batch()))
    noise = batch._replace(
        context=np.where(batch.context_mask, batch.context, 7),
        targets=np.where(batch.context_mask, batch.targets, 9),
    )

    def gradients(batch: Context, pieces: int) -> Any:
        def run(params: Any, batch: Context) -> Any:
            return accumulate_gradients(MODEL, params, batch, NextTokens(), pieces)

        return quick_jit(run)(params, batch)

    expected = gradients(batch, 1)
    halves = batch.context_mask.reshape(2, -1).sum(1)
    assert halves[0] != halves[1], "pieces should differ in the tokens they hold"
    assert_close(gradients(noise, 1), expected, 1e-12)
    assert_close(gradients(batch, 2), expected, 1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", ["armt", "rmt", "transformer", "mamba"])
@pytest.mark.parametrize("reset", [False, True])
def test_every_family_and_schedule_scores_alike(family: str, reset: bool) -> None:
    model = small_model(family=family, n_positions=64, context_tokens=64)
    params, batch = lively_params(model), whole_batch()
    found = [
        token_scores(model, params, batch, reset=reset, reading=Reading(schedule)).losses
        for schedule in ("sequential", "auto")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


def test_a_pipeline_is_refused() -> None:
    with pytest.raises(ConfigError, match="stage = 2: must be 1 for language modelling"):
        NextTokens().score(MODEL, None, whole_batch(), stages=2)


@functools.cache
def read() -> dict[str, SegmentSums]:
    """All ways of reading seven contexts in batches of 3, in float32."""
    reader = LossReader(MODEL, lively_params(MODEL), contexts(), BYTES, batch_size=3)
    return {
        "kept": reader.kept(),
        "reset": reader.reset(),
        "last 1": reader.horizon(1, 3),
        "last 2": reader.horizon(2, 3),
    }


def test_sums_are_of_every_context_whatever_the_batch() -> None:
    sums = read()
    batch, params = whole_batch(), lively_params(MODEL)
    for name, reset in (("kept", False), ("reset", True)):
        losses, _ = expected_scores(params, batch, reset)
        np.testing.assert_allclose(sums[name].nats, losses.sum(-1), rtol=1e-4)
        np.testing.assert_array_equal(sums[name].tokens, batch.context_mask.sum(-1))
        sizes = np.where(batch.context_mask, BYTES[batch.targets], 0).sum(-1)
        np.testing.assert_array_equal(sums[name].bytes, sizes)
    np.testing.assert_array_equal(sums["kept"].document, [0, 0, 1, 1, 1, 2, 2])
    some = LossReader(MODEL, params, contexts(), BYTES, batch_size=3, samples=3).kept()
    np.testing.assert_allclose(some.nats, sums["kept"].nats[[0, 3, 6]], rtol=1e-4)


def test_a_horizon_is_a_text_that_begins_so_many_segments_earlier() -> None:
    sums, batch, params = read(), whole_batch(), lively_params(MODEL)
    found = sums["last 1"]
    for place, last in enumerate((2, 3)):
        shorter = Context(*(leaf[:, last - 1 : last + 1] for leaf in batch))
        losses, _ = expected_scores(params, shorter, reset=False)
        np.testing.assert_allclose(found.nats[:, place], losses[:, -1].sum(-1), rtol=1e-4)
    np.testing.assert_array_equal(found.tokens, sums["kept"].tokens[:, 2:])
    # Two segments stand in front of the third: all that there is.
    np.testing.assert_allclose(sums["last 2"].nats[:, 0], sums["kept"].nats[:, 2], rtol=1e-4)
    for name in ("last 1", "last 2"):  # and of the fourth's three they leave out one or two
        assert np.abs(sums[name].nats[:, 1] - sums["kept"].nats[:, 3]).max() > 1e-3


def test_means_bits_and_gains_are_their_definitions() -> None:
    sums = read()
    kept, reset = (sums[name].part(2, 4) for name in ("kept", "reset"))
    nats, tokens, sizes = (leaf[:, 1:].sum() for leaf in sums["kept"][:3])
    assert segment_losses.loss_per_token(kept) == pytest.approx(nats / tokens)
    assert segment_losses.bits_per_byte(kept) == pytest.approx(nats / sizes / np.log(2))
    saved = 1 - nats / sums["reset"].nats[:, 1:].sum()
    assert segment_losses.gain(kept, reset) == pytest.approx(saved)
    positions = segment_losses.per_position(segment_losses.loss_per_token, sums["kept"])
    expected = sums["kept"].nats.sum(0) / sums["kept"].tokens.sum(0)
    np.testing.assert_allclose(positions, expected)


def test_an_interval_covers_what_it_resamples() -> None:
    """Coverage over 100 draws of 30 documents, whose true mean is known."""
    rng = np.random.default_rng(0)
    covered, shared = 0, 0
    for draw in range(100):
        document = np.repeat(np.arange(30), 3)
        level = rng.normal(5, 1, 30)[document]  # contexts of a document are alike
        tokens = np.full((90, 2), 10)
        made = SegmentSums(level[:, None] * tokens, tokens, tokens, document)
        low, high = segment_losses.document_interval(
            segment_losses.loss_per_token, made, resamples=200, seed=draw
        )
        covered += low <= 5 <= high
        other = made._replace(nats=made.nats * 0.9)
        band = segment_losses.document_interval(segment_losses.gain, other, made, resamples=50)
        shared += band.high - band.low < 1e-9
    assert 0.85 <= covered / 100 <= 0.99
    assert shared == 100, "what is compared is resampled alike"


def test_a_segment_that_no_context_reaches_is_refused() -> None:
    """The longest document has 26 tokens to predict: nine segments of three, the last not full."""
    LossReader(MODEL, None, contexts(9), BYTES, batch_size=3)
    message = r"samples = 3 of 3 contexts: the longest has 26 tokens, which end before segment 10"
    with pytest.raises(ConfigError, match=message):
        LossReader(MODEL, None, contexts(10), BYTES, batch_size=3)
    with pytest.raises(ConfigError, match="samples = 1 of 3 contexts: the longest has 13 tokens"):
        LossReader(MODEL, None, contexts(9), BYTES, batch_size=3, samples=1)


@pytest.mark.parametrize("segments", [0, 3])
def test_a_horizon_needs_segments_in_front(segments: int) -> None:
    reader = LossReader(MODEL, None, contexts(), BYTES, batch_size=3)
    with pytest.raises(ConfigError, match=f"horizon = {segments}: must be at least 1 and below 3"):
        reader.horizon(segments, 3)
