"""The precision of a model's matrix products, as its configuration asks for it.

It matters on accelerators, whose ``default`` for float32 is less than float32: TensorFloat-32 on
GPUs, one pass of bfloat16 on TPUs. Derivatives keep the precision of the product they come from.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax

from armt_jax.config import ModelConfig

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def matmul_precision(config: ModelConfig) -> contextlib.AbstractContextManager[Any]:
    """Products traced inside have ``config.matmul_precision``; ``default`` changes nothing."""
    if config.matmul_precision == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(config.matmul_precision)


def at_model_precision(
    function: Callable[Concatenate[Any, _Arguments], _Result],
) -> Callable[Concatenate[Any, _Arguments], _Result]:
    """``function``, whose first argument is a model, within ``matmul_precision`` of the model."""

    @functools.wraps(function)
    def wrapped(model: Any, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with matmul_precision(model.config):
            return function(model, *args, **kwargs)

    return wrapped
