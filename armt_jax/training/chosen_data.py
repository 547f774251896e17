"""Data of a stage that depend on what the model has learnt when the stage begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from armt_jax.config import AnyExperiment
from armt_jax.models import create_model
from armt_jax.models.protocol import Params
from armt_jax.processes import local_copy, together
from armt_jax.tasks.stage_data import DataForModel, StageData
from armt_jax.training.curriculum import Stage
from armt_jax.tuning import plain_params


def chosen_data(
    config: AnyExperiment,
    stage: Stage,
    params: Params,
    folder: Path,
    begins: bool,
    say: Callable[[str], None],
) -> StageData:
    """What ``stage`` trains on, whether or not the model has a say in it.

    Args:
      config, stage: of the run.
      params: as they are trained, wherever they lie.
      folder: of the run, for what was chosen.
      begins: the stage begins with these parameters; else it goes on.
      say: is called with lines for people.
    """
    data = stage.data
    if not isinstance(data, DataForModel):
        return data
    whole = local_copy(plain_params(config, params))
    with together():
        path = folder / f"stage_{stage.index + 1}"
        return data.for_model(create_model(config.model), whole, path, begins, say)
