"""What the tests of the schedules read, and a model that dead lanes break."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import armt_jax
from armt_jax import ModelConfig
from armt_jax.models import ARMT, Params, Segment
from armt_jax.models.armt import ArmtState
from tests.small_models import lively_params, quick_jit, random_tokens, segments_of, small_model

S, B, T = 5, 4, 3


def padded_text(model: ARMT) -> Segment:
    """Row 0 starts with a segment of padding, row 1 has them in the middle, row 2 ends early."""
    mask = np.ones((S, B, T), bool)
    mask[0, 0] = False
    mask[2:4, 1] = False
    mask[3, 2, 1:] = False
    mask[4, 2] = False
    return segments_of(random_tokens(model, S, B, T), mask)


def resets() -> jax.Array:
    """Before all, before a segment of padding, never, and before each of the last two segments."""
    reset = np.zeros((S, B), bool)
    reset[0, 0] = reset[2, 1] = reset[3, 3] = reset[4, 3] = True
    return jnp.asarray(reset)


def old_memory(model: ARMT, seed: int = 0) -> ArmtState:
    """A memory with something in it; ``z`` is positive as after any reading."""
    rng = np.random.default_rng(seed)
    state = model.init_state(B)
    A, z = rng.normal(size=state.A.shape), rng.uniform(0.5, 1.0, size=state.z.shape)
    dtype = state.A.dtype
    return ArmtState(jnp.asarray(A, dtype), jnp.asarray(z, dtype), jnp.ones_like(state.written))


class Case:
    """One text read from one memory: what comes out, and the gradients of a projection of it."""

    def __init__(
        self,
        model: ARMT,
        reset: jax.Array | None = None,
        text: Segment | None = None,
        state: ArmtState | None = None,
    ) -> None:
        rng = np.random.default_rng(1)
        self.model, self.reset, self.params = model, reset, lively_params(model)
        self.text = padded_text(model) if text is None else text
        self.state = old_memory(model) if state is None else state
        hidden = (*self.text.tokens.shape, model.config.d_model)
        shapes = (self.state.A.shape, self.state.z.shape, hidden)
        dtype = self.state.A.dtype
        self.weights = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]

    def read(self, params: Params, A: jax.Array, z: jax.Array, schedule: str, **options: Any):
        start = ArmtState(A, z, self.state.written)
        options = {"schedule": schedule, "reset": self.reset, **options}
        return armt_jax.run_segments(self.model, params, start, self.text, **options)

    def values(self, schedule: str, **options: Any):
        run = quick_jit(functools.partial(self.read, schedule=schedule, **options))
        return run(self.params, self.state.A, self.state.z)

    def gradients(self, schedule: str, **options: Any):
        """``f(share)``: outputs and gradients, hidden states counting by ``share``."""

        def loss(params: Params, A: jax.Array, z: jax.Array, share: float):
            after, hidden = self.read(params, A, z, schedule, **options)
            total = jnp.sum(self.weights[0] * after.A) + jnp.sum(self.weights[1] * after.z)
            if hidden is not None:
                total = total + share * jnp.sum(self.weights[2] * hidden)
            return total, (after, hidden)

        run = quick_jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
        return lambda share: run(self.params, self.state.A, self.state.z, share)


def assert_gradients_mean_something(grads: Any) -> None:
    """Nothing is equal because it is zero: all layers write, and rows see their first memory."""
    params, A, _ = grads
    projections = params["layers"]["memory"]
    for name in projections:
        assert np.all(np.abs(projections[name]["kernel"]).max(axis=(1, 2)) > 0), name
    size = np.abs(A).max(axis=(2, 3))
    # Row 0 forgets before anything is read.
    assert np.all(size[:, 0] == 0)
    assert np.all(size[:, 1:] > 0)


@dataclasses.dataclass(frozen=True)
class Fragile:
    """Layer l needs inputs of at least ``2 l``, which a live lane has and a dead one never.

    A dead lane above the first sees zeros, or an embedding (1 to 1.5): NaN, as is its derivative.
    """

    config: ModelConfig

    def init(self, rng: jax.Array) -> Params:
        del rng
        layers = jnp.arange(self.config.n_layer, dtype=float)
        table = 1.0 + 0.5 * jnp.linspace(0.0, 1.0, self.config.vocab_size)
        return {
            "embed": {"table": table},
            "layers": {"floor": 2 * layers, "step": 2 + layers / 7},
        }

    def compute_dtype(self, params: Params) -> Any:
        return params["embed"]["table"].dtype

    def init_state(self, batch_size: int, dtype: Any = None) -> Any:
        return {"sum": jnp.zeros((self.config.n_layer, batch_size), dtype or float)}

    def embed(self, params: Params, segment: Segment) -> tuple[jax.Array, Any]:
        x = params["embed"]["table"][segment.tokens][..., None]
        return x, jnp.any(segment.mask, axis=1)

    def layer(self, params_l: Params, memory: Any, x: jax.Array, context: Any) -> Any:
        y = jnp.sqrt(x - params_l["floor"]) * jnp.exp(-memory["sum"])[:, None, None]
        x = x + params_l["step"] + y
        written = jnp.where(context, jnp.mean(y, axis=(1, 2)), 0.0)
        return {"sum": memory["sum"] + written}, x, None

    def step(self, params: Params, state: Any, segment: Segment) -> tuple[Any, jax.Array]:
        x, context = self.embed(params, segment)
        sums = []
        for l in range(self.config.n_layer):
            params_l, memory = jax.tree.map(lambda leaf, l=l: leaf[l], (params["layers"], state))
            memory, x, _ = self.layer(params_l, memory, x, context)
            sums.append(memory["sum"])
        return {"sum": jnp.stack(sums)}, x

    def write(self, params: Params, state: Any, segment: Segment) -> Any:
        return self.step(params, state, segment)[0]

    def ask(self, params: Params, state: Any, queries: Segment) -> jax.Array:
        raise NotImplementedError

    def readout(self, params: Params, hidden: jax.Array) -> jax.Array:
        raise NotImplementedError


def fragile_gradients(schedule: str, n_layer: int, **options: Any) -> Any:
    """Outputs and gradients of ``Fragile``; row 0's first memory is NaN and forgotten at once."""
    model = Fragile(small_model(n_layer=n_layer).config)
    state = model.init_state(B)
    state = {"sum": (state["sum"] + 0.5).at[:, 0].set(jnp.nan)}
    options = {"schedule": schedule, "reset": resets(), **options}
    text = padded_text(small_model())

    def loss(params: Params, state: Any):
        after, hidden = armt_jax.run_segments(model, params, state, text, **options)
        assert hidden is not None
        return jnp.sum(jnp.sin(hidden)) + jnp.sum(after["sum"]), (after, hidden)

    run = quick_jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return run(model.init(jax.random.key(0)), state)


def scans(jaxpr: Any) -> list[Any]:
    """All ``lax.scan`` equations of a program, inner ones too."""
    found = []
    for equation in jaxpr.eqns:
        found += [equation] if equation.primitive.name == "scan" else []
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            found += scans(inner) if hasattr(inner, "eqns") else []
    return found


def kept_for_backward(model: ARMT, steps: int, schedule: str, **options: Any) -> list[Any]:
    """Shapes of what the forward scan of a gradient keeps of each of its ``steps``."""
    case = Case(model, resets())

    def loss(params: Params, A: jax.Array, z: jax.Array) -> jax.Array:
        after, _ = case.read(params, A, z, schedule, need_hidden=False, **options)
        return jnp.sum(after.A)

    program = jax.make_jaxpr(jax.grad(loss))(case.params, case.state.A, case.state.z)
    forward = next(scan for scan in scans(program.jaxpr) if scan.params["length"] == steps)
    shapes = [out.aval.shape for out in forward.outvars[forward.params["num_carry"] :]]
    return [shape[1:] for shape in shapes if shape[0] == steps and len(shape) > 1]
