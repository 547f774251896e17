"""Recurrent language models with a state of constant size, behind the one protocol."""

from armt_jax.models.state_space.frame import StateSpaceLM

__all__ = ["StateSpaceLM"]
