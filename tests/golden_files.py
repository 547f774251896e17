"""Reading the reference values in ``tests/golden`` (computed with the authors' PyTorch modules)."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from armt_jax import ModelConfig

FOLDER = pathlib.Path(__file__).parent / "golden"


class Golden:
    """One file: ``meta``, the arrays, and the ``ModelConfig`` they belong to."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays.pop("meta", "{}")))

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def get(self, key: str) -> np.ndarray | None:
        return self.arrays.get(key)

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays under ``prefix/``, by the rest of their name."""
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    @property
    def segment_size(self) -> int:
        return self.meta["cfg"]["segment_size"]

    @property
    def model_config(self) -> ModelConfig:
        cfg = self.meta["cfg"]
        return ModelConfig(
            family=self.meta["kind"],
            backbone={"gpt2": "gpt2", "neox": "gpt_neox"}[self.meta["backbone"]],
            n_layer=cfg["n_layer"],
            n_head=cfg["n_head"],
            d_model=cfg["n_embd"],
            vocab_size=cfg["vocab"],
            n_positions=cfg["n_positions"],
            num_mem_tokens=cfg["num_mem_tokens"],
            d_mem=cfg["d_mem"],
            nu=self.meta["nu"],
            rule="armt" if cfg.get("correction", True) else "armt_no_gamma",
            wrap_pos=cfg.get("wrap_pos", False),
            rotary_pct=cfg.get("rotary_pct") or 1.0,
        )

    @property
    def alignment(self) -> str:
        return self.meta["cfg"].get("segment_alignment") or "left"


def names(*prefixes: str) -> list[str]:
    """Golden files whose names start with one of ``prefixes``."""
    found = [path.stem for path in sorted(FOLDER.glob("*.npz")) if path.stem.startswith(prefixes)]
    if not found:
        raise FileNotFoundError(f"no golden file {prefixes} in {FOLDER}")
    return found
