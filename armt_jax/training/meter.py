"""Speed of a training between two logged steps."""

from __future__ import annotations

import time
from typing import Any


class Meter:
    """Tokens and steps since the last reading."""

    def __init__(self, step: int) -> None:
        self._tokens = 0
        self._step = step
        self._since = time.monotonic()

    def add(self, batch: Any, shares: int) -> None:
        """Count a batch, padding left out; of ``shares`` equal parts one is counted for all."""
        read = int(batch.context_mask.sum())
        if batch.context_mask.ndim == batch.context.ndim - 1:  # of segments
            read *= batch.context.shape[-1]
        asked = 0
        if hasattr(batch, "queries"):  # language modelling asks about what it reads
            asked = int(batch.query_mask.sum()) * batch.queries.shape[-1]
        self._tokens += (read + asked) * shares

    def read(self, step: int) -> tuple[float, float]:
        """Tokens a second and seconds a step since the last reading, which starts a new one."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        result = self._tokens / seconds, seconds / max(1, step - self._step)
        self._tokens, self._step, self._since = 0, step, time.monotonic()
        return result
