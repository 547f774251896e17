"""What is logged of a memory is what a loop over its segments finds; shut gates are told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import AnyExperiment, MeshConfig
from armt_jax.models import create_model
from armt_jax.models.protocol import Segment
from armt_jax.sharding import create_mesh
from armt_jax.training.memory_log import MemoryLog
from armt_jax.training.state import create_state
from armt_jax.tuning import plain_params, tuned_model, tuned_optimizer
from experiments.train import train_and_evaluate
from tests.language_modelling_experiment_test import tiny
from tests.tuning.tuning_test import experiment, noisy

MESH = create_mesh(MeshConfig(data=1, fsdp=1, tensor=1, stage=1), 1)


class Texts(NamedTuple):
    context: np.ndarray
    context_mask: np.ndarray


def logged(config: AnyExperiment, contexts: int = 3) -> AnyExperiment:
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, memory_contexts=contexts)
    )


def texts(by_token: bool) -> Texts:
    """Five contexts of four segments of three tokens; the last ones of the second are padding."""
    tokens = np.random.default_rng(0).integers(0, 23, (5, 4, 3)).astype(np.int32)
    mask = np.ones((5, 4), bool)
    mask[1, 2:] = False
    return Texts(tokens, np.repeat(mask[:, :, None], 3, axis=2) if by_token else mask)


def expected(config: AnyExperiment, params: Any, batch: Texts, count: int) -> dict[str, Any]:
    """One context, segment and layer after the other."""
    model: Any = create_model(config.model)
    gates, opened, sizes = [], [], []
    for context, there in zip(batch.context[:count], batch.context_mask[:count], strict=True):
        state = model.init_state(1)
        for tokens, mask in zip(context, there, strict=True):
            mask = np.broadcast_to(mask, tokens.shape)
            segment = Segment(jnp.asarray(tokens[None]), jnp.asarray(mask[None]))
            logits = np.asarray(model.gate_logits(params, state, segment))[:, 0]
            state = model.write(params, state, segment)
            if mask.any():
                beta = 1 / (1 + np.exp(-logits))
                gates.append(beta.mean(-1))
                opened.append(beta.max(-1) > 1e-3)
        sizes.append([np.linalg.norm(a) for a in np.asarray(state.A)[:, 0]])
    means = {"gate": gates, "open": opened, "size": sizes}
    return {
        f"memory/{name}_{layer}": np.mean(values, axis=0)[layer]
        for name, values in means.items()
        for layer in range(model.config.n_layer)
    }


@pytest.mark.parametrize(("by_token", "tuning"), [(True, {}), (False, {"trains": "lora"})])
def test_statistics_are_those_of_a_loop(by_token: bool, tuning: dict[str, Any]) -> None:
    config = logged(experiment(**tuning))
    optimizer = tuned_optimizer(config.optimizer, config.tuning)
    model = tuned_model(config.model, config.tuning)
    params = noisy(create_state(model, optimizer, 0).params)
    batch = texts(by_token)
    found = MemoryLog(config, MESH)(params, batch, pytest.fail)
    gammas = {name for name in found if "gamma" in name}
    assert gammas == {"memory/gamma_0"}
    assert 0 <= found["memory/gamma_0"] <= 1
    own = expected(config, plain_params(config, params), batch, 3)
    assert {name: value for name, value in found.items() if name not in gammas} == pytest.approx(
        own, rel=1e-4
    )
    everyone = expected(config, plain_params(config, params), batch, 5)
    assert abs(everyone["memory/size_0"] / own["memory/size_0"] - 1) > 1e-3
    of_none = logged(config, 0)
    assert MemoryLog(of_none, MESH)(params, batch, pytest.fail) == {}
    other = experiment(family="rmt")
    fresh = create_state(create_model(other.model), optimizer, 0).params
    assert MemoryLog(logged(other), MESH)(fresh, batch, pytest.fail) == {}


def test_shut_gates_are_told_once() -> None:
    config = logged(experiment())
    params = noisy(
        create_state(
            create_model(config.model), tuned_optimizer(config.optimizer, config.tuning), 0
        ).params
    )
    memory = params["layers"]["memory"]
    shut = {"kernel": memory["W_mb"]["kernel"] * 0, "bias": memory["W_mb"]["bias"] * 0 - 15}
    layers = {**params["layers"], "memory": {**memory, "W_mb": shut}}
    said: list[str] = []
    log = MemoryLog(config, MESH)
    for _ in range(2):
        assert log({**params, "layers": layers}, texts(True), said.append)["memory/open_0"] == 0
    assert said == ["warning: the write gates of all layers are shut; the memory is not used"]


def test_a_training_logs_it_and_is_the_same_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))
    ends = []
    for name, contexts in (("with", 2), ("without", 0)):
        config = logged(tiny(tmp_path), contexts)
        result = train_and_evaluate(dataclasses.replace(config, workdir=str(tmp_path / name)))
        del result
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ends.append([json.loads(line) for line in lines])
    evaluations = [line for line in ends[0] if "samples" in line]
    assert len(evaluations) >= 1
    names = {name for line in evaluations for name in line if name.startswith("memory/")}
    assert {"memory/gate_0", "memory/open_0", "memory/size_0", "memory/gamma_0"} <= names
    assert not any(name.startswith("memory/") for line in ends[1] for name in line)
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in ends]
    assert losses[0] == losses[1]
