"""Settings from dicts and back, and what follows from a model's."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import ml_collections
import pytest

from armt_jax.config import ConfigError, ModelConfig, from_config_dict, to_dict
from tests.config_values import VALID, changed, retrieval


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", "0", "seed = '0': must be of type int"),
        ("seed", 1.0, "seed = 1.0: must be of type int"),
        ("seed", True, "seed = True: must be of type int"),
        ("name", 3, "name = 3: must be of type str"),
        ("model.wrap_pos", 1, "model.wrap_pos = 1: must be of type bool"),
        ("model.d_ff", "64", "model.d_ff = '64': must be of type int"),
        ("model.dtype", 32, "model.dtype = 32: must be of type str"),
        ("optimizer.eps", "small", "optimizer.eps = 'small': must be of type float"),
        ("optimizer.eps", True, "optimizer.eps = True: must be of type float"),
        ("evaluation.num_pairs", 4, "evaluation.num_pairs = 4: must be a list or tuple"),
        ("evaluation.num_pairs", "4", "evaluation.num_pairs = '4': must be a list or tuple"),
        ("evaluation.num_pairs", [4, 4.5], "evaluation.num_pairs[1] = 4.5: must be of type int"),
        ("task", 5, "task = 5: must be a group of settings"),
    ],
)
def test_wrong_type_is_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(field, value))
    assert str(error.value) == message


def test_unknown_key_names_what_there_is() -> None:
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed("task.pairs", 5))
    accepted = "variant, num_pairs, key_size, value_size"
    assert str(error.value) == f"task.pairs = 5: unknown key; task has {accepted}"
    with pytest.raises(ConfigError, match=r"^speed = 9: unknown key; config has name, seed, "):
        from_config_dict(changed("speed", 9))


@pytest.mark.parametrize("field", ["seed", "task", "train.batch_size", "evaluation.num_pairs"])
def test_missing_key_is_named(field: str) -> None:
    config = copy.deepcopy(VALID)
    *groups, last = field.split(".")
    owner = config[groups[0]] if groups else config
    del owner[last]
    with pytest.raises(ConfigError) as error:
        from_config_dict(config)
    assert str(error.value) == f"{field} is missing from {groups[0] if groups else 'config'}"


def test_a_config_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^config = \[1\]: must be a group of settings$"):
        from_config_dict([1])  # pyright: ignore[reportArgumentType]


def test_values_are_converted_once() -> None:
    config = retrieval(ml_collections.ConfigDict(VALID))
    assert config == from_config_dict(VALID)
    assert config.evaluation.num_pairs == (4, 16)
    assert config.curriculum.target == (0.9, 1.1)
    assert config.curriculum.num_stages == 2
    assert isinstance(config.model.rotary_pct, float)
    # A model's setting that is left out has the default of ModelConfig.
    assert config.model == ModelConfig(n_layer=2, rule="delta", wrap_pos=True, rotary_pct=1.0)


def test_round_trip_through_json() -> None:
    config = from_config_dict(VALID)
    plain = to_dict(config)
    assert plain["curriculum"]["variant"] == ["remember", "rewrite"]
    assert from_config_dict(json.loads(json.dumps(plain))) == config


def test_settings_cannot_be_changed_after_the_check() -> None:
    config = from_config_dict(VALID)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 5  # pyright: ignore[reportAttributeAccessIssue]


def test_derived_sizes() -> None:
    config = ModelConfig(d_model=24, n_head=3)
    assert (config.head_dim, config.ff_dim) == (8, 96)
    assert ModelConfig(d_ff=10).ff_dim == 10


@pytest.mark.parametrize(
    ("changes", "room", "accepted"),
    [
        ({}, 12, "must be at most 12 (model.n_positions = 16 less model.num_mem_tokens = 4)"),
        ({"wrap_pos": True}, 16, "must be at most 16 (model.n_positions = 16)"),
    ],
)
def test_segment_needs_room_in_the_positions(
    changes: dict[str, Any], room: int, accepted: str
) -> None:
    config = ModelConfig(n_positions=16, **changes)
    config.check_segment(room)
    with pytest.raises(ConfigError) as error:
        config.check_segment(room + 1)
    assert str(error.value) == f"segment length = {room + 1}: {accepted}"


def test_rotary_positions_have_no_end() -> None:
    ModelConfig(backbone="gpt_neox", n_positions=16).check_segment(10_000)
