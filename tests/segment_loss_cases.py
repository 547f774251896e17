"""Rows of Figure 6 for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from armt_jax.evaluation.language_modelling_results import SegmentLossRow


def segment_loss_row(**changes: Any) -> SegmentLossRow:
    """Numbers that differ where they must; any field can be given."""
    number = {"losses": [3.0, 2.5], "bits_per_byte": [1.5, 1.25], "tokens": [10, 9]}
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(SegmentLossRow):
        fields[field.name] = {"str": "x", "int": 1, "float": 1.0}.get(str(field.type))
    fields |= number | {"horizons": {"1": 2.6}, "gain": 0.1, "gain_low": 0.0, "gain_high": 0.2}
    fields |= {"trained_memory": "kept", "memory": "kept"} | changes
    return SegmentLossRow(**fields)
