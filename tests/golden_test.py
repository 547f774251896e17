"""The library against the authors' own numbers: logits, states, gradients, text, training."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import armt_jax
from armt_jax.generation import generate_with_scores
from armt_jax.interop import load_official, to_official
from armt_jax.models import Segment
from armt_jax.recurrence.segmenting import segment_lengths
from tests.golden_files import Golden, names

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
SINGLE: dict[str, Any] = {"rtol": 0.0, "atol": 2e-4}
ARMT = names("armt_")
OTHERS = names("rmt_", "prmt_")


def each_model(*fast: str) -> Any:
    """Every file; those of other families than ARMT, but for the ``fast``, in the slow tests."""
    slow = pytest.mark.slow
    others = [pytest.param(name, marks=() if name in fast else slow) for name in OTHERS]
    return pytest.mark.parametrize("name", [*ARMT, *others])


def _loss(golden: Golden, model, params):
    out = armt_jax.forward(
        model,
        params,
        jnp.asarray(golden["input_ids"]),
        segment_size=golden.segment_size,
        alignment=golden.alignment,
        attention_mask=jnp.asarray(golden["attention_mask"]),
        sliding_window=golden.meta.get("sliding_window", False),
    )
    mask = golden.get("labels_mask")
    mask = None if mask is None else jnp.asarray(mask)
    return armt_jax.next_token_loss(out.logits, jnp.asarray(golden["labels"]), mask), out


def _states(golden: Golden, state: Any) -> dict[str, Any]:
    """The parts of a state by their names in the files."""
    if golden.meta["kind"] == "armt":
        return {"state/W_mem": state.A, "state/z": state.z}
    return {"state/mem": state.memory}


def _load(golden: Golden):
    model = armt_jax.create_model(golden.model_config)
    return model, load_official(golden.group("param"), golden.model_config)


@pytest.mark.usefixtures("x64")
@each_model("rmt_gpt2", "prmt_gpt2", "prmt_neox")
def test_float64_values_and_gradients(name: str) -> None:
    golden = Golden(name)
    model, params = _load(golden)
    grad = jax.value_and_grad(functools.partial(_loss, golden, model), has_aux=True)
    (loss, out), grads = jax.jit(grad)(params)
    np.testing.assert_allclose(out.logits, golden["logits"], **EXACT)
    np.testing.assert_allclose(loss, golden["loss"], **EXACT)
    for key, found in _states(golden, out.state).items():
        np.testing.assert_allclose(found, golden[key][-1], **EXACT)
    named = to_official(grads, golden.model_config)
    expected = golden.group("grad")
    without = set(golden.meta["grad_none"])
    assert set(named) - without == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(named[key], value, **EXACT, err_msg=key)


@pytest.mark.usefixtures("x64")
@each_model("rmt_gpt2_wrap_mask", "prmt_gpt2_wrap_mask")
def test_float64_state_after_every_segment(name: str) -> None:
    golden = Golden(name)
    model, params = _load(golden)
    tokens, mask = golden["input_ids"], golden["attention_mask"].astype(bool)
    lengths = segment_lengths(tokens.shape[1], golden.segment_size, golden.alignment)
    assert lengths == golden.meta["segment_lengths"]
    window = [max(lengths)] if golden.meta.get("sliding_window") else []
    state = model.init_state(tokens.shape[0], jnp.float64, *window)
    step, start = jax.jit(model.step), 0
    for index, length in enumerate(lengths):
        cut = slice(start, start + length)
        segment = Segment(jnp.asarray(tokens[:, cut]), jnp.asarray(mask[:, cut]))
        state, _ = step(params, state, segment)
        start += length
        for key, found in _states(golden, state).items():
            np.testing.assert_allclose(found, golden[key][index], **EXACT)


@each_model("rmt_neox")
def test_float32(name: str) -> None:
    golden = Golden(name)
    model, params = _load(golden)
    assert jax.tree.leaves(params)[0].dtype == jnp.float32
    loss, out = jax.jit(functools.partial(_loss, golden, model))(params)
    np.testing.assert_allclose(out.logits, golden["f32/logits"], **SINGLE)
    np.testing.assert_allclose(out.logits, golden["logits"], **SINGLE)
    np.testing.assert_allclose(loss, golden["f32/loss"], **SINGLE)
    # ARMT's states of these random parameters reach 1e13: 2e-4 of the largest entry. (The authors'
    # float32 is 4e-6 of it away from their own float64, and so is this.)
    for key, found in _states(golden, out.state).items():
        scale = max(1.0, float(np.abs(golden[key][-1]).max()))
        np.testing.assert_allclose(found / scale, golden[key][-1] / scale, **SINGLE)


@pytest.fixture
def as_users_compile() -> Iterator[None]:
    """With XLA's optimisations, which most tests leave out: they decide how float32 is rounded."""
    usual = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", usual)


@pytest.mark.usefixtures("as_users_compile")
@pytest.mark.parametrize("name", names("gen_"))
def test_greedy_generation(name: str) -> None:
    golden = Golden(name)
    model, params = _load(golden)
    tokens = jnp.asarray(golden["input_ids"])
    kwargs = {
        "segment_size": golden.segment_size,
        "max_new_tokens": golden.meta["max_new_tokens"],
    }
    ids, scores = generate_with_scores(model, params, tokens, **kwargs)
    np.testing.assert_array_equal(ids, golden["generated"])
    np.testing.assert_allclose(scores, golden["scores"], **SINGLE)
    last = tokens[:, tokens.shape[1] - golden.meta["segment_lengths"][-1] :]
    ids = armt_jax.generate(model, params, last, **kwargs)
    np.testing.assert_array_equal(ids, golden["generated_last_segment_only"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", names("gen_"))
def test_float64_generation_scores(name: str) -> None:
    golden = Golden(name)
    model, params = _load(golden)
    _, scores = generate_with_scores(
        model,
        params,
        jnp.asarray(golden["input_ids"]),
        segment_size=golden.segment_size,
        max_new_tokens=golden.meta["max_new_tokens"],
    )
    np.testing.assert_allclose(scores, golden["scores"], **EXACT)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", names("traj_armt_"))
def test_adamw_trajectory(name: str) -> None:
    golden = Golden(name)
    meta, config = golden.meta, golden.model_config
    model = armt_jax.create_model(config)
    params = load_official(golden.group("param_init"), config)
    b1, b2 = meta["betas"]
    optimizer = optax.chain(
        optax.clip(meta["clip_grad_value"]),
        optax.adamw(meta["lr"], b1, b2, meta["adam_eps"], weight_decay=meta["weight_decay"]),
    )
    state = optimizer.init(params)

    def loss_of(params, tokens):
        out = armt_jax.forward(model, params, tokens, segment_size=golden.segment_size)
        mask = golden.get("labels_mask")
        mask = None if mask is None else jnp.asarray(mask)
        return armt_jax.next_token_loss(out.logits, tokens, mask)

    @jax.jit
    def train(params, state, tokens):
        loss, grads = jax.value_and_grad(loss_of)(params, tokens)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for index, tokens in enumerate(golden["input_ids"]):
        params, state, loss = train(params, state, jnp.asarray(tokens))
        np.testing.assert_allclose(loss, golden["losses"][index], rtol=0, atol=1e-8)
    final = to_official(params, config)
    for key, value in golden.group("param_final").items():
        np.testing.assert_allclose(final[key], value, rtol=1e-7, atol=1e-8, err_msg=key)
