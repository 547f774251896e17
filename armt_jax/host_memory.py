"""Giving freed host memory back to the operating system."""

from __future__ import annotations

import ctypes
import platform


def release_freed_memory() -> bool:
    """Ask glibc to return what is free in its heaps (``malloc_trim``): True where it could be.

    Compiling a training step or a reader leaves up to several hundred megabytes of freed but
    resident heap behind, which would otherwise stand beside the memory of what is run, or of what
    is compiled next.
    """
    if platform.system() != "Linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True
