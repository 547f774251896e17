"""Golden models of transformers as folders, for the tests of import and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.golden_files import Golden, names

CASES = [name.removeprefix("hf_") for name in names("hf_")]
# Small memories for small models; a GPT-2 of 20 positions has room for 13 tokens and these.
MEMORY: dict[str, Any] = {"num_mem_tokens": 2, "d_mem": 4}


def golden(case: str) -> Golden:
    return Golden(f"hf_{case}")


def about(case: str) -> dict[str, Any]:
    """The ``config.json`` that transformers wrote."""
    return json.loads(str(golden(case)["config"]))


def write_folder(
    folder: Path,
    case: str,
    *,
    state: dict[str, np.ndarray] | None = None,
    config: dict[str, Any] | None = None,
    shards: int = 1,
) -> Path:
    """A Hugging Face folder of a golden model, with changes; weights in ``shards`` files."""
    folder.mkdir(parents=True, exist_ok=True)
    state = golden(case).group("state") if state is None else state
    state = {name: np.ascontiguousarray(array) for name, array in state.items()}
    (folder / "config.json").write_text(json.dumps(about(case) if config is None else config))
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    places = {name: files[i % shards] for i, name in enumerate(state)}
    for file in files:
        save_file({n: state[n] for n, place in places.items() if place == file}, folder / file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
