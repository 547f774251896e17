"""Folders and files of weights that cannot be imported: one line that says all that is wrong."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from armt_jax import ConfigError
from armt_jax.interop import load_hugging_face, read_state_dict
from armt_jax.interop.weights import read_file, save_arrays
from tests.hf_files import MEMORY, about, golden, write_folder


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        load_hugging_face(folder, **{**MEMORY, **settings})
    message = str(error.value)
    assert "\n" not in message
    return message


def test_all_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    state = golden("llama").group("state")
    del state["model.layers.1.self_attn.q_proj.weight"], state["lm_head.weight"]
    state["model.layers.0.mlp.up_proj.weight"] = state["model.layers.0.mlp.up_proj.weight"].T
    state["model.layers.0.self_attn.q_proj.bias"] = np.zeros(16, np.float32)
    state["model.layers.2.input_layernorm.weight"] = np.zeros(16, np.float32)
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
    message = refusal(write_folder(tmp_path, "llama", state=state))
    start = f"folder {str(tmp_path)!r} does not fit: "
    assert message.startswith(start)
    assert message.removeprefix(start).split("; ") == [
        "lm_head.weight is missing",
        "model.layers.0.mlp.up_proj.weight has shape (16, 24), must be (24, 16)",
        "model.layers.0.self_attn.q_proj.bias is not a parameter of this model",
        "model.layers.1.self_attn.q_proj.weight is missing",
        "model.layers.2.input_layernorm.weight is not a parameter of this model",
    ]


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "llama"])
def test_names_without_the_root_and_old_buffers(case: str, tmp_path: Path) -> None:
    """As the hub's gpt2 has them: saved from the model without its head."""
    state = golden(case).group("state")
    root = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "llama": "model."}[case]
    bare = {name.removeprefix(root): array for name, array in state.items()}
    assert bare.keys() != state.keys()
    buffer = {"gpt2": "h.0.attn.bias", "gpt_neox": "layers.0.attention.bias"}.get(case)
    if buffer:
        bare[buffer] = np.ones((1, 1, 20, 20), np.float32)
    params, _ = load_hugging_face(write_folder(tmp_path / "bare", case, state=bare), **MEMORY)
    expected, _ = load_hugging_face(write_folder(tmp_path / "whole", case), **MEMORY)
    leaf = params["layers"]["block"]["mlp"]
    for name, part in expected["layers"]["block"]["mlp"].items():
        np.testing.assert_array_equal(leaf[name]["kernel"], part["kernel"])
    np.testing.assert_array_equal(params["embed"]["memory"], expected["embed"]["memory"])


def test_a_tied_head_must_be_the_embedding(tmp_path: Path) -> None:
    state = golden("gpt2").group("state")
    state["lm_head.weight"] = state["transformer.wte.weight"]
    load_hugging_face(write_folder(tmp_path, "gpt2", state=state), **MEMORY)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    message = refusal(write_folder(tmp_path, "gpt2", state=state))
    assert message.endswith(
        ": lm_head.weight is not transformer.wte.weight, which is the tied head"
    )


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        (
            "llama",
            {"model_type": "bert"},
            "model_type = 'bert': must be one of gpt2, gpt_neox, llama",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu': must be 'silu'"),
        ("llama", {"attention_bias": True}, "attention_bias = True: must be False"),
        ("llama", {"head_dim": 8}, "head_dim = 8: must be hidden_size / num_attention_heads = 4"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            "rope_parameters.rope_type = 'yarn': must be 'default' or 'llama3'",
        ),
        (
            "llama",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling.rope_type = 'linear': must be 'default' or 'llama3'",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
            "rope_scaling: lacks the number high_freq_factor, original_max_position_embeddings",
        ),
        (
            "gpt_neox",
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
            "rope_parameters.rope_type = 'llama3': must be 'default'",
        ),
        (
            "gpt_neox",
            {"use_parallel_residual": False},
            "use_parallel_residual = False: must be True",
        ),
        ("gpt_neox", {"hidden_act": "gelu_fast"}, "hidden_act = 'gelu_fast': must be 'gelu'"),
        (
            "gpt2",
            {"activation_function": "relu"},
            "activation_function = 'relu': must be 'gelu_new' or 'gelu_pytorch_tanh'",
        ),
        (
            "gpt2",
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx = True: must be False",
        ),
    ],
)
def test_a_variant_that_is_not_built_here(
    case: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, case, config={**about(case), **change})
    assert refusal(tmp_path) == f"{tmp_path / 'config.json'}: {message}"


def test_settings_that_are_the_backbones_own(tmp_path: Path) -> None:
    write_folder(tmp_path, "gpt2")
    assert refusal(tmp_path, n_layer=3) == "model.n_layer = 3: must be the backbone's 2"
    assert refusal(tmp_path, memory=3) == "model.memory = 3: is no setting of a model"
    assert "model.num_mem_tokens = 0" in refusal(tmp_path, num_mem_tokens=0)


