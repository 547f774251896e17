"""Checkpoints come back bit for bit, never changed and never cast; the right ones are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from armt_jax.training.checkpoints import BEST, CheckpointError, Checkpoints
from tests.saved_states import assert_is_step, bits, make_state, restore, run, save


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.steps() == []
    assert store.restore(make_state(0), warn=pytest.fail) is None


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1, 2: 0.9, 3: None, 4: 0.2, 5: 0.3, 6: None})
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 5, 6]
    assert_is_step(restore(tmp_path)[0], 6)
    assert_is_step(restore(tmp_path, BEST)[0], 2)
    assert_is_step(restore(tmp_path, 5)[0], 5)


def test_a_step_saved_again_is_replaced(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, make_state(9), {"position": 9}, None)
    store.save(1, make_state(1), {"position": 1}, None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    assert_is_step(store.restore(make_state(0), warn=pytest.fail), 1)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    save(tmp_path, {1: math.nan, 2: 0.1, 3: math.nan, 4: None, 5: math.inf})
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 4, 5]
    assert_is_step(restore(tmp_path, BEST)[0], 2)


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path: Path) -> None:
    params = {"w": jnp.array([[np.nan, -0.0], [np.inf, 1e-45]]), "b": jnp.ones(3, jnp.bfloat16)}
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    state = {
        "params": params,
        "optimizer": optimizer.init(params),
        "counters": [jnp.uint32(2**32 - 1), jnp.int32(-1), jnp.array([True, False])],
        "on_the_host": {"wide": np.array([2**60 + 1]), "float": np.array(0.1)},
        "nothing": (None, (), {}),
    }
    store = Checkpoints(tmp_path)
    store.save(1, state, {}, None)
    found = store.restore(
        jax.tree.map(jnp.zeros_like, state) | {"on_the_host": state["on_the_host"]},
        warn=pytest.fail,
    )
    assert found is not None
    assert jax.tree.structure(found.state) == jax.tree.structure(state)
    assert bits(found.state) == bits(state)


def test_keys_of_random_numbers_come_back(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, {"rng": jax.random.key(7)}, {}, None)
    found = store.restore({"rng": jax.random.key(0)}, warn=pytest.fail)
    assert found is not None
    assert jax.random.uniform(found.state["rng"]) == jax.random.uniform(jax.random.key(7))
    with pytest.raises(CheckpointError, match=r"rng is key<fry>\[\] there, must be uint32\[2\]"):
        store.restore({"rng": jax.random.key_data(jax.random.key(0))}, warn=pytest.fail)


@pytest.mark.parametrize("leaf", [3, 0.5, np.float32(2)])
def test_a_leaf_that_could_not_be_read_is_not_written(tmp_path: Path, leaf: Any) -> None:
    with pytest.raises(CheckpointError, match=r"a\.b is of type \w+, must be an array"):
        Checkpoints(tmp_path).save(1, {"a": {"b": leaf}}, {}, None)
    assert not list(tmp_path.iterdir())


SHARDED = """
import pathlib, sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from armt_jax.training.checkpoints import Checkpoints
devices = np.array(jax.devices())
values = np.arange(64, dtype=np.float32).reshape(8, 8)
one, two = Mesh(devices, ("d",)), Mesh(devices.reshape(2, 4), ("a", "b"))
store = Checkpoints(pathlib.Path(sys.argv[1]))
store.save(1, {"x": jax.device_put(values, NamedSharding(one, P("d")))}, {}, None)
wanted = NamedSharding(two, P("b", "a"))
template = {"x": jax.ShapeDtypeStruct((8, 8), np.float32, sharding=wanted)}
found = store.restore(template, warn=print).state["x"]
assert found.sharding == wanted and len(found.addressable_shards) == 8, found.sharding
np.testing.assert_array_equal(found, values)
"""


def test_what_eight_devices_saved_is_read_on_another_mesh_and_on_one_device(tmp_path: Path) -> None:
    process = run(SHARDED, str(tmp_path), XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert process.communicate(timeout=60)[1].count("Error") == 0
    assert process.returncode == 0
    template = {"x": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    found, _ = restore(tmp_path, template=template)
    assert found is not None
    np.testing.assert_array_equal(found.state["x"], np.arange(64.0).reshape(8, 8))
    assert found.state["x"].sharding == jax.sharding.SingleDeviceSharding(jax.devices()[0])


def test_a_step_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    save(tmp_path, {3: None, 4: None})
    with pytest.raises(CheckpointError, match="step = 7: must be latest, best or one of 3, 4"):
        restore(tmp_path, 7)


@pytest.mark.parametrize(
    ("name", "leaf", "said"),
    [
        ("w", jnp.zeros(8), r"params\.w is float32\[512\] there, must be float32\[8\]"),
        ("b", jnp.zeros(3), r"params\.b is bfloat16\[3\] there, must be float32\[3\]"),
        ("extra", jnp.zeros(2), r"params\.extra is missing there, must be float32\[2\]"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    tmp_path: Path, name: str, leaf: jax.Array, said: str
) -> None:
    save(tmp_path, {1: None})
    template = make_state(0)
    template["params"][name] = leaf
    with pytest.raises(CheckpointError, match=said):
        restore(tmp_path, template=template)


def test_every_leaf_that_differs_is_named_up_to_six(tmp_path: Path) -> None:
    save(tmp_path, {1: None})
    template = make_state(0)
    template["params"]["w"] = jnp.zeros((512, 1))
    template["moments"] = (jnp.zeros(2), jnp.float32(0))
    with pytest.raises(CheckpointError) as caught:
        restore(tmp_path, template=template)
    assert str(caught.value) == (
        f"{tmp_path / '1'}: the checkpoint is of another model: "
        "moments.0 is float32[4, 4] there, must be float32[2]; "
        "moments.1 is int32[] there, must be float32[]; "
        "params.w is float32[512] there, must be float32[512, 1]"
    )
    with pytest.raises(
        CheckpointError, match=r"w is float32\[512\] there, must be absent; .*; and 9 more$"
    ) as caught:
        restore(
            tmp_path,
            template={f"x{index}": jnp.zeros(1) for index in range(10)} | {"a": jnp.zeros(1)},
        )
    assert str(caught.value).count(" there, ") == 6
