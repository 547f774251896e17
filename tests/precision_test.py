"""bfloat16 where it is asked for and nowhere else; the precision of products."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax.config import ModelConfig
from armt_jax.evaluation.scoring import Reading
from armt_jax.memory import PRESETS
from armt_jax.models import ARMT, Segment, create_model
from armt_jax.sharding import stage_mesh
from armt_jax.training.state import create_state
from armt_jax.training.step import accumulate_gradients, train_step
from tests.small_models import lively_params, quick_jit, random_tokens, segments_of, small_model
from tests.step_test import OPTIMIZER, SCORING, draw_batch

BF16 = jnp.dtype(jnp.bfloat16)
# In which nothing else has as many entries as there are features (24).
S, B, T = 3, 2, 5


def small_bfloat16(**changes: Any) -> ARMT:
    return small_model(dtype="bfloat16", **changes)


def _jaxprs(value: Any) -> Iterator[Any]:
    """The programs in a parameter of an equation."""
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _jaxprs(entry)
    inner = getattr(value, "jaxpr", value)
    if hasattr(inner, "eqns"):
        yield inner


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, inner ones too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in _jaxprs(value):
                yield from _equations(inner)


def _arrays(jaxpr: Any) -> list[Any]:
    """Every array of a program."""
    variables = [*jaxpr.invars, *jaxpr.constvars]
    for equation in _equations(jaxpr):
        variables += [*equation.invars, *equation.outvars]
    return [v.aval for v in variables if hasattr(v.aval, "shape") and hasattr(v.aval, "dtype")]


def _text(model: ARMT) -> Segment:
    return segments_of(random_tokens(model, S, B, T))


def _loss(model: ARMT, params: Any, schedule: str, **options: Any) -> Any:
    read = functools.partial(armt_jax.run_segments, model, params, model.init_state(B))
    state, hidden = read(_text(model), schedule=schedule, **options)
    assert hidden is not None
    logits = model.readout(params, hidden)
    return jnp.mean(logits**2) + jnp.mean(state.A**2), (state, logits)


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        *(("sequential", rule) for rule in PRESETS),
        ("chunked", "armt"),
        ("chunked", "delta"),
        ("diagonal", "armt"),
        ("pipeline", "armt"),
    ],
)
def test_no_array_with_features_is_bfloat16(schedule: str, rule: str) -> None:
    """Neither A, z, phi nor a cotangent of them, in reading, writing and going back."""
    model = small_bfloat16(rule=rule)
    options = {"mesh": stage_mesh(2)} if schedule == "pipeline" else {"remat": "sqrt"}
    run = jax.grad(functools.partial(_loss, model, schedule=schedule, **options), has_aux=True)
    params = lively_params(model)
    program = jax.make_jaxpr(run)(params)
    arrays = _arrays(program.jaxpr)
    narrow = {a.shape for a in arrays if a.dtype == BF16}
    wide = {a.shape for a in arrays if a.dtype == jnp.float32}
    k = model.features
    assert not {shape for shape in narrow if k in shape}
    assert {shape for shape in wide if k in shape}
    # Activations are.
    assert any(shape[-1] == model.config.d_ff for shape in narrow if shape)


def test_softmax_statistics_and_gates_are_float32() -> None:
    for backbone in ("gpt2", "gpt_neox"):
        model = small_bfloat16(n_layer=1, backbone=backbone)
        run = functools.partial(_loss, model, schedule="sequential")
        program = jax.make_jaxpr(run)(lively_params(model))
        kinds = {"exp", "rsqrt", "div", "logistic", "reduce_sum", "reduce_max", "cos", "sin"}
        found = [e for e in _equations(program.jaxpr) if e.primitive.name in kinds]
        wrong = [e for e in found if any(v.aval.dtype == BF16 for v in e.invars)]
        assert not wrong
        # Scores and logits are not rounded on their way out of the product that makes them.
        products = [e for e in _equations(program.jaxpr) if e.primitive.name == "dot_general"]
        ends = T + model.config.num_mem_tokens, model.config.vocab_size
        outs = [e.outvars[0].aval for e in products if e.outvars[0].aval.shape[-1] in ends]
        assert {out.shape[-1] for out in outs} == set(ends)
        assert {out.dtype for out in outs} == {jnp.dtype(jnp.float32)}
        assert {"exp", "rsqrt", "div", "logistic", "reduce_max"} <= {
            e.primitive.name for e in found
        }


def _vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("backbone", ["gpt2", pytest.param("gpt_neox", marks=pytest.mark.slow)])
def test_bfloat16_is_float32_to_its_eight_bits(backbone: str) -> None:
    """Against what rounding the weights alone to bfloat16, once, does to the float32 model.

    How far a rounding is carried on is the model's affair, the same for both. The computation
    rounds activations besides, about a dozen times a layer: up to ``sqrt(1 + 12)`` times as far.
    """
    results = []
    for dtype in ("bfloat16", "float32"):
        model = small_model(dtype=dtype, backbone=backbone, n_layer=1)
        run = functools.partial(_loss, model, schedule="sequential")
        run, params = quick_jit(jax.value_and_grad(run, has_aux=True)), lively_params(model)
        results.append(run(params))
    rounded = run(jax.tree.map(lambda leaf: leaf.astype(BF16).astype(leaf.dtype), params))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(results)} == {"float32"}
    parts = [
        (_vector(logits), _vector(state.A), _vector(grads))
        for (_, (state, logits)), grads in (*results, rounded)
    ]
    for found, expected, near in zip(*parts, strict=True):
        error, yardstick = (np.linalg.norm(x - expected) for x in (found, near))
        assert 0 < error < 13**0.5 * yardstick
    for found, expected, _ in list(zip(*parts, strict=True))[:2]:
        # Reading and writing, ten roundings of 2^-9 one way.
        assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    # Gradients point the same way.
    found, expected, _ = (grads for _, _, grads in parts)
    assert found @ expected > 0.99 * np.linalg.norm(found) * np.linalg.norm(expected)
    # What is stored has more digits than a bfloat16.
    A = results[0][0][1][0].A
    assert np.any(A.astype(BF16).astype(A.dtype) != A)


def test_a_training_step_keeps_float32() -> None:
    """Parameters, moments, loss and gradients of a model that computes in bfloat16."""
    sizes: dict[str, Any] = {"n_layer": 1, "n_head": 2, "d_model": 16, "d_mem": 4, "d_ff": 16}
    model = create_model(ModelConfig(dtype="bfloat16", n_positions=16, **sizes))
    options = {"scoring": SCORING, "reading": Reading("sequential")}
    step = quick_jit(functools.partial(train_step, model, OPTIMIZER, **options))
    state = create_state(model, OPTIMIZER, 0)
    after, metrics = step(state, draw_batch(4), np.float32(1e-2))
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves((after.params, after.opt_state))}
    assert kinds == {"float32", "int32"}  # Adam counts its steps
    assert metrics.loss.dtype == metrics.grad_norm.dtype == jnp.float32
    assert metrics.finite.all()
    assert float(metrics.loss) == pytest.approx(np.log(128), rel=0.1)
    table, before = after.params["embed"]["wte"], state.params["embed"]["wte"]
    # A step of a hundredth of a bfloat16's resolution is not lost.
    assert np.any(table.astype(BF16).astype(jnp.float32) != table)
    assert np.any(table != before)


def _precisions(model: ARMT, schedule: str) -> list[Any]:
    """The precision of every product of a gradient of reading, asking and scoring."""

    def run(params: Any, batch: Any) -> Any:
        reading = Reading(schedule)
        return accumulate_gradients(model, params, batch, SCORING, 1, reading=reading)

    params = jax.eval_shape(model.init, jax.random.key(0))
    program = jax.make_jaxpr(run)(params, draw_batch(2))
    products = [e for e in _equations(program.jaxpr) if e.primitive.name == "dot_general"]
    return [equation.params["precision"] for equation in products]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["sequential", "chunked", "diagonal"])
def test_every_product_has_the_precision_that_is_asked_for(schedule: str) -> None:
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "d_model": 16, "d_mem": 4}

    def found(precision: str) -> set[Any]:
        config = ModelConfig(n_positions=16, matmul_precision=precision, **sizes)
        return set(_precisions(create_model(config), schedule))

    highest, high = jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGH
    assert found("highest") == {(highest, highest)}
    assert found("high") == {(high, high)}
    assert found("default") == {None}
    # `default` leaves what the caller has set.
    with jax.default_matmul_precision("highest"):
        assert found("default") == {(highest, highest)}
        assert found("high") == {(high, high)}
