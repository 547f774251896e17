"""What the schedules are compared on: a model, and texts cut into segments."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.models import ARMT, Params, Segment, create_model
from benchmarks.sizes import GPT2_SMALL, RETRIEVAL


@dataclasses.dataclass(frozen=True)
class Case:
    """Texts that a model reads.

    Attributes:
      config: of the model.
      batch: texts read at once.
      length: tokens of a segment.
      segments: of every text.
    """

    config: ModelConfig
    batch: int
    length: int
    segments: int


def _retrieval(**sizes: int) -> ModelConfig:
    model: dict[str, Any] = {**RETRIEVAL, **sizes}
    # So large that features are far above eps: recall and update both count in what is compared.
    scale = model["d_model"] ** -0.5
    return ModelConfig(vocab_size=256, n_positions=1024, initializer_range=scale, **model)


_GPT2_SMALL = _retrieval(**GPT2_SMALL)

# Named after the width and depth, the batch and the tokens of a segment.
CASES = {
    "tiny": Case(_retrieval(n_layer=2, n_head=2, d_model=16, d_mem=4), 1, 8, 6),
    "4x128_b1_t5": Case(_retrieval(), 1, 5, 50),
    "4x128_b32_t5": Case(_retrieval(), 32, 5, 50),
    "4x128_b1_t512": Case(_retrieval(), 1, 512, 8),
    "12x128_b1_t32": Case(_retrieval(n_layer=12), 1, 32, 48),
    "12x768_b1_t512": Case(_GPT2_SMALL, 1, 512, 4),
}


def find_case(name: str, segments: int = 0) -> Case:
    """The case called ``name``, with its own number of segments unless ``segments`` says another.

    Raises:
      ConfigError: there is no such case.
    """
    if name not in CASES:
        raise ConfigError(f"case = {name!r}: must be one of {', '.join(CASES)}")
    case = CASES[name]
    return dataclasses.replace(case, segments=segments) if segments else case


def lively_params(model: ARMT, seed: int = 0) -> Params:
    """Fresh parameters whose ``W_V``, zero at initialisation, writes something.

    With an empty ``A`` all schedules would agree, whatever they do with it. With a ``W_V`` of three
    times the size none would: over 50 segments rounding grows to 1e8 times what it is, in float64
    as in float32.
    """
    params = jax.jit(model.init)(jax.random.key(seed))  # one program and not a hundred small ones
    kernel = params["layers"]["memory"]["W_mv"]["kernel"]
    scale = 0.3 * model.config.d_model**-0.5
    kernel = scale * jax.random.normal(jax.random.key(seed + 1), kernel.shape, kernel.dtype)
    memory = {**params["layers"]["memory"], "W_mv": {"kernel": kernel}}
    return {**params, "layers": {**params["layers"], "memory": memory}}


def case_inputs(case: Case, seed: int = 0) -> tuple[ARMT, Params, Segment]:
    """Model, parameters and random texts ``[s, b, t]`` of a case."""
    model = create_model(case.config)
    shape = (case.segments, case.batch, case.length)
    tokens = np.random.default_rng(seed).integers(0, case.config.vocab_size, shape, np.int32)
    segments = Segment(jax.device_put(tokens), jax.device_put(np.ones(shape, bool)))
    return model, lively_params(model, seed), segments
