"""A tiny model that reads text, and runs, folders and texts for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from armt_jax.config import BabilongExperiment, from_config_dict
from armt_jax.models import create_model
from armt_jax.reading import BabilongForm, Progress, ReadingModel
from armt_jax.streaming import StreamReader
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import create_state
from armt_jax.training.workdir import Workdir
from configs import babilong
from tests.small_models import lively_params, small_model
from tests.tasks.babilong.stories import words_tokenizer

jax.devices()  # commands would change their number

SEGMENT = 24
TEXT = (
    "Mary went to the garden. John said: “Where is she?” Dr. Who was late!\n\n"
    "A HEADING\n\nNobody knew it; on the table stood 3 cups. The milk was café au lait. "
)
QUESTIONS = ["Where is Mary?", "Who is it?", "Where?"]


@functools.cache
def tokenizer() -> BabilongTokenizer:
    return words_tokenizer()


def reading_model(seed: int = 0, **changes: Any) -> ReadingModel:
    """Of random parameters: what it answers depends on what it read. Blocks of two segments."""
    return _model(seed, bool(jax.config.read("jax_enable_x64")), tuple(changes.items()))


@functools.cache
def _model(seed: int, x64: bool, changes: tuple[tuple[str, Any], ...]) -> ReadingModel:
    del x64  # which the parameters follow
    sizes = {"vocab_size": 262, "n_positions": 64, "n_layer": 2, **dict(changes)}
    model = small_model(**sizes)
    params = lively_params(model, seed)
    reading = ReadingModel(model, params, BabilongForm(tokenizer()), SEGMENT, f"seed {seed}")
    reader = StreamReader(model, params, segment_size=SEGMENT, block_segments=2)
    reading.__dict__["reader"] = reader
    return reading


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


class StoppedError(Exception):
    pass


def stop_at(tokens: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.tokens >= tokens:
            raise StoppedError

    return stop


def tiny_experiment(folder: Path) -> BabilongExperiment:
    plain: dict[str, Any] = babilong.get_config("qa1,tiny").to_dict() | {"workdir": str(folder)}
    plain["model"] |= {"d_model": 8, "d_ff": 8, "d_mem": 2, "num_mem_tokens": 2, "n_layer": 1}
    plain["model"] |= {"vocab_size": 262, "n_head": 2}
    plain["optimizer"] |= {"name": "adamw"}
    config = from_config_dict(plain)
    assert isinstance(config, BabilongExperiment)
    return config


def make_run(folder: Path) -> None:
    """The folder of a run as a training leaves it, with checkpoints of steps 3 and 7 in it."""
    config = tiny_experiment(folder)
    with Workdir(config) as workdir:
        tokenizer().save(folder / "tokenizer.json")
        model, optimizer = create_model(config.model), create_optimizer(config.optimizer)
        state = create_state(model, optimizer, 0)
        for step in (3, 7):
            state = state._replace(params=lively_params(model, step))
            Checkpoints(workdir.checkpoints).save(step, state, {}, None)
