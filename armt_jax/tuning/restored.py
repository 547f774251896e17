"""Checkpoints of a run, as whoever uses the model wants them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh

from armt_jax.config import AnyExperiment
from armt_jax.training.checkpoints import Checkpoints, Restored
from armt_jax.training.state import abstract_state
from armt_jax.tuning.groups import tuned_optimizer
from armt_jax.tuning.model import plain_params, tuned_model

CHECKPOINTS = "checkpoints"


def restored(
    experiment: AnyExperiment,
    folder: Path,
    step: int | str,
    *,
    mesh: Mesh | None = None,
    warn: Callable[[str], None],
) -> Restored | None:
    """A checkpoint of the run in ``folder``; None where there is none yet.

    Its parameters are those of ``create_model(experiment.model)``: low-rank changes are merged in,
    a teacher's are left out.

    Args:
      experiment: of the run.
      folder: the run's.
      step: ``latest``, ``best`` or a number.
      mesh: where the state shall lie; None: on one device.
      warn: is told about damaged checkpoints that were passed over.

    Raises:
      CheckpointError: no undamaged checkpoint of that step.
    """
    if not (folder / CHECKPOINTS).is_dir():
        return None
    model = tuned_model(experiment.model, experiment.tuning)
    optimizer = tuned_optimizer(experiment.optimizer, experiment.tuning)
    reader = Checkpoints(folder / CHECKPOINTS, read_only=True)
    found = reader.restore(abstract_state(model, optimizer, mesh), step, warn=warn)
    if found is None:
        return None
    params = plain_params(experiment, found.state.params)
    return found._replace(state=found.state._replace(params=params))
