"""Every configuration builds, names every value it uses, and keeps the paper's recipe."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from armt_jax.config import ConfigError, ExperimentConfig, from_config_dict
from configs import ar_remember, ar_rewrite
from experiments.command_line import load_config
from tests.config_values import retrieval

CASES = [(module, name) for module in (ar_remember, ar_rewrite) for name in module.VARIANTS]


def fields_of(cls: type) -> dict[str, Any]:
    return {field.name: field.type for field in dataclasses.fields(cls)}


@pytest.mark.parametrize(("module", "variant"), CASES)
def test_variant_is_complete_and_valid(module: types.ModuleType, variant: str) -> None:
    values = module.get_config(variant).to_dict()
    config = from_config_dict(values)
    assert values.keys() == fields_of(ExperimentConfig).keys()
    for name, group in values.items():
        if isinstance(group, dict):
            assert group.keys() == fields_of(type(getattr(config, name))).keys(), name
    assert config.name == module.__name__.removeprefix("configs.")


@pytest.mark.parametrize("module", [ar_remember, ar_rewrite])
def test_variants_have_folders_of_their_own_and_an_unknown_one_is_refused(
    module: types.ModuleType,
) -> None:
    folders = [module.get_config(name).to_dict()["workdir"] for name in module.VARIANTS]
    assert len(set(folders)) == len(folders)
    with pytest.raises(ConfigError, match=r"variant = 'big': must be one of default, .*tiny"):
        module.get_config("big")


@pytest.mark.parametrize("module", [ar_remember, ar_rewrite])
def test_a_lock_of_the_configuration_refuses_new_fields(module: types.ModuleType) -> None:
    config = module.get_config().lock()
    with pytest.raises((AttributeError, KeyError)):
        config.train.new_field = 1


def test_the_default_has_the_papers_size() -> None:
    for module in (ar_remember, ar_rewrite):
        model = from_config_dict(module.get_config().to_dict()).model
        sizes = (model.n_layer, model.d_model, model.n_head, model.num_mem_tokens, model.d_mem)
        assert sizes == (4, 128, 4, 4, 32)


def test_paper_recipe_of_remember() -> None:
    config = retrieval(ar_remember.get_config("paper"))
    assert config.model.backbone == "gpt_neox"
    assert config.curriculum.num_pairs == (1, 2, 3, 5, 10, 20, 40, 50, 50, 200)
    assert config.curriculum.key_size == (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
    assert config.curriculum.max_steps == (2000, *(10000,) * 8, 15000)
    assert config.curriculum.num_queries == 1
    assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (3e-4, 1e-3)
    assert (config.optimizer.clip, config.optimizer.clip_threshold) == ("value", 1.0)
    assert (config.optimizer.schedule, config.optimizer.scope) == ("linear", "stage")
    assert config.optimizer.reset_per_stage
    assert config.train.batch_size == 512


def test_a_file_and_its_module_say_the_same() -> None:
    loaded = load_config("configs/ar_rewrite.py:tiny")
    assert loaded.to_dict() == ar_rewrite.get_config("tiny").to_dict()


UNSET = [
    ("ar_remember", "tuning.start", "runs/other"),
    ("wikitext", "tuning.teacher", "runs/other"),
    ("ar_remember", "model.n_kv_head", 2),
    ("ar_remember", "model.tie_embeddings", True),
    ("babilong:qa1", "task.data_dir", "data"),
    ("wikitext", "task.data_dir", "data"),
    ("wikitext:paper", "model.tie_embeddings", False),
    ("wikitext:paper", "model.attention_init_scale", 0.5),
]


def test_every_value_that_is_none_has_a_type_and_is_named_below() -> None:
    """One without a type cannot be given on the command line: ``--config.tuning.start=...``."""
    unset = set()
    for name in ("ar_remember", "babilong:qa1", "wikitext", "wikitext:paper", "mqar"):
        file, _, variant = name.partition(":")
        config = load_config(f"configs/{file}.py" + (f":{variant}" if variant else ""))
        for group in config.values():
            if isinstance(group, ConfigDict):
                for field in group:
                    if group[field] is None:
                        assert group.get_ref(field).get_type() is not type(None), (name, field)
                        unset.add(field)
    assert unset == {field.split(".")[1] for _, field, _ in UNSET}


@pytest.mark.parametrize(("name", "field", "value"), UNSET)
def test_a_value_that_is_none_is_given_on_the_command_line(
    name: str, field: str, value: object
) -> None:
    file, _, variant = name.partition(":")
    config = load_config(f"configs/{file}.py" + (f":{variant}" if variant else ""))
    holder, words = flags.FlagValues(), ["main", f"--config.{field}={value}"]
    config_flags.DEFINE_config_dict("config", config, flag_values=holder, sys_argv=words)
    holder(words)
    group, _, key = field.partition(".")
    assert holder.config[group][key] == value
