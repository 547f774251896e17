"""The schedule that ``auto`` stands for: a rule by shape and kind of device.

On a CPU: ``chunked`` wherever it can be, which trains fastest, and never the diagonal, which won
nothing yet that could be repeated (``BUILD_NOTES.md``). On accelerators nothing has been measured
here: there the diagonal is taken only where its authors report that it wins, one text and a deep
model (arXiv 2506.05229). Where segments are nothing to a model, a text that is not too long is
read as one (``whole``), on every device: the same work without a scan. ``python -m
benchmarks.schedules`` measures what would change this.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

# Fewer layers leave little to compute at once.
DEEP = 8
# Of a text read as one segment every block of queries is a program of its own, and the scores grow
# with the square of it.
WHOLE_TOKENS = 2048


class Shape(NamedTuple):
    """What the rule looks at.

    Attributes:
      platform: as ``jax.default_backend`` names it: ``cpu``, ``gpu``, ``tpu``.
      n_layer: layers of the model.
      segments: of each text.
      batch: texts read at once (by one device).
      length: tokens of a segment.
    """

    platform: str
    n_layer: int
    segments: int
    batch: int
    length: int


def fastest_known(shape: Shape, possible: Collection[str]) -> str:
    """The one of the ``possible`` schedules that is fastest as far as is known.

    Args:
      shape: of model and texts.
      possible: of ``sequential`` (always), ``chunked``, ``diagonal`` and ``whole``.
    """
    if "whole" in possible and shape.segments * shape.length <= WHOLE_TOKENS:
        return "whole"
    if shape.platform != "cpu" and "diagonal" in possible and _diagonal_is_published(shape):
        return "diagonal"
    return "chunked" if "chunked" in possible else "sequential"


def _diagonal_is_published(shape: Shape) -> bool:
    """One text, a deep model, and at least half of the steps with work for all layers."""
    return shape.batch == 1 and shape.n_layer >= DEEP and shape.segments >= shape.n_layer
