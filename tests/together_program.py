"""What two processes of ``together_test`` do; each writes what it saw as JSON.

python -m tests.together_program COORDINATOR PROCESS_ID FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from armt_jax import ModelConfig, create_model, processes
from armt_jax.config import ConfigError
from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.evaluation.exact_match import count_matches
from armt_jax.evaluation.scoring import USUAL, Reading, Scores
from armt_jax.processes import Launch, StopVote, together
from armt_jax.sharding import batched, data_mesh, replicated
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Batch
from armt_jax.tasks.stream import train_stream
from armt_jax.training import checkpoints
from armt_jax.training.checkpoints import Checkpoints
from experiments import errors

TASK = AssociativeRetrieval(
    "rewrite", num_pairs=4, key_size=1, value_size=1, num_queries=0, random_num_pairs=True
)

_MODEL = create_model(ModelConfig())


@dataclasses.dataclass(frozen=True)
class _Guess:
    """A scoring that does not look at the model."""

    def count(self, batch: Batch) -> jax.Array:
        return jnp.sum(batch.query_mask, dtype=jnp.float32)

    def score(
        self, model: Any, params: Any, batch: Batch, reading: Reading = USUAL, stages: int = 1
    ) -> Scores:
        assert stages == 1
        right = jnp.sum(batch.queries, -1) % 3 == jax.tree.leaves(params)[0].ravel()[0]
        return Scores(jnp.zeros(()), count_matches(right, batch.query_mask))


def evaluate() -> list[int]:
    """Right answers and queries of 14 contexts, 8 at a time, by a model that guesses."""
    evaluator = Evaluator(_MODEL, _Guess(), 6)
    shapes = jax.eval_shape(_MODEL.init, jax.random.key(0))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    return list(evaluator(ones, draw(14)))


def draw(size: int, **share: int) -> Batch:
    stream = train_stream(TASK, 0, size, **share)
    try:
        return next(stream)
    finally:
        stream.close()


def failures(index: int) -> list[str]:
    """What every process hears of a failure of the second, of all alike, and of each its own."""
    heard = []
    for fails in (lambda: index == 1, lambda: True):
        try:
            with together():
                if fails():
                    raise ConfigError("field = 1: must be 2")
        except Exception as error:
            heard.append(describe(error))
    with together():
        pass
    return heard


def describe(error: Exception) -> str:
    known = "" if processes.is_agreed(error) else " that the other process does not know of"
    return f"{type(error).__name__}{known}: {error}"


def arrays() -> dict[str, Any]:
    """A batch made of two halves, and arrays carried from one mesh to another."""
    mesh, half = data_mesh(4), data_mesh(2)
    sharding = batched(mesh)
    index, count = processes.share_of(sharding, 8)
    own = draw(8, shard_index=index, shard_count=count)
    whole = processes.global_batch(own, sharding, 8)
    wanted = draw(8)
    same = jax.jit(lambda a, b: jnp.all(a == b), out_shardings=replicated(mesh))
    few = processes.on_mesh({"x": np.arange(6.0)}, NamedSharding(half, P("data")))
    many = processes.on_mesh(few, replicated(mesh))
    cut = processes.on_mesh({"x": np.arange(8.0)}, NamedSharding(mesh, P("data")))
    joined = processes.on_mesh(cut, replicated(mesh))
    return {
        "share": [index, count],
        "rows": len(own.context),
        "same": [bool(same(a, np.asarray(b))) for a, b in zip(whole, wanted, strict=True)],
        "devices": [len(x["x"].sharding.device_set) for x in (few, many)],
        "processes": sorted({d.process_index for d in half.devices.flat}),
        "carried": np.asarray(many["x"].addressable_data(0)).tolist(),
        "joined": np.asarray(joined["x"].addressable_data(0)).tolist(),
    }


def state(step: int, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Replicated, sharded, and a key of random numbers, which must be over all devices too."""
    cut, everywhere = NamedSharding(mesh, P("data")), replicated(mesh)
    return {
        "cut": processes.on_mesh(np.arange(16.0, dtype=np.float32) + step, cut),
        "whole": processes.on_mesh(np.full(3, step, np.float32), everywhere),
        "rng": jax.jit(lambda: jax.random.key(step), out_shardings=everywhere)(),
    }


def saving(folder: Path, index: int) -> dict[str, Any]:
    """Saves, a damaged checkpoint, one that cannot be written, and what is restored."""
    mesh = data_mesh(4)
    store = Checkpoints(folder)
    for step in (1, 2):
        store.save(step, state(step, mesh), {"position": step}, None)
    said: dict[str, Any] = {"entries": sorted(x.name for x in folder.iterdir())}
    warnings: list[str] = []
    said["restored"] = look(store.restore(state(0, mesh), warn=warnings.append))
    with together():
        if index == 0:
            (folder / "2" / "description.json").write_text("{}")
    said["after damage"] = look(store.restore(state(0, mesh), warn=warnings.append))
    said["warnings"] = warnings
    room = checkpoints._check_room
    if index == 0:
        checkpoints._check_room = full
    try:
        store.save(3, state(3, mesh), {"position": 3}, None)
    except Exception as error:
        said["full"] = describe(error)
    checkpoints._check_room = room
    store.discard_after(1)
    store.save(3, state(3, mesh), {"position": 3}, 0.5)
    said["again"] = look(store.restore(state(0, mesh), warn=warnings.append))
    try:
        store.restore({"cut": state(0, mesh)["cut"]}, warn=warnings.append)
    except Exception as error:
        said["other model"] = describe(error)
    return said


def full(folder: Path, tree: Any) -> None:
    raise OSError(28, "No space left on device")


def look(found: Any) -> list[Any]:
    """Step, meta and values of what was restored: of the part that this process holds."""
    cut = [np.asarray(x.data).tolist() for x in found.state["cut"].addressable_shards]
    whole = np.asarray(found.state["whole"].addressable_data(0)).tolist()
    key = jax.random.key_data(found.state["rng"]).addressable_data(0)
    return [found.step, found.meta, cut, whole, np.asarray(key).tolist()]


def main(coordinator: str, process_id: str, folder: str) -> None:
    index = int(process_id)
    jax.config.update("jax_num_cpu_devices", 2)
    processes.start_processes(Launch(coordinator, 2, index, "deactivate"))
    vote = StopVote()
    value = {"text": "é", "list": [1, None]} if index == 0 else None
    said = {
        "count": [processes.process_count(), processes.process_index(), processes.is_main()],
        "broadcast": processes.broadcast(value),
        "failures": failures(index),
        "votes": [vote.cast(None), vote.cast(15 if index == 1 else None), vote.cast(None)],
        "arrays": arrays(),
        "evaluation": evaluate(),
        "saving": saving(Path(folder) / "checkpoints", index),
    }
    (Path(folder) / f"{index}.json").write_text(json.dumps(said))
    processes.broadcast(None)
    if index == 1:  # the other one may be ended at any moment from here on
        (Path(folder) / "killed").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    processes.broadcast(None)  # waits for a process that is gone


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(*sys.argv[1:])))
