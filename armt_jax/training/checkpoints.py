"""Checkpoints that are whole or not there, and that notice when they were damaged.

Orbax writes a checkpoint into a temporary folder and renames it, so a killed save leaves nothing
that is read. What Orbax does not notice is damage afterwards: a flipped byte is restored silently,
and a dtype that differs is cast. So every leaf is stored with its shape, dtype and digest, and is
checked when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

LATEST, BEST = "latest", "best"
_STATE, _META = "state", "meta"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; one line that says which and why."""


class Restored(NamedTuple):
    """Attributes: ``step``, ``state`` (of the template's structure), ``meta`` (JSON)."""

    step: int
    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the two newest, and the one of the best score."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Checkpoints in ``folder``, which is made unless ``read_only``."""
        self._folder = folder.absolute()
        policies = [
            checkpoint_managers.LatestN(2),
            checkpoint_managers.BestN(
                get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        with _quiet():
            options = ocp.CheckpointManagerOptions(
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                enable_async_checkpointing=False,
                best_fn=_score,
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict[str, Any], score: float | None) -> None:
        """Save ``state`` (a pytree of arrays) and ``meta`` (JSON) as the checkpoint of ``step``.

        Args:
          step: of the run; nothing happens where it is saved already.
          state: what is restored with a template of the same structure.
          meta: whatever JSON can hold.
          score: what the best checkpoint has most of; None where it was not measured.

        Raises:
          CheckpointError: it cannot be written; the checkpoints before it are untouched.
        """
        if step in self._manager.all_steps():
            return
        content = {"meta": meta, "leaves": _describe(state)}
        text = json.dumps(content, sort_keys=True)
        args = ocp.args.Composite(
            **{
                _STATE: ocp.args.StandardSave(state),
                _META: ocp.args.JsonSave({"digest": _sha256(text.encode()), "content": text}),
            }
        )
        try:
            with _quiet():
                self._manager.save(
                    step, args=args, metrics=None if score is None else {"score": score}
                )
        except Exception as error:  # Orbax and tensorstore raise errors of many unrelated types
            raise CheckpointError(
                f"{self._folder / str(step)}: the checkpoint cannot be written ({_reason(error)}); "
                "those before it are untouched"
            ) from error

    def restore(
        self, template: Any, which: int | str = LATEST, *, warn: Callable[[str], None]
    ) -> Restored | None:
        """The checkpoint of a step, or the newest or best that is undamaged.

        Args:
          template: a state of the shapes and dtypes that are wanted.
          which: ``latest``, ``best``, or a step.
          warn: told about every damaged checkpoint that was passed over.

        Returns:
          None where there is no checkpoint at all and no step was asked for.

        Raises:
          CheckpointError: no such step, a checkpoint of another shape, or only damaged ones.
        """
        steps = self._candidates(which)
        for step in steps:
            try:
                return self._read(step, template)
            except _DamagedError as error:
                problem = f"{self._folder / str(step)}: the checkpoint is damaged ({error})"
                if isinstance(which, int):
                    raise CheckpointError(problem) from error
                warn(f"warning: {problem}; using the one before it")
        if steps:
            raise CheckpointError(f"{self._folder}: every checkpoint is damaged (steps {steps})")
        return None

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: damaged ones, whose place the run needs again."""
        for later in [found for found in self.steps() if found > step]:
            shutil.rmtree(self._folder / str(later))
        with _quiet():
            self._manager.reload()

    def close(self) -> None:
        """Let go of Orbax's resources."""
        self._manager.close()

    def _candidates(self, which: int | str) -> list[int]:
        newest_first = self.steps()[::-1]
        if which == LATEST:
            return newest_first
        if which == BEST:
            best = self._manager.best_step()
            first = [] if best is None else [best]
            return first + [step for step in newest_first if step != best]
        if which not in newest_first:
            there = ", ".join(str(step) for step in newest_first[::-1]) or "none"
            raise CheckpointError(
                f"step = {which!r}: must be {LATEST}, {BEST} or one of {there} ({self._folder})"
            )
        return [int(which)]

    def _read(self, step: int, template: Any) -> Restored:
        try:
            with _quiet():
                args = ocp.args.Composite(**{_META: ocp.args.JsonRestore()})
                stored = self._manager.restore(step, args=args)[_META]
            text, digest = stored["content"], stored["digest"]
        except Exception as error:
            raise _DamagedError(_reason(error)) from error
        if _sha256(text.encode()) != digest:
            raise _DamagedError("its description was changed")
        content = json.loads(text)
        leaves = content["leaves"]
        self._check_shapes(step, leaves, template)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            with _quiet():
                args = ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(abstract)})
                state = self._manager.restore(step, args=args)[_STATE]
        except Exception as error:
            raise _DamagedError(_reason(error)) from error
        for name, found in _describe(state).items():
            if found != leaves[name]:
                raise _DamagedError(f"{name} is not what was saved")
        return Restored(step, state, content["meta"])

    def _check_shapes(self, step: int, leaves: dict[str, Any], template: Any) -> None:
        wanted = {name: _shape(leaf) for name, leaf in _named_leaves(template)}
        stored = {name: {"shape": x["shape"], "dtype": x["dtype"]} for name, x in leaves.items()}
        for name in sorted(wanted.keys() | stored.keys()):
            if wanted.get(name) != stored.get(name):
                raise CheckpointError(
                    f"{self._folder / str(step)}: the checkpoint is of another model: {name} is "
                    f"{_text(stored.get(name))} there, must be {_text(wanted.get(name))}"
                )


class _DamagedError(Exception):
    """A checkpoint that cannot be trusted."""


def _score(metrics: Any) -> float:
    return metrics["score"]


def _named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _shape(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _describe(tree: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **_shape(leaf),
            "digest": _sha256(np.ascontiguousarray(jax.device_get(leaf)).tobytes()),
        }
        for name, leaf in _named_leaves(tree)
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _text(leaf: dict[str, Any] | None) -> str:
    return "missing" if leaf is None else f"{leaf['dtype']}{leaf['shape']}"


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax reports its ordinary work, and metrics that are left out on purpose, as warnings."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
