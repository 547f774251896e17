"""What is kept for the backward pass changes nothing but memory."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.config import REMATS
from armt_jax.models import ARMT
from armt_jax.recurrence.rematerialisation import block_length, remat_scan
from armt_jax.sharding import stage_mesh
from tests.layerwise_cases import Case, S, fragile_gradients, kept_for_backward, scans
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)


def _scan_gradients(remat: str, steps: int) -> Any:
    """Of a recurrence whose steps differ and do not commute, outputs included."""
    scanned = jnp.linspace(0.1, 1.0, steps)

    def body(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = jnp.sin(carry * x + jnp.roll(carry, 1))
        return carry, carry[0] * x

    def loss(carry: jax.Array, scanned: jax.Array) -> Any:
        carry, out = remat_scan(body, carry, scanned, remat=remat)
        return jnp.sum(carry) + jnp.sum(jnp.cos(out)), out

    run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    return quick_jit(run)(jnp.linspace(-1.0, 1.0, 3), scanned)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("steps", [1, 2, 5, 9, 11])
def test_scans_are_one_scan(steps: int) -> None:
    expected = _scan_gradients("none", steps)
    for remat in ("segment", "sqrt"):
        assert_close(_scan_gradients(remat, steps), expected, 1e-14)


def test_blocks_keep_about_twice_the_root() -> None:
    for steps in range(1, 300):
        length = block_length(steps)
        assert 1 <= length <= steps
        assert steps // length + length <= 2 * np.sqrt(steps) + 1
    assert [block_length(steps) for steps in (16, 100, 12, 50)] == [4, 10, 4, 10]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("schedule", "layers"),
    [("sequential", 3), ("diagonal", 3), pytest.param("pipeline", 4, marks=pytest.mark.slow)],
)
def test_two_levels_are_the_schedule_itself(schedule: str, layers: int) -> None:
    """A model that dead lanes break, resets, and a rest behind the blocks."""
    options = {"mesh": stage_mesh(2)} if schedule == "pipeline" else {}
    expected = fragile_gradients("sequential", layers)
    assert_close(fragile_gradients(schedule, layers, remat="sqrt", **options), expected, 1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("schedule", "remat"),
    [
        ("sequential", "sqrt"),
        pytest.param("sequential", "segment", marks=pytest.mark.slow),
        pytest.param("chunked", "sqrt", marks=pytest.mark.slow),
        pytest.param("diagonal", "sqrt", marks=pytest.mark.slow),
    ],
)
def test_armt_learns_the_same(schedule: str, remat: str) -> None:
    case = _eight_segments(small_model(n_layer=1))
    expected = case.gradients("sequential")(1.0)
    assert_close(case.gradients(schedule, remat=remat)(1.0), expected, 1e-10)


def _eight_segments(model: ARMT) -> Case:
    """Two chunks of four, so that a block of chunks is more than one."""
    return Case(model, text=segments_of(random_tokens(model, 8, 4, 3)))


def test_one_state_for_each_block_is_kept() -> None:
    """Of the blocks before the rest; inside, while one is worked on, one for each segment."""
    model, length = small_model(n_layer=1), block_length(S)
    state = {leaf.shape for leaf in jax.tree.leaves(model.init_state(4))}
    kept = kept_for_backward(model, S // length, "sequential", remat="sqrt")
    # Beside the states a block's own tokens, mask and resets, which are inputs.
    assert {shape for shape in kept if shape[0] != length} == state
    assert kept.count(model.init_state(4).A.shape) == 1
    kept = kept_for_backward(model, S, "sequential", remat="segment")
    assert set(kept) == state


def _temporary_bytes(model: ARMT, segments: int, **options: Any) -> int:
    """What the compiler sets aside for the gradient of a text of ``segments``."""
    params = lively_params(model)
    text = segments_of(random_tokens(model, segments, 2, 3))

    def loss(params: Any, text: Any) -> jax.Array:
        read = functools.partial(armt_jax.run_segments, model, params, model.init_state(2), text)
        return jnp.sum(read(need_hidden=False, **options)[0].A)

    program = quick_jit(jax.grad(loss)).lower(params, text).compile()
    analysis = program.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.slow
def test_memory_of_the_compiled_program() -> None:
    """Segments twice over: twice the memory, twice, 1.4 times, and the same."""
    model = small_model(n_layer=1, d_mem=16, d_model=32)

    def more(first: int, second: int, **options: Any) -> int:
        return _temporary_bytes(model, second, **options) - _temporary_bytes(
            model, first, **options
        )

    none, segment, sqrt = (more(64, 256, remat=remat) for remat in REMATS)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(model.init_state(2)))
    assert none > 2 * segment
    assert segment == pytest.approx(192 * state, rel=0.1)
    assert sqrt == pytest.approx(16 * state, rel=0.3)
    assert more(64, 256, bptt=8) < state


def test_what_remat_cannot_be() -> None:
    model = small_model(n_layer=1)
    text = segments_of(random_tokens(model, 2, 1, 3))
    with pytest.raises(ConfigError) as error:
        armt_jax.run_segments(model, None, model.init_state(1), text, remat="full")
    assert str(error.value) == "remat = 'full': must be one of none, segment, sqrt"


def test_chunked_keeps_states_of_blocks_of_chunks() -> None:
    """13 chunks: 2 blocks and 3 left over; and 5 while a block is worked on."""
    model = small_model(n_layer=1)
    case = Case(model, text=segments_of(random_tokens(model, 64, 4, 3)))
    A = case.state.A.shape[1:]

    def states(remat: str) -> list[int]:
        def loss(A: jax.Array) -> jax.Array:
            read = functools.partial(case.read, case.params, A, case.state.z, "chunked")
            return jnp.sum(read(remat=remat, need_hidden=False)[0].A)

        outer = scans(jax.make_jaxpr(jax.grad(loss))(case.state.A).jaxpr)
        return [
            scan.params["length"]
            for scan in outer
            for out in scan.outvars[scan.params["num_carry"] :]
            if out.aval.shape[1:] == A
        ]

    assert states("none") == [13]
    assert states("sqrt") == [2, 3, 5]
