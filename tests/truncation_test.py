"""Truncated backpropagation against a loop with ``stop_gradient`` at the borders of windows."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import armt_jax
from armt_jax import ConfigError
from armt_jax.models import Params, Segment
from armt_jax.recurrence import run
from armt_jax.recurrence.chunked import chunk_layout
from armt_jax.recurrence.sequential import reset_rows
from armt_jax.recurrence.truncation import goes_on, last_window
from armt_jax.sharding import stage_mesh
from tests.layerwise_cases import B, Case, S, T, fragile_gradients, resets, scans
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)


def by_hand(
    model: Any,
    params: Params,
    state: Any,
    segments: Segment,
    *,
    reset: jax.Array | None = None,
    bptt: int = 0,
    need_hidden: bool = True,
    **unused: Any,
) -> tuple[Any, jax.Array | None]:
    """``run_segments`` as a loop."""
    del unused
    hidden = []
    for index in range(segments.tokens.shape[0]):
        if bptt and index and index % bptt == 0:
            state = lax.stop_gradient(state)
        if reset is not None:
            state = reset_rows(model, state, reset[index])
        segment = jax.tree.map(lambda leaf, i=index: leaf[i], segments)
        state, out = model.step(params, state, segment)
        hidden.append(out)
    return state, jnp.stack(hidden) if need_hidden else None


def _fragile_by_hand(monkeypatch: pytest.MonkeyPatch, layers: int, **options: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(armt_jax, "run_segments", by_hand)
        return fragile_gradients("a loop", layers, **options)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("schedule", "layers", "bptt"),
    [
        ("sequential", 1, 2),
        ("sequential", 1, 3),
        ("diagonal", 3, 2),
        ("diagonal", 3, 3),
        pytest.param("pipeline", 4, 2, marks=pytest.mark.slow),
    ],
)
def test_windows_are_a_loop_with_borders(
    schedule: str, layers: int, bptt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five segments with resets: the last window is shorter; a dead lane's memory is not finite."""
    options = {"mesh": stage_mesh(2)} if schedule == "pipeline" else {}
    expected = _fragile_by_hand(monkeypatch, layers, bptt=bptt)
    whole = _fragile_by_hand(monkeypatch, layers)
    for remat in ("none", "segment", "sqrt"):
        found = fragile_gradients(schedule, layers, bptt=bptt, remat=remat, **options)
        assert_close(found, expected, 1e-10)
    # The values are those of the whole text, the gradients are not.
    assert_close(found[0], whole[0], 1e-12)
    assert not np.allclose(
        found[1][0]["layers"]["floor"], whole[1][0]["layers"]["floor"], rtol=1e-3
    )


class _ByHand(Case):
    """The same text and memory, read by ``by_hand``."""

    def read(self, params: Params, A: jax.Array, z: jax.Array, schedule: str, **options: Any):
        del schedule
        start = self.state._replace(A=A, z=z)
        return by_hand(self.model, params, start, self.text, reset=self.reset, **options)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("schedule", "bptt", "remat"),
    [
        ("chunked", 3, "sqrt"),
        pytest.param("sequential", 2, "sqrt", marks=pytest.mark.slow),
        pytest.param("chunked", 2, "none", marks=pytest.mark.slow),
        pytest.param("diagonal", 2, "segment", marks=pytest.mark.slow),
    ],
)
def test_armt_in_windows(schedule: str, bptt: int, remat: str) -> None:
    """With hidden states, in every window, and without: the last window alone."""
    model = small_model(n_layer=1)
    case = Case(model, None if schedule == "chunked" else resets())
    loop = _ByHand(model, case.reset).gradients("", bptt=bptt)
    found = case.gradients(schedule, bptt=bptt, remat=remat)(1.0)
    assert_close(found, loop(1.0), 1e-10)
    assert np.any(found[1][1])
    (loss, (after, _)), grads = case.gradients(schedule, bptt=bptt, remat=remat, need_hidden=False)(
        1.0
    )
    (expected_loss, (expected_after, _)), expected = loop(0.0)
    assert_close((loss, after, grads), (expected_loss, expected_after, expected), 1e-10)
    np.testing.assert_array_equal(grads[1], 0.0)


def test_only_the_last_window_is_differentiated() -> None:
    """Where only the final state counts: one scan back, of the last window's segments."""
    model = small_model(n_layer=1)
    case = Case(model, resets())

    def loss(params: Params, bptt: int) -> jax.Array:
        read = functools.partial(case.read, params, case.state.A, case.state.z, "sequential")
        return jnp.sum(read(need_hidden=False, bptt=bptt)[0].A)

    def found(bptt: int) -> list[tuple[int, bool]]:
        program = jax.make_jaxpr(jax.grad(functools.partial(loss, bptt=bptt)))(case.params)
        return [(scan.params["length"], scan.params["reverse"]) for scan in scans(program.jaxpr)]

    assert found(2) == [(4, False), (1, False), (1, True)]
    assert found(4) == [(4, False), (1, False), (1, True)]
    assert found(3) == [(3, False), (2, False), (2, True)]
    for whole in (0, S, S + 1):
        assert found(whole) == [(S, False), (S, True)]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_sliding_window_ends_at_a_border_too() -> None:
    """Its mask and length are no numbers to differentiate; its keys are detached anyway."""
    model = small_model(n_layer=1)
    params, text = lively_params(model), segments_of(random_tokens(model, 3, B, T))

    def loss(params: Params, read: Any) -> Any:
        state, hidden = read(model, params, model.init_state(B, window=T), text, bptt=2)
        return jnp.sum(jnp.sin(hidden)) + jnp.sum(state.A)

    found, expected = (
        quick_jit(jax.value_and_grad(functools.partial(loss, read=read)))(params)
        for read in (armt_jax.run_segments, by_hand)
    )
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("bptt", [0, 1, 2, 5, 7, 8, 20])
@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_no_chunk_crosses_a_border(count: int, bptt: int) -> None:
    layout, live = chunk_layout(count, bptt)
    flat = layout.reshape(-1)
    np.testing.assert_array_equal(flat[flat < count], np.arange(count))
    assert flat.max() <= count
    window = bptt or count
    for index, chunk in enumerate(layout):
        real = chunk[chunk < count]
        assert real.size
        assert len(set(real // window)) == 1
        border = real[0] % window == 0 and real[0] > 0
        assert live is None or live[index] == (not border)
    assert (live is None) == (goes_on(count, bptt) is None) == (last_window(count, bptt) == 0)


def test_windows_that_cannot_be() -> None:
    model = small_model(n_layer=1)
    text = segments_of(random_tokens(model, 2, 1, T))
    with pytest.raises(ConfigError) as error:
        run.run_segments(model, None, model.init_state(1), text, bptt=-1)
    assert str(error.value) == "bptt = -1: must be 0 (the whole text) or more"
