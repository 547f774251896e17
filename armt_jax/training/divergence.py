"""Noticing a training that has diverged, and saying where."""

from __future__ import annotations

import numpy as np

from armt_jax.models.protocol import Params
from armt_jax.training.state import parameter_names
from armt_jax.training.step import StepMetrics


class NonFiniteError(RuntimeError):
    """The loss or a gradient is NaN or infinite; the message says where."""


def divergence(metrics: StepMetrics, params: Params, where: str) -> NonFiniteError | None:
    """What to raise after a step that was not finite; None after one that was.

    Args:
      metrics: of the step, on the host.
      params: for the names of their leaves, which ``metrics.finite`` follows.
      where: the step, for people.
    """
    if np.isfinite(metrics.loss) and metrics.finite.all():
        return None
    names = parameter_names(params)
    wrong = [name for name, ok in zip(names, metrics.finite, strict=True) if not ok]
    which = f"; first of {len(wrong)} such gradients: {', '.join(wrong[:3])}" if wrong else ""
    return NonFiniteError(
        f"{where}: loss = {float(metrics.loss)}, gradient norm = {float(metrics.grad_norm)}"
        f"{which}; stopped, the last checkpoint is from before it"
    )
