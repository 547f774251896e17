"""Checkpoints that are whole or not there, and that notice when they were damaged.

A checkpoint is a folder named by its step: ``state`` as Orbax writes it, and ``description.json``
with the digest of every file, the shape and dtype of every leaf, and what the run needs besides.
It is written under another name and renamed when complete, so a killed save leaves nothing that is
read. The digests are there because Orbax restores a flipped byte silently; the shapes and dtypes
because it casts what differs.

Of several processes all call every method, at the same place, with one shared folder: each writes
and reads its part of the state. Everything else is done, and decided for all, by the first one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from armt_jax.evaluation.results import atomic_write
from armt_jax.processes import (
    ElsewhereError,
    broadcast,
    is_agreed,
    is_main,
    mark_agreed,
    together,
)
from armt_jax.training.digest import DamagedError, check_digests, digests, seal, unseal
from armt_jax.training.leaves import describe_difference, describe_leaves

LATEST, BEST = "latest", "best"
_STATE, _DESCRIPTION = "state", "description.json"
_SAVING, _REMOVED, _REPLACED = ".saving", ".removed", ".replaced"


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
        """Checkpoints in ``folder``: made, and tidied of killed saves, unless ``read_only``.

        Raises:
          OSError: the folder cannot be made.
        """
        self._folder = folder.absolute()
        if read_only:
            return
        with together():
            if is_main():
                self._repair()

    def _repair(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for entry in list(self._folder.iterdir()):
            if entry.suffix == _REPLACED and not entry.with_suffix("").exists():
                entry.rename(entry.with_suffix(""))  # killed before the new one had its name
            elif entry.suffix in (_SAVING, _REMOVED, _REPLACED):
                shutil.rmtree(entry)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(int(x.name) for x in self._folder.iterdir() if x.name.isdecimal())

    def save(self, step: int, state: Any, meta: dict[str, Any], score: float | None) -> None:
        """Save ``state`` (a pytree of arrays) and ``meta`` (JSON) as the checkpoint of ``step``.

        Args:
          step: of the run; a checkpoint that it has already is replaced.
          state: what is restored with a template of the same structure.
          meta: whatever JSON can hold.
          score: what the best checkpoint has most of; None or NaN where it was not measured.

        Raises:
          CheckpointError: it cannot be written; the checkpoints before it are untouched.
        """
        final = self._folder / str(step)
        saving = final.with_suffix(_SAVING)
        content = {
            "meta": meta,
            "score": score if score is not None and math.isfinite(score) else None,
        }
        try:
            with together():
                content["leaves"] = describe_leaves(state)
                if is_main():
                    _check_room(self._folder, state)
            with _orbax() as orbax:
                orbax.save(saving / _STATE, state)
            # Orbax returns in the first process when every process has written.
            with together():
                if is_main():
                    self._publish(saving, final, content)
        except ElsewhereError:
            raise
        except Exception as error:  # Orbax and tensorstore raise errors of many unrelated types
            if is_main():
                shutil.rmtree(saving, ignore_errors=True)
            failure = CheckpointError(
                f"{final}: the checkpoint cannot be written ({_reason(error)}); "
                "those before it are untouched"
            )
            raise mark_agreed(failure, is_agreed(error)) from error
        with together():
            if is_main():
                if (replaced := final.with_suffix(_REPLACED)).exists():
                    shutil.rmtree(replaced)
                self._tidy()

    def _publish(self, saving: Path, final: Path, content: dict[str, Any]) -> None:
        content["files"] = digests(saving / _STATE)
        atomic_write(saving / _DESCRIPTION, seal(content))
        if final.exists():
            final.rename(final.with_suffix(_REPLACED))
        saving.rename(final)

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
          PermissionError: a checkpoint may not be read, which is no damage.
        """
        chosen: tuple[int, dict[str, Any]] | None = None
        with together():
            if is_main():
                chosen = self._choose(template, which, warn)
        chosen = broadcast(chosen)
        if chosen is None:
            return None
        step, meta = chosen
        return Restored(step, self._read(step, template), meta)

    def _choose(
        self, template: Any, which: int | str, warn: Callable[[str], None]
    ) -> tuple[int, dict[str, Any]] | None:
        """Step and ``meta`` of the checkpoint to restore."""
        steps = self._candidates(which)
        for step in steps:
            try:
                content = self._describe(step)
                check_digests(self._folder / str(step) / _STATE, content["files"])
                if difference := describe_difference(content["leaves"], template):
                    raise CheckpointError(
                        f"{self._folder / str(step)}: the checkpoint is of another model: "
                        + difference
                    )
                return step, content["meta"]
            except DamagedError as error:
                problem = f"{self._folder / str(step)}: the checkpoint is damaged ({error})"
                if isinstance(which, int):
                    raise CheckpointError(problem) from error
                warn(f"warning: {problem}; looking for another")
        if steps:
            raise CheckpointError(f"{self._folder}: every checkpoint is damaged (steps {steps})")
        return None

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: damaged ones, whose place the run needs again."""
        with together():
            for later in self.steps() if is_main() else []:
                if later > step:
                    self._remove(later)

    def _tidy(self) -> None:
        steps = self.steps()
        kept = {*steps[-2:], *self._by_score()[:1]}
        for step in steps:
            if step not in kept:
                self._remove(step)

    def _remove(self, step: int) -> None:
        # Renamed first: a removal that is killed leaves nothing that looks like a checkpoint.
        doomed = self._folder / f"{step}{_REMOVED}"
        (self._folder / str(step)).rename(doomed)
        shutil.rmtree(doomed)

    def _by_score(self) -> list[int]:
        """Steps that have a score, the best first, the later one of two equal ones."""
        scores = {}
        for step in self.steps():
            with contextlib.suppress(DamagedError):
                scores[step] = self._describe(step)["score"]
        scored = [step for step, score in scores.items() if score is not None]
        return sorted(scored, key=lambda step: (scores[step], step), reverse=True)

    def _candidates(self, which: int | str) -> list[int]:
        newest_first = self.steps()[::-1]
        if which == LATEST:
            return newest_first
        if which == BEST:
            first = self._by_score()
            return first + [step for step in newest_first if step not in first]
        if which not in newest_first:
            there = ", ".join(str(step) for step in newest_first[::-1]) or "none"
            raise CheckpointError(
                f"step = {which!r}: must be {LATEST}, {BEST} or one of {there} ({self._folder})"
            )
        return [int(which)]

    def _describe(self, step: int) -> dict[str, Any]:
        return unseal(self._folder / str(step) / _DESCRIPTION)

    def _read(self, step: int, template: Any) -> Any:
        folder = self._folder / str(step) / _STATE
        try:
            with _orbax() as orbax:
                return orbax.restore(folder, jax.tree.map(_abstract, template))
        except Exception as error:  # as for save
            raise CheckpointError(f"{folder}: cannot be read ({_reason(error)})") from error


def _abstract(leaf: Any) -> Any:
    """What Orbax needs; without a sharding it would ask for the devices of the save."""
    struct: Any = ocp.utils.to_shape_dtype_struct(leaf)
    if isinstance(leaf, np.ndarray) or struct.sharding is not None:
        return struct
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=device)


def _check_room(folder: Path, state: Any) -> None:
    """Fail where the disk has no room for ``state``: Orbax's own failure prints pages of traces."""
    leaves = jax.tree.leaves(state)
    needed = sum(leaf.nbytes for leaf in leaves) * 5 // 4 + len(leaves) * 2**12 + 2**18
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: BaseException) -> str:
    # tensorstore's line has hundreds of letters of files and sizes before the reason.
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(number[1]))
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.StandardCheckpointer]:
    """A checkpointer, silent: it warns of its ordinary work, and its errors are raised as well."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # Leaving it waits for the save, which the checkpointer does in the background.
        with ocp.StandardCheckpointer() as checkpointer:
            yield checkpointer
    finally:
        logger.setLevel(level)
