"""A pipeline's time against its schedule, which has ``S + stages - 1`` steps for S segments."""

from __future__ import annotations

from typing import Any


def efficiency(segments: int, stages: int) -> float:
    """Share of the stages' steps that is work."""
    return segments / (segments + stages - 1)


def with_measured_efficiency(rows: list[dict[str, Any]], stages: int) -> list[dict[str, Any]]:
    """Rows with ``segments`` and ``seconds``, with steps and both efficiencies added."""
    longest = max(rows, key=lambda row: row["segments"])
    step = longest["seconds"] / (longest["segments"] + stages - 1)
    return [
        {
            **row,
            "steps": row["segments"] + stages - 1,
            "efficiency": efficiency(row["segments"], stages),
            "measured_efficiency": row["segments"] * step / row["seconds"],
        }
        for row in rows
    ]
