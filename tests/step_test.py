"""The training step against the whole-text definition of the loss, and what it must not do."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import MeshConfig, ModelConfig, OptimizerConfig
from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.models import create_model
from armt_jax.recurrence import forward
from armt_jax.sharding import create_mesh
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Batch
from armt_jax.tasks.stream import train_stream
from armt_jax.training.loss import next_token_loss
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import create_state, parameter_names, reset_optimizer
from armt_jax.training.step import accumulate_gradients, jit_train_step

MODEL = create_model(
    ModelConfig(n_layer=2, n_head=2, d_model=16, d_mem=4, num_mem_tokens=2, n_positions=16)
)
OPTIMIZER = create_optimizer(
    OptimizerConfig(
        name="adamw",
        learning_rate=1e-2,
        muon_learning_rate=1e-2,
        weight_decay=1e-3,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        warmup_steps=0,
        schedule="constant",
        scope="stage",
        final_fraction=1.0,
        reset_per_stage=False,
        clip="norm",
        clip_threshold=1.0,
    )
)
TASK = AssociativeRetrieval(
    "rewrite", num_pairs=4, key_size=1, value_size=2, num_queries=0, random_num_pairs=True
)
MESH = create_mesh(MeshConfig(data=1, fsdp=1, tensor=1, stage=1), 1)


SCORING = AnswerAtEnd(TASK.value_size)
score = jax.jit(functools.partial(SCORING.score, MODEL))
read = jax.jit(functools.partial(forward, MODEL, segment_size=TASK.segment_length))
accumulate = jax.jit(functools.partial(accumulate_gradients, MODEL), static_argnums=(2, 3))


@functools.cache
def training_step() -> Any:
    return jit_train_step(MODEL, OPTIMIZER, SCORING, grad_accum=1, mesh=MESH)


def draw_batch(size: int, seed: int = 0) -> Batch:
    return next(train_stream(TASK, seed, size))


def busy_params(seed: int = 0) -> Any:
    """Parameters whose memory matters: ``W_V`` starts at zero, so nothing is stored before."""
    params = MODEL.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [
        x + 0.3 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


@pytest.mark.usefixtures("x64")
def test_loss_is_that_of_every_query_read_as_the_last_segment_of_its_own_text() -> None:
    params, batch = busy_params(), draw_batch(3)
    scores = score(params=params, batch=batch)
    total, correct, count = 0.0, 0, 0
    for b in range(3):
        context = batch.context[b][batch.context_mask[b]].reshape(-1)
        for query in batch.queries[b][batch.query_mask[b]]:
            text = jnp.asarray(np.concatenate([context, query]))[None]
            logits = read(params, text).logits
            mask = np.zeros(text.shape, bool)
            mask[0, -4:-1] = True  # "-", and the value's two digits
            total += 3 * float(next_token_loss(logits, text, jnp.asarray(mask)))
            correct += int(np.all(np.argmax(logits[0, -4:-1], -1) == query[-3:]))
            count += 1
    assert count > 3, "the batch should have more than one query a context"
    np.testing.assert_allclose(float(scores.loss), total, rtol=1e-10)
    assert (int(scores.matches.correct), int(scores.matches.total)) == (correct, count)


@pytest.mark.usefixtures("x64")
def test_padding_pairs_and_padding_queries_count_for_nothing() -> None:
    params, batch = busy_params(), draw_batch(8)
    assert not batch.context_mask.all()
    assert not batch.query_mask.all()
    other = batch._replace(
        context=np.where(batch.context_mask[:, :, None], batch.context, 7),
        queries=np.where(batch.query_mask[:, :, None], batch.queries, 9),
    )
    first, second = (score(params=params, batch=x) for x in (batch, other))
    assert float(first.loss) == float(second.loss)
    assert first.matches == second.matches


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("pieces", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_accumulation_equals_the_undivided_batch(pieces: int) -> None:
    params, batch = busy_params(), draw_batch(8)
    per_piece = batch.query_mask.reshape(pieces, -1).sum(axis=1)
    assert len(set(per_piece.tolist())) > 1, "pieces should differ in the queries they hold"
    whole, whole_grads = accumulate(params, batch, SCORING, 1)
    parts, parts_grads = accumulate(params, batch, SCORING, pieces)
    np.testing.assert_allclose(float(parts.loss), float(whole.loss), rtol=1e-12)
    assert parts.matches == whole.matches
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13),
        parts_grads,
        whole_grads,
    )


def test_steps_learn_one_batch_by_heart_with_one_compilation() -> None:
    state, batch = create_state(MODEL, OPTIMIZER, seed=0, mesh=MESH), draw_batch(4)
    step = training_step()
    losses = []
    for i in range(60):
        state, metrics = step(state, batch, np.float32(3e-2 / (1 + i / 30)))
        losses.append(float(metrics.loss))
        assert metrics.finite.all()
        assert np.isfinite(metrics.grad_norm)
    assert int(state.step) == 60
    assert losses[0] == pytest.approx(np.log(128), rel=0.05)
    assert losses[-1] < 0.4 * losses[0]
    assert 0.0 <= float(metrics.exact_match) <= 1.0
    assert step._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.slow
def test_a_rate_of_zero_changes_no_parameter() -> None:
    before = create_state(MODEL, OPTIMIZER, seed=0)
    kept = jax.device_get(before.params)
    after, _ = training_step()(before, draw_batch(4), np.float32(0.0))
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(after.params))


def test_the_gradient_that_is_not_finite_is_marked() -> None:
    state = create_state(MODEL, OPTIMIZER, seed=0)
    params = state.params
    params["head"]["ln_f"]["bias"] = params["head"]["ln_f"]["bias"].at[0].set(jnp.nan)
    step = training_step()
    _, metrics = step(state, draw_batch(4), np.float32(1e-3))
    assert not np.isfinite(metrics.loss)
    names = parameter_names(params)
    assert len(names) == metrics.finite.size
    assert "head.ln_f.bias" in names
    assert not metrics.finite.all()


def test_same_seed_same_parameters_and_fresh_moments_after_a_reset() -> None:
    first, second = (create_state(MODEL, OPTIMIZER, seed=3) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    step = training_step()
    stepped, _ = step(first, draw_batch(4), np.float32(1e-3))
    params = jax.device_get(stepped.params)
    reset = reset_optimizer(stepped, OPTIMIZER)
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(reset.params))
    jax.tree.map(np.testing.assert_array_equal, reset.opt_state, second.opt_state)
    assert int(reset.step) == 1


def test_evaluator_counts_every_context_once_whatever_the_batch_size() -> None:
    task = dataclasses.replace(TASK, num_queries=1)
    samples = next(train_stream(task, 5, 10))
    params = busy_params()
    scores = score(params=params, batch=samples)
    expected = int(scores.matches.correct), 10
    counts = [
        Evaluator(MODEL, AnswerAtEnd(task.value_size), size)(params, samples)
        for size in (4, 10, 16)
    ]
    assert counts == [expected] * 3
