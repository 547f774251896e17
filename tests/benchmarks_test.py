"""Benchmarks: the operations they count are those of the program, and their line has its fields."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from armt_jax.config import ModelConfig
from armt_jax.models import Segment, create_model
from benchmarks import flops, machine
from benchmarks.train_sizes import gpt2_small_size, retrieval_size

CONFIG = ModelConfig(n_layer=3, n_head=2, d_model=16, vocab_size=20, n_positions=16, d_mem=4)
LENGTH = 5


def _dot_flops(jaxpr) -> int:
    """2 per multiply-add of every matrix product in a program without loops."""
    total = 0
    for equation in jaxpr.eqns:
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", None)
            if inner is not None:
                total += _dot_flops(inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            out = math.prod(equation.outvars[0].aval.shape)
            total += 2 * out * math.prod(shape[axis] for axis in contracted)
    return total


def _masked_flops(rows: int) -> int:
    """Scores and sums of values that the causal mask throws away: the program makes them here."""
    return 2 * 2 * CONFIG.d_model * rows * (rows - 1) // 2


def test_context_flops_are_those_of_the_program() -> None:
    model = create_model(CONFIG)
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = jax.eval_shape(lambda: model.init_state(1))
    segment = Segment(jnp.zeros((1, LENGTH), jnp.int32), jnp.ones((1, LENGTH), bool))
    program = jax.make_jaxpr(model.write)(params, state, segment)
    # The program makes queries of the last layer's tokens too, in one product with keys and values.
    counted = _dot_flops(program.jaxpr) - 2 * LENGTH * CONFIG.d_model**2
    m = CONFIG.num_mem_tokens
    counted -= (CONFIG.n_layer - 1) * _masked_flops(LENGTH + m) + _masked_flops(m)
    # Not counted, and less than 2 %: the products with z, and the gate's.
    assert flops.context_flops(CONFIG, LENGTH) == pytest.approx(counted, rel=0.02)
    assert flops.context_flops(CONFIG, LENGTH) <= counted


@pytest.mark.parametrize("changes", [{}, {"backbone": "llama", "n_kv_head": 1, "d_ff": 40}])
@pytest.mark.parametrize("family", ["armt", "rmt"])
def test_flops_of_predicted_segments_are_those_of_the_program(
    family: str, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(CONFIG, family=family, **changes)
    model = create_model(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = jax.eval_shape(lambda: model.init_state(1))
    segment = Segment(jnp.zeros((1, LENGTH), jnp.int32), jnp.ones((1, LENGTH), bool))

    def predict(params, state):
        state, hidden = model.step(params, state, segment)
        return state, model.readout(params, hidden)

    counted = _dot_flops(jax.make_jaxpr(predict)(params, state).jaxpr)
    counted -= config.n_layer * _masked_flops(LENGTH + config.memory_positions)
    found = flops.context_flops(config, LENGTH, predicted=True)
    assert found == pytest.approx(counted, rel=0.02)
    assert found <= counted


def test_context_flops_of_rmt_are_those_of_the_program() -> None:
    config = dataclasses.replace(CONFIG, family="rmt")
    model, m = create_model(config), config.num_mem_tokens
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = jax.eval_shape(lambda: model.init_state(1))
    segment = Segment(jnp.zeros((1, LENGTH), jnp.int32), jnp.ones((1, LENGTH), bool))
    program = jax.make_jaxpr(model.write)(params, state, segment)
    rows = LENGTH + 2 * m
    counted = _dot_flops(program.jaxpr) - 2 * (rows - m) * config.d_model**2
    counted -= (config.n_layer - 1) * _masked_flops(rows) + _masked_flops(m)
    assert flops.context_flops(config, LENGTH) == counted


@pytest.mark.parametrize("passing", ["released", "layerwise"])
def test_prmt_does_less_than_rmt(passing: str) -> None:
    """By whole rows of blocks: the copy in front, and as released the one behind below the top."""
    rmt = dataclasses.replace(CONFIG, family="rmt")
    prmt = dataclasses.replace(CONFIG, family="prmt", memory_passing=passing)
    m, d = CONFIG.num_mem_tokens, CONFIG.d_model
    row = 2 * (2 * d * d + 2 * d * CONFIG.ff_dim)  # behind its keys and values
    less = flops.context_flops(rmt, LENGTH) - flops.context_flops(prmt, LENGTH)
    layers = CONFIG.n_layer - 1
    spared = layers * m * (row + (row + 4 * d * d if passing == "released" else 0))
    # The rest is scores and sums of values.
    assert spared < less < 1.2 * spared


def test_query_flops_are_those_of_the_program() -> None:
    model = create_model(CONFIG)
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = jax.eval_shape(lambda: model.init_state(1))
    queries = Segment(jnp.zeros((1, 1, LENGTH), jnp.int32), jnp.ones((1, 1, LENGTH), bool))

    def ask(params, state):
        return model.readout(params, model.ask(params, state, queries)[:, :, -2:])

    program = jax.make_jaxpr(ask)(params, state)
    scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
    inside = sum(_dot_flops(e.params["jaxpr"].jaxpr) for e in scans)
    outside = _dot_flops(program.jaxpr) - inside
    counted = outside + CONFIG.n_layer * (inside - _masked_flops(LENGTH))
    assert flops.query_flops(CONFIG, LENGTH, 2) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("family", ["transformer", "rmt_r", "armt"])
@pytest.mark.parametrize("make", [retrieval_size, gpt2_small_size])
def test_a_size_has_room_for_its_whole_text(make: Any, family: str) -> None:
    size = make(7, 1, family=family)
    text = size.batch.context.size + size.batch.queries.shape[-1]
    size.config.check_text(text)
    assert size.config.retrieval_states >= size.batch.context.shape[1] == 7


def test_sgemm_peak_and_memory_are_positive() -> None:
    assert machine.sgemm_flops_per_second(size=128, repeats=1) > 0
    assert machine.peak_memory_bytes() > 2**20


@pytest.mark.slow
def test_train_step_prints_one_json_line_last() -> None:
    command = [sys.executable, "-m", "benchmarks.train_step", "--pairs=2", "--batch=2"]
    done = subprocess.run(
        [*command, "--steps=1", "--json"], capture_output=True, text=True, timeout=280, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["pairs"] == 2
    for name in ("seconds", "tokens_per_second", "peak_memory_bytes", "sgemm_share"):
        assert result[name] > 0, name


@pytest.mark.slow
def test_stream_prints_one_json_line_last() -> None:
    sizes = ["--model=small_bytes", "--segment=8", "--block=2", "--blocks=2", "--json"]
    command = [sys.executable, "-m", "benchmarks.stream", *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["model"], result["tokens_read"]) == ("small_bytes", 3 * 2 * 8)
    for name in ("tokens_per_second", "peak_memory_bytes", "sgemm_share"):
        assert result[name] > 0
