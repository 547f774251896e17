"""Bytes that a stretch of a program needs above what was there before it."""

from __future__ import annotations

import pathlib

import jax

_CLEAR = pathlib.Path("/proc/self/clear_refs")
_STATUS = pathlib.Path("/proc/self/status")


def start_of_peak() -> int | None:
    """Bytes in use now, where a peak begins to be taken; None where that cannot be measured.

    Of an accelerator the bytes allocated; else the resident size, whose peak Linux lets a process
    begin again. (Other systems keep one for the whole life, compiling included.)
    """
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["bytes_in_use"])
    try:
        _CLEAR.write_text("5", encoding="ascii")
        return _status_bytes("VmRSS")
    except OSError:
        return None


def peak_since_start() -> int:
    """Most bytes in use since ``start_of_peak`` (of an accelerator since the process began)."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
