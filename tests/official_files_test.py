"""The authors' checkpoints as files: there and back, with and without their second names."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from armt_jax import ConfigError
from armt_jax.interop import load_official_file, save_official, to_official
from tests.small_models import lively_params, small_model


@pytest.mark.parametrize("backbone", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("aliases", [False, True])
def test_file_and_back_is_bit_identical(backbone: str, aliases: bool, tmp_path: Path) -> None:
    model = small_model(backbone=backbone, d_ff=24)
    params = lively_params(model)
    path = tmp_path / "model.safetensors"
    save_official(path, params, model.config, aliases=aliases)
    again = load_official_file(path, model.config)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    jax.tree.map(np.testing.assert_array_equal, load_official_file(tmp_path, model.config), params)
    found, named = load_file(path), to_official(params, model.config)
    for name, array in named.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    more = found.keys() - named.keys()
    assert bool(more) is aliases
    if aliases:
        for index in range(2):
            start = f"memory_cell.layers.{index}."
            assert f"{start}W_mq.weight" in more
            inside = {name for name in more if name.startswith(f"{start}layer.")}
            assert len(inside) >= 9
        assert ("memory_cell.model.lm_head.weight" in more) is (backbone == "gpt2")


def test_a_file_that_does_not_fit_or_cannot_be_written(tmp_path: Path) -> None:
    model = small_model(n_layer=1)
    params = lively_params(model)
    named = {n: np.ascontiguousarray(x) for n, x in to_official(params, model.config).items()}
    del named["memory_cell.memory"]
    save_file(named, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"does not fit: memory_cell\.memory is missing"):
        load_official_file(tmp_path / "a.safetensors", model.config)
    with pytest.raises(ConfigError, match="cannot be written"):
        save_official(tmp_path / "none" / "b.safetensors", params, model.config)
    (tmp_path / "c").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        save_official(tmp_path / "c", params, model.config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "c"]
