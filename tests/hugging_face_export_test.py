"""Folders written and read again: bit-identical, whole or not there, with their tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer, models

import armt_jax
from armt_jax import ConfigError
from armt_jax.interop import load_hugging_face, load_tokenizer, save_hugging_face
from tests.hf_files import CASES, MEMORY, about, golden, write_folder
from tests.small_models import lively_params


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of the backbone's files, by name; each name in one file only."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                assert name not in found
                found[name] = file.get_tensor(name)
    return found


QUICK = ("gpt2", "gpt_neox", "llama_tied", "llama_3")
ALL = [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("shard", [5_000_000_000, 3_000])
@pytest.mark.parametrize("case", ALL)
def test_import_export_import_is_bit_identical(case: str, shard: int, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", case, shards=1 if shard > 10_000 else 3)
    _, config = load_hugging_face(source, **MEMORY, wrap_pos=case == "gpt2")
    # A trained one: no parameter is what a fresh memory would have.
    params = jax.tree.map(
        lambda x: x.astype(jnp.float32), lively_params(armt_jax.create_model(config))
    )
    save_hugging_face(tmp_path / "a", params, config, source=source, max_shard_bytes=shard)
    again, config_again = load_hugging_face(tmp_path / "a")
    assert config_again == config
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for found, expected in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    is_sharded = (tmp_path / "a" / "model.safetensors.index.json").is_file()
    assert is_sharded == (shard < 10_000)
    if is_sharded:
        index = json.loads((tmp_path / "a" / "model.safetensors.index.json").read_text())
        sizes = [path.stat().st_size for path in (tmp_path / "a").glob("model-*.safetensors")]
        assert len(sizes) > 1
        assert index["metadata"]["total_size"] == sum(
            x.nbytes for x in arrays_of(tmp_path / "a").values()
        )


@pytest.mark.parametrize("case", ALL)
def test_an_import_is_written_back_as_it_came(case: str, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", case)
    params, config = load_hugging_face(source, **MEMORY)
    save_hugging_face(tmp_path / "a", params, config, source=source)
    expected = golden(case).group("state")
    found = arrays_of(tmp_path / "a")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    written = json.loads((tmp_path / "a" / "config.json").read_text())
    # What is not a shape is kept from the source.
    assert written["bos_token_id"] == about(case)["bos_token_id"]


def test_bfloat16_and_float16_files(tmp_path: Path) -> None:
    state = golden("llama").group("state")
    for name in ("bfloat16", "float16"):
        kind = jnp.dtype(name)
        narrow = {key: array.astype(kind) for key, array in state.items()}
        source = write_folder(tmp_path / name, "llama", state=narrow)
        params, config = load_hugging_face(source, **MEMORY)
        expected = narrow["model.layers.1.mlp.up_proj.weight"].astype(np.float32).T
        kernel = params["layers"]["block"]["mlp"]["up_proj"]["kernel"]
        assert kernel.dtype == jnp.float32
        np.testing.assert_array_equal(kernel[1], expected)
        kept, _ = load_hugging_face(source, dtype=kind, **MEMORY)
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {kind}
        save_hugging_face(tmp_path / f"{name}_again", kept, config)
        for key, array in arrays_of(tmp_path / f"{name}_again").items():
            assert array.dtype == kind
            np.testing.assert_array_equal(array, narrow[key])


def test_the_tokenizer_goes_along_and_must_fit(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", "llama")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(23)}, unk_token="w0"))
    words.save(str(source / "tokenizer.json"))
    params, config = load_hugging_face(source, **MEMORY)
    save_hugging_face(tmp_path / "a", params, config, source=source)
    assert load_tokenizer(tmp_path / "a", config).get_vocab_size() == 23
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    words.add_tokens(["one more"])
    words.save(str(source / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"has ids up to 23, must be below .* = 23: .* another"):
        load_tokenizer(source, config)
    (source / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged or no tokenizer"):
        load_tokenizer(source, config)
    with pytest.raises(ConfigError, match="there is no such file"):
        load_tokenizer(tmp_path, config)


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params, config = load_hugging_face(write_folder(tmp_path / "source", "gpt2"), **MEMORY)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("armt_jax.interop.hugging_face.save_arrays", full)
        with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
            save_hugging_face(tmp_path / "a", params, config)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    with pytest.raises(ConfigError, match="must be new or empty"):
        save_hugging_face(tmp_path / "source", params, config)
    with pytest.raises(ConfigError, match=r"cannot be written \(No such file or directory\)"):
        save_hugging_face(tmp_path / "none" / "a", params, config)
    (tmp_path / "a").mkdir()
    save_hugging_face(tmp_path / "a", params, config)
    load_hugging_face(tmp_path / "a")


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "llama_tied"])
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_what_is_written(case: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    source = write_folder(tmp_path / "source", case)
    params, config = load_hugging_face(source, **MEMORY)
    # Without a source: the file must say all by itself.
    save_hugging_face(tmp_path / "a", params, config, max_shard_bytes=3_000)
    kind = transformers.AutoModelForCausalLM
    model, info = kind.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    logits = model(input_ids=torch.tensor(golden(case)["tokens"]).long()).logits
    np.testing.assert_allclose(logits.detach().numpy(), golden(case)["logits"], rtol=0, atol=1e-4)
