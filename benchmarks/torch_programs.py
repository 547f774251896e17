"""Programs of ``benchmarks.against_torch``: both sides of a case, compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from jax.sharding import Mesh

from armt_jax.config import ModelConfig
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.interop.official import to_official
from armt_jax.models import Params, create_model
from armt_jax.sharding import available_cores, context_mesh
from armt_jax.streaming import StreamReader
from armt_jax.training.step import accumulate_gradients
from benchmarks.cases import lively_params
from benchmarks.side_by_side import largest_difference
from benchmarks.torch_model import TorchModel
from benchmarks.train_program import OPTIMIZER, TrainProgram
from benchmarks.train_sizes import TrainSize

VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__}
REFERENCE, LAST_ONLY, OURS = "PyTorch", "PyTorch, last logits only", "armt_jax"
# A segment's tokens are shared out: for small models, whose products do not fill all cores.
SHARED = "armt_jax, two devices"


@dataclasses.dataclass(frozen=True)
class Contestants:
    """What takes turns.

    Attributes:
      programs: by name, the reference first; each call does the work once more.
      difference: the largest one of their results, as a share of the largest entry of a leaf.
      tokens: that a call reads; 0 where that is not the question.
    """

    programs: dict[str, Callable[[], Any]]
    difference: float
    tokens: int = 0


def _parameters(config: ModelConfig) -> Params:
    """As ``benchmarks.cases`` has them: large enough that features are far above ``eps``."""
    model = create_model(dataclasses.replace(config, initializer_range=config.d_model**-0.5))
    if config.family == "armt":
        return lively_params(model)
    return jax.jit(model.init)(jax.random.key(0))


def _reference(config: ModelConfig, params: Params) -> TorchModel:
    torch.set_num_threads(available_cores())
    model = TorchModel(config)
    model.load(to_official(params, config))
    return model


def reading(config: ModelConfig, segment: int, block: int) -> Contestants:
    """Reading a text, ``block`` segments a call, each from where the last one ended.

    What is compared is the memory after the first block.
    """
    params = _parameters(config)
    theirs = _reference(config, params)
    text = np.random.default_rng(0).integers(0, config.vocab_size, (1, block * segment))
    pieces = torch.tensor(text).split(segment, dim=1)

    @torch.no_grad()
    def read(last_only: bool) -> list[Any]:
        return [theirs(piece, last_only=last_only) for piece in pieces]

    theirs.reset()
    read(last_only=True)
    expected = _arrays(theirs.memories())
    programs: dict[str, Callable[[], Any]] = {
        REFERENCE: lambda: read(False),
        LAST_ONLY: lambda: read(True),
    }
    differences = []
    for name, mesh in ((OURS, None), (SHARED, _two_devices())):
        if name == OURS or mesh is not None:
            run, memory = _reader(config, params, text, segment, mesh)
            programs[name] = run
            differences.append(largest_difference(tuple(memory[:2]), expected))
    return Contestants(programs, max(differences), text.size)


def _two_devices() -> Mesh | None:
    return context_mesh(2) if jax.device_count() > 1 else None


def _reader(
    config: ModelConfig, params: Params, text: np.ndarray, segment: int, mesh: Mesh | None
) -> tuple[Callable[[], Any], Any]:
    """What reads ``text`` once more with every call, and the memory after the first time."""
    model, block = create_model(config), text.shape[1] // segment
    reader = StreamReader(model, params, segment_size=segment, block_segments=block, mesh=mesh)
    state = reader.feed(reader.start(1), text)
    first = jax.device_get(state.memory)

    def feed() -> Any:
        nonlocal state
        state = reader.feed(state, text)
        return state.memory

    return feed, first


def _arrays(tensors: Any) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)


def training(size: TrainSize) -> Contestants:
    """A training step. What is compared is the loss and every gradient of the first."""
    params = _parameters(size.config)
    theirs = _reference(size.config, params)
    optimizer = torch.optim.AdamW(
        theirs.parameters(),
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.b1, OPTIMIZER.b2),
        eps=OPTIMIZER.eps,
        weight_decay=OPTIMIZER.weight_decay,
    )
    batch = size.batch
    tokens = torch.tensor(np.concatenate([batch.context, batch.queries], axis=1)).long()
    answer = size.value_size + 1

    def gradient(last_only: bool) -> Any:
        theirs.reset()
        optimizer.zero_grad()
        kept = [theirs(piece, last_only=last_only) for piece in tokens[:, :-1].unbind(1)]
        logits = theirs(tokens[:, -1])[:, -answer - 1 : -1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, -1, -answer:].flatten()
        )
        loss.backward()
        del kept  # as the published code has them at this point
        return loss

    def step(last_only: bool) -> Any:
        gradient(last_only)
        torch.nn.utils.clip_grad_value_(theirs.parameters(), OPTIMIZER.clip_threshold)
        optimizer.step()

    difference = _gradient_difference(size, params, theirs, gradient(True))
    ours = TrainProgram(size)
    programs = {
        REFERENCE: lambda: step(False),
        LAST_ONLY: lambda: step(True),
        OURS: ours.run,
    }
    return Contestants(programs, difference)


def _gradient_difference(size: TrainSize, params: Params, theirs: TorchModel, loss: Any) -> float:
    """Of loss and gradients, by the names that both have."""
    model, scoring = create_model(size.config), AnswerAtEnd(size.value_size)

    @jax.jit
    def ours(params: Params, batch: Any) -> tuple[jax.Array, Params]:
        scores, gradient = accumulate_gradients(model, params, batch, scoring, 1)
        return scores.loss / scoring.count(batch), gradient

    batch = jax.tree.map(jnp.asarray, size.batch)
    value, gradient = ours(params, batch)
    found = to_official(gradient, size.config)
    expected = theirs.official_gradients()
    silent = [found[name] for name in found.keys() - expected.keys()]
    if any(np.any(grad) for grad in silent):
        return float("inf")
    found = {name: found[name] for name in expected}
    return largest_difference((value, found), (loss.detach().numpy(), expected))