def test_a_folder_with_a_file_missing_or_damaged(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("there is no such folder")
    folder = write_folder(tmp_path / "a", "llama", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert refusal(folder).endswith("lacks model-00002-of-00003.safetensors of its index")
    folder = write_folder(tmp_path / "b", "llama")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "is damaged or no safetensors file" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "has no model.safetensors or model.safetensors.index.json" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert refusal(folder).endswith("must be a JSON object")
    (folder / "config.json").write_text("{")
    assert "is damaged or no JSON file" in refusal(folder)
    (folder / "config.json").unlink()
    assert refusal(folder).endswith("there is no such file")


def test_an_index_that_leads_elsewhere_or_names_too_much(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", "llama", shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.more.weight"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    assert refusal(folder).endswith("the index names what its files lack: model.more.weight")
    save_file({"model.more.weight": np.zeros(1)}, tmp_path / "elsewhere.safetensors")
    index["weight_map"]["model.more.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    assert refusal(folder).endswith("of its own folder, not ../elsewhere.safetensors")
    path.write_text("{}")
    assert refusal(folder).endswith("must have a weight_map of names and files")


def test_our_own_part_of_the_file_must_agree(tmp_path: Path) -> None:
    from armt_jax.interop import save_hugging_face

    params, config = load_hugging_face(write_folder(tmp_path / "a", "llama"), **MEMORY)
    save_hugging_face(tmp_path / "b", params, config)
    path = tmp_path / "b" / "config.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "rms_norm_eps": 0.5}))
    assert refusal(tmp_path / "b").endswith("layer_norm_eps = 1e-05: must be 0.5, as beside it")
    path.write_text(json.dumps(written))
    message = refusal(tmp_path / "b", num_mem_tokens=3)
    assert message.endswith("armt_jax.embed.memory has shape (2, 16), must be (3, 16)")
    (tmp_path / "b" / "armt_jax_memory.safetensors").unlink()
    assert refusal(tmp_path / "b").endswith("there is no such file")


def test_a_state_dict_is_read_from_a_file_or_a_folder(tmp_path: Path) -> None:
    state = golden("llama").group("state")
    for path in (
        write_folder(tmp_path / "a", "llama") / "model.safetensors",
        write_folder(tmp_path / "b", "llama", shards=3),
    ):
        found = read_state_dict(path)
        assert found.keys() == state.keys()
        for name, array in state.items():
            np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ConfigError, match="there is no such file"):
        read_state_dict(tmp_path / "none.safetensors")


def test_arrays_are_written_as_they_look_for_whoever_may_read_new_files(tmp_path: Path) -> None:
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3).T
    (tmp_path / "any").touch()
    path = tmp_path / "model.safetensors"
    for _ in range(2):
        save_arrays(path, {"a": array}, {"format": "pt"})
        assert path.stat().st_mode == (tmp_path / "any").stat().st_mode
        np.testing.assert_array_equal(read_file(path).read("a"), array)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}


class _Tensor:
    """As much of a torch tensor as is looked at."""

    def __init__(self, array: np.ndarray, dtype: str = "float32") -> None:
        self.array, self.dtype = array, dtype

    def float(self) -> _Tensor:
        return _Tensor(self.array)

    def numpy(self) -> np.ndarray:
        assert self.dtype != "bfloat16", "NumPy has none"
        return self.array


def _torch(version: str, loaded: Any) -> types.ModuleType:
    torch = types.ModuleType("torch")

    def load(path: Path, *, map_location: str, weights_only: bool) -> Any:
        assert weights_only, "anything else executes what the file says"
        assert map_location == "cpu"
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    values = {"__version__": version, "load": load, "bfloat16": "bfloat16"}
    torch.__dict__.update(values, is_tensor=lambda x: isinstance(x, _Tensor))
    return torch


def test_torchs_own_files_are_left_to_a_torch_that_reads_weights_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"")
    array = np.arange(3, dtype=np.float32)

    def read(version: str, loaded: Any) -> dict[str, np.ndarray]:
        monkeypatch.setitem(sys.modules, "torch", _torch(version, loaded))
        return read_state_dict(path)

    found = read("2.13.0+cpu", {"a": _Tensor(array), "b": _Tensor(array, "bfloat16")})
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["b"], array)
    for version in ("2.5.1", "1.13.1"):
        with pytest.raises(ConfigError, match=rf"torch is {version}, must be 2\.6 or newer"):
            read(version, {})
    with pytest.raises(ConfigError, match=r"holds more than weights \(Unsupported global\)"):
        read("2.6.0", RuntimeError("Unsupported global\nre-run with weights_only=False"))
    with pytest.raises(ConfigError, match="must be a dictionary of names and tensors"):
        read("2.6.0", {"epoch": 3})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"is a pickle, read by torch >= 2\.6 alone") as error:
        read_state_dict(path)
    assert "weights_only=True" in str(error.value)


def test_a_file_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", minversion="2.6", reason="needs torch >= 2.6")
    state = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "good.bin")
    assert set(read_state_dict(tmp_path / "good.bin")) == {"a", "b"}
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    torch.save({"a": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(ConfigError, match="holds more than weights"):
        read_state_dict(tmp_path / "evil.bin")
    assert not marker.exists()
