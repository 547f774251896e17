"""RMT, PRMT and RMT-R: who sees whom, what is carried on, which ways of reading are the same."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.models import Segment
from armt_jax.sharding import stage_mesh
from armt_jax.streaming import StreamReader, load_stream, save_stream
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

S, T = 4, 3
BACKBONES = {"rmt": "gpt2", "prmt": "gpt_neox", "prmt_layerwise": "gpt2", "rmt_r": "gpt_neox"}
CASES = list(BACKBONES.items())


def each_model(*fast: str) -> Any:
    """Every case; but for the ``fast`` families, in the slow tests."""
    return pytest.mark.parametrize(
        ("family", "backbone"),
        [
            pytest.param(*case, marks=() if case[0] in fast else pytest.mark.slow)
            for case in (*CASES, ("rmt", "gpt_neox"))
        ],
    )


@functools.cache
def _model(family: str, backbone: str, **changes: Any) -> Any:
    name, _, passing = family.partition("_layer")
    changes |= {"memory_passing": "layerwise" if passing else "released"}
    return small_model(family=name, backbone=backbone, retrieval_states=2, **changes)


@functools.lru_cache
def _reader(model: Any, **options: Any):
    return quick_jit(functools.partial(armt_jax.run_segments, model, **options))


def _read(model: Any, params: Any, text: Segment, **options: Any):
    return _reader(model, **options)(params, model.init_state(text.tokens.shape[1]), text)


@pytest.mark.usefixtures("x64")
@each_model("rmt_r")
def test_tokens_see_earlier_tokens_only(family: str, backbone: str) -> None:
    """Every token of the text is another id, so its embedding's gradient is the token's own."""
    model = _model(family, backbone, wrap_pos=True)
    params = lively_params(model)
    tokens = jnp.arange(S * T, dtype=jnp.int32).reshape(S, 1, T)
    name = {"gpt2": "wte", "gpt_neox": "embed_in"}[backbone]
    by_layer = "memory" in params["layers"]
    memories = params["layers"]["memory"] if by_layer else params["embed"]["memory"]

    def hidden(table, memories):
        embed = {**params["embed"], name: table}
        layers = params["layers"]
        if by_layer:
            layers = {**layers, "memory": memories}
        else:
            embed["memory"] = memories
        changed = {**params, "embed": embed, "layers": layers}
        _, out = armt_jax.run_segments(model, changed, model.init_state(1), segments_of(tokens))
        return jnp.einsum("sbtd,d->sbt", out, jnp.arange(1.0, 17.0)).reshape(S * T)

    table = params["embed"][name]
    pullback = quick_jit(jax.vmap(lambda one: jax.vjp(hidden, table, memories)[1](one)))
    seen, learned = pullback(jnp.eye(S * T))
    seen = np.abs(seen).max(axis=-1)[:, : S * T]
    assert np.all(seen[np.triu_indices(S * T, 1)] == 0)
    assert np.all(seen[np.tril_indices(S * T)] > 0)
    # The learned memory stands before the first token.
    assert np.all(np.abs(learned).reshape(S * T, -1).max(axis=1) > 0)


@pytest.mark.usefixtures("x64")
@each_model("prmt")
def test_write_is_step_and_pieces_are_the_whole(family: str, backbone: str) -> None:
    model = _model(family, backbone)
    params = lively_params(model)
    text = segments_of(random_tokens(model, 5, 2, T))
    whole, hidden = _read(model, params, text)
    written, nothing = _read(model, params, text, need_hidden=False)
    assert nothing is None
    assert_close(written, whole, 1e-12)
    first, rest = (jax.tree.map(lambda x, c=c: x[c], text) for c in (slice(3), slice(3, None)))
    middle, before = _read(model, params, first)
    end, after = _reader(model)(params, middle, rest)
    assert_close((end, jnp.concatenate([before, after])), (whole, hidden), 1e-12)
    step, state = quick_jit(model.step), model.init_state(2)
    for index in range(5):
        state, out = step(params, state, jax.tree.map(lambda x, i=index: x[i], text))
        assert_close(out, hidden[index], 1e-12)
    assert_close(state, whole, 1e-12)


@pytest.mark.usefixtures("x64")
@each_model("rmt_r")
def test_answer_is_each_query_as_a_last_segment_of_its_own(family: str, backbone: str) -> None:
    """Values, and gradients of parameters and memory, with a padded query among them."""
    model = _model(family, backbone)
    params = lively_params(model)
    state, _ = _read(model, params, segments_of(random_tokens(model, 4, 2, T)))
    mask = np.ones((2, 3, 4), bool)
    mask[1, 2, :2] = False
    queries = segments_of(random_tokens(model, 2, 3, 4, seed=1), mask)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 1)) * mask[..., None])

    def forked(params, memory):
        logits = armt_jax.answer(model, params, state._replace(memory=memory), queries)
        return jnp.sum(jnp.sin(weights * logits)), weights * logits

    def one_by_one(params, memory):
        def ask(q):
            _, hidden = model.step(params, state._replace(memory=memory), q)
            return model.readout(params, hidden)

        each = jax.tree.map(lambda x: x.swapaxes(0, 1), queries)
        logits = weights * jax.lax.map(ask, each).swapaxes(0, 1)
        return jnp.sum(jnp.sin(logits)), logits

    found, expected = (
        quick_jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, state.memory)
        for f in (forked, one_by_one)
    )
    assert_close(found, expected, 1e-11)
    assert np.all(np.abs(found[1][1]).max(axis=(-2, -1)) > 0)


@pytest.mark.usefixtures("x64")
@each_model("prmt")
def test_texts_do_not_meet_and_a_segment_of_padding_is_not_read(family: str, backbone: str) -> None:
    model = _model(family, backbone)
    params = lively_params(model)
    tokens = random_tokens(model, S, 3, T)
    mask = np.ones((S, 3, T), bool)
    mask[0, 0] = mask[2, 1] = mask[3, 2, 1:] = False
    state, hidden = _read(model, params, segments_of(tokens, mask))
    for row in range(3):
        kept = np.flatnonzero(mask[:, row].any(axis=-1))
        text = segments_of(tokens[kept, row : row + 1], mask[kept, row : row + 1])
        alone, alone_hidden = _read(model, params, text)
        axis = 1 if state.memory.ndim == 4 else 0
        part = jax.tree.map(lambda x, r=row, a=axis: jnp.take(x, jnp.asarray([r]), axis=a), state)
        assert_close(alone, part, 1e-12)
        found = hidden[kept, row][mask[kept, row]]
        np.testing.assert_allclose(alone_hidden[:, 0][mask[kept, row]], found, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@each_model("prmt", "rmt_r")
def test_streamed_in_any_cuts_is_the_whole_text(family: str, backbone: str, tmp_path: Any) -> None:
    model = _model(family, backbone, wrap_pos=backbone == "gpt2")
    params = lively_params(model)
    tokens = np.asarray(random_tokens(model, 2, 4 * T + 2))
    whole = armt_jax.forward(model, params, jnp.asarray(tokens), segment_size=T).state
    reader = StreamReader(model, params, segment_size=T, block_segments=2)
    state = reader.start(2)
    for start, stop in ((0, 1), (1, 9), (9, 14)):
        state = reader.feed(state, tokens[:, start:stop])
        save_stream(tmp_path / "half", reader, state)
        state = load_stream(tmp_path / "half", reader)
    assert_close(reader.finish(state), whole, 1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "options",
    [
        {"bptt": 2},
        *(pytest.param({"remat": r}, marks=pytest.mark.slow) for r in ("sqrt", "segment")),
    ],
)
def test_kept_less_for_the_backward_pass(options: dict[str, Any]) -> None:
    """``remat`` changes nothing; ``bptt`` ends the gradient where its window begins."""
    model = _model("rmt_r", "gpt_neox")
    params = lively_params(model)
    text = segments_of(random_tokens(model, S, 2, T))

    def loss(params, options):
        state, _ = armt_jax.run_segments(
            model, params, model.init_state(2), text, need_hidden=False, **options
        )
        return jnp.sum(jnp.sin(state.memory)) + jnp.sum(jnp.cos(state.past))

    found, expected = (
        quick_jit(jax.grad(functools.partial(loss, options=o)))(params) for o in (options, {})
    )
    if "remat" in options:
        assert_close(found, expected, 1e-11)
        return
    unseen = np.setdiff1d(np.asarray(text.tokens[:2]), np.asarray(text.tokens[2:]))
    assert len(unseen) > 0
    assert not np.any(found["embed"]["embed_in"][unseen])
    assert np.all(np.abs(expected["embed"]["embed_in"][unseen]).max(axis=1) > 0)


@functools.cache
def _prmt_gradients(schedule: str, backbone: str):
    """Outputs and gradients with resets and padding, hidden states and memories counting."""
    model = _model("prmt_layerwise", backbone)
    params = lively_params(model)
    mask = np.ones((S, 2, T), bool)
    mask[1, 0] = mask[2, 1, 2:] = False
    text = segments_of(random_tokens(model, S, 2, T), mask)
    reset = jnp.asarray([[False, False], [False, True], [False, False], [True, False]])
    rng = np.random.default_rng(0)
    shape = (S, 2, T, model.config.d_model)
    weights = jnp.asarray(rng.normal(size=shape))
    start = model.init_state(2)
    memory = jnp.asarray(rng.normal(size=start.memory.shape))
    options: dict[str, Any] = {"schedule": schedule, "reset": reset}
    if schedule == "pipeline":
        options["mesh"] = stage_mesh(2)

    def loss(params, memory):
        begin = start._replace(memory=memory, written=start.written.at[:, 0].set(True))
        state, hidden = armt_jax.run_segments(model, params, begin, text, **options)
        assert hidden is not None
        return jnp.sum(weights * hidden) + jnp.sum(jnp.sin(state.memory)), (state, hidden)

    return quick_jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, memory)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", ["diagonal", pytest.param("pipeline", marks=pytest.mark.slow)])
def test_prmt_layer_by_layer_equals_sequential(schedule: str) -> None:
    found, expected = (_prmt_gradients(name, "gpt2") for name in (schedule, "sequential"))
    assert_close(found, expected, 1e-11)
    grads, memory = expected[1]
    assert np.all(np.abs(grads["layers"]["memory"]).max(axis=(1, 2)) > 0)
    assert np.all(np.abs(memory[:, 0]).max(axis=(1, 2)) > 0)
    assert not np.any(memory[:, 1])  # never written: the learned tokens are read instead
    assert not np.any(grads["embed"]["memory"])


@pytest.mark.parametrize(
    ("family", "schedule", "message"),
    [
        ("rmt", "diagonal", "needs a memory in each layer; RMT's goes from the top layer to the"),
        ("rmt", "pipeline", "needs a memory in each layer; RMT's goes from the top layer to the"),
        ("rmt_r", "diagonal", "needs a memory in each layer; RMTRetrieval's goes from the top"),
        ("prmt", "diagonal", "needs a memory in each layer; PRMT's goes from the top layer to"),
        ("rmt", "chunked", "needs a memory of low-rank updates (ARMT without sliding window)"),
        ("prmt", "chunked", "needs a memory of low-rank updates (ARMT without sliding window)"),
        ("rmt", "whole", "needs a model to which segments are nothing; RMT has a memory for each"),
        ("prmt", "whole", "needs a model to which segments are nothing; PRMT has a memory for"),
    ],
)
def test_schedules_that_cannot_be_are_refused_with_the_reason(
    family: str, schedule: str, message: str
) -> None:
    model = _model(family, "gpt2")
    params = jax.eval_shape(model.init, jax.random.key(0))
    text = segments_of(random_tokens(model, 2, 1, T))
    with pytest.raises(ConfigError) as error:
        armt_jax.run_segments(model, params, model.init_state(1), text, schedule=schedule)
    assert str(error.value).startswith(f"schedule = {schedule!r}: {message}")


@pytest.mark.parametrize(
    ("family", "wrap_pos", "room", "why"),
    [
        ("rmt", False, 12, "model.n_positions = 16 less 2 * model.num_mem_tokens = 4"),
        ("prmt", True, 16, "model.n_positions = 16"),
        ("rmt_r", False, 10, "model.n_positions = 16 less 3 * model.num_mem_tokens = 6"),
    ],
)
def test_positions_are_shared_with_all_copies_of_the_memory(
    family: str, wrap_pos: bool, room: int, why: str
) -> None:
    model = _model(family, "gpt2", wrap_pos=wrap_pos, n_layer=1)
    params = lively_params(model)
    fits = random_tokens(model, 1, 2 * room)
    out = quick_jit(functools.partial(armt_jax.forward, model, segment_size=room))(params, fits)
    assert np.all(np.isfinite(out.logits))
    with pytest.raises(ConfigError) as error:
        armt_jax.forward(model, params, fits, segment_size=room + 1)
    assert str(error.value) == f"segment length = {room + 1}: must be at most {room} ({why})"
    with pytest.raises(
        ConfigError, match=r"sliding_window = True: must be False for model\.family"
    ):
        armt_jax.forward(model, params, fits, segment_size=room, sliding_window=True)
