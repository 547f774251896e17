"""Parameters from and to other codebases."""

from armt_jax.interop.official import load_official, to_official

__all__ = ["load_official", "to_official"]
