"""Parameters that a training starts from: of a run, an exported one, or a Hugging Face model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from armt_jax.config import AnyExperiment, ConfigError, ModelConfig
from armt_jax.interop import load_hugging_face
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.processes import together
from armt_jax.reading import load_reading_model
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.checkpoints import BEST
from armt_jax.training.state import TrainState, create_state
from armt_jax.training.workdir import read_config
from armt_jax.tuning import restored
from armt_jax.tuning.groups import LORA, MEMORY
from armt_jax.tuning.teacher import place_teacher, without_teacher

_LISTED = 6  # differing parameters that an error names, of more it says how many


def start_params(folder: str, config: ModelConfig, fresh: Params) -> Params:
    """``fresh`` parameters of ``config`` with all that ``folder`` has in their place.

    Memory and low-rank factors may be missing in the folder and then stay fresh.

    Raises:
      ConfigError: no run or model, or parameters that are missing, left over or of another shape.
    """
    found = dict(leaf_names(_load("tuning.start", Path(folder), config)))
    differing, placed = [], []
    for name, leaf in leaf_names(fresh):
        there = found.pop(name, None)
        if there is not None and there.shape == leaf.shape:
            # As the fresh one is: in its dtype, and on its devices.
            placed.append(jax.device_put(there.astype(leaf.dtype), leaf.sharding))
        elif there is None and (MEMORY.fullmatch(name) or LORA.fullmatch(name)):
            placed.append(leaf)
        else:
            shape = "missing" if there is None else f"{list(there.shape)}"
            differing.append(f"{name} is {shape} there, {list(leaf.shape)} here")
    differing += [f"{name} is left over" for name in found if not MEMORY.fullmatch(name)]
    if differing:
        more = len(differing) - _LISTED
        listed = differing[:_LISTED] + ([f"and {more} more"] if more > 0 else [])
        raise ConfigError(
            f"tuning.start = {folder!r}: must hold this model's parameters; {'; '.join(listed)}"
        )
    return jax.tree.unflatten(jax.tree.structure(fresh), placed)


def start_state(
    config: AnyExperiment,
    model: SegmentModel,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None,
) -> TrainState:
    """The state before the first step: fresh, or with the parameters of ``tuning.start``.

    A teacher's parameters are those of its folder.

    Raises:
      ConfigError: as ``start_params``.
    """
    state, tuning = create_state(model, optimizer, config.seed, mesh), config.tuning
    params = state.params
    with together():
        if tuning.start is not None:
            params |= start_params(tuning.start, config.model, without_teacher(params))
        if tuning.teacher is not None:
            loaded = _load("tuning.teacher", Path(tuning.teacher), config.model)
            params = place_teacher(params, loaded)
    return state._replace(params=params)


def _load(setting: str, folder: Path, config: ModelConfig) -> Any:
    kind = _kind(setting, folder)
    if kind == "run":
        warn = lambda text: print(text, file=sys.stderr)  # noqa: E731
        found = restored(read_config(folder), folder, BEST, warn=warn)
        if found is None:
            raise ConfigError(f"{setting} = {str(folder)!r}: has no checkpoint yet")
        return found.state.params
    if kind == "exported":
        return load_reading_model(folder).params
    return load_hugging_face(folder, num_mem_tokens=config.num_mem_tokens, d_mem=config.d_mem)[0]


def _kind(setting: str, folder: Path) -> str:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(
            f"{setting} = {str(folder)!r}: must be the folder of a run, of experiments.export or "
            "of a Hugging Face model, with its config.json"
        ) from None
    if isinstance(values, dict) and "format" in values:
        return "exported"
    return "run" if isinstance(values, dict) and "curriculum" in values else "hugging_face"
