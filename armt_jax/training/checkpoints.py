"""Checkpoints that are whole or not there, and that notice when they were damaged.

A checkpoint is a folder named by its step: ``state`` as Orbax writes it, and ``description.json``
with the digest of every file, the shape and dtype of every leaf, and what the run needs besides.
It is written under another name and renamed when complete, so a killed save leaves nothing that is
read. The digests are there because Orbax restores a flipped byte silently; the shapes and dtypes
because it casts what differs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from armt_jax.evaluation.results import atomic_write

LATEST, BEST = "latest", "best"
_STATE, _DESCRIPTION = "state", "description.json"
_SAVING, _REMOVED = ".saving", ".removed"


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
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
            for entry in self._folder.iterdir():
                if entry.suffix in (_SAVING, _REMOVED):
                    shutil.rmtree(entry)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(int(x.name) for x in self._folder.iterdir() if x.name.isdecimal())

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
        if step in self.steps():
            return
        final = self._folder / str(step)
        saving = final.with_suffix(_SAVING)
        try:
            _check_room(self._folder, state)
            with _orbax() as orbax:
                orbax.save(saving / _STATE, state)
            content = {
                "meta": meta,
                "score": score,
                "leaves": dict(_shapes(state)),
                "files": dict(_digests(saving / _STATE)),
            }
            text = json.dumps(content, sort_keys=True)
            description = {"digest": _sha256(text.encode()), "content": text}
            atomic_write(saving / _DESCRIPTION, json.dumps(description).encode())
            saving.rename(final)
        except Exception as error:  # Orbax and tensorstore raise errors of many unrelated types
            shutil.rmtree(saving, ignore_errors=True)
            raise CheckpointError(
                f"{final}: the checkpoint cannot be written ({_reason(error)}); "
                "those before it are untouched"
            ) from error
        self._tidy()

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
                warn(f"warning: {problem}; looking for another")
        if steps:
            raise CheckpointError(f"{self._folder}: every checkpoint is damaged (steps {steps})")
        return None

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: damaged ones, whose place the run needs again."""
        for later in self.steps():
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
            with contextlib.suppress(_DamagedError):
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
        try:
            stored = json.loads((self._folder / str(step) / _DESCRIPTION).read_bytes())
            text, digest = str(stored["content"]), stored["digest"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise _DamagedError(f"{_DESCRIPTION} cannot be read") from error
        if _sha256(text.encode()) != digest:
            raise _DamagedError(f"{_DESCRIPTION} is not what was saved")
        return json.loads(text)

    def _read(self, step: int, template: Any) -> Restored:
        content, folder = self._describe(step), self._folder / str(step) / _STATE
        found = dict(_digests(folder))
        for name, digest in content["files"].items():
            if found.get(name) != digest:
                problem = "is not what was saved" if name in found else "is missing"
                raise _DamagedError(f"{_STATE}/{name} {problem}")
        self._check_shapes(step, content["leaves"], template)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            with _orbax() as orbax:
                state = orbax.restore(folder, abstract)
        except Exception as error:  # as for save
            raise CheckpointError(f"{folder}: cannot be read ({_reason(error)})") from error
        return Restored(step, state, content["meta"])

    def _check_shapes(self, step: int, leaves: dict[str, str], template: Any) -> None:
        wanted = dict(_shapes(template))
        for name in sorted(wanted.keys() | leaves.keys()):
            there, here = leaves.get(name, "missing"), wanted.get(name, "missing")
            if there != here:
                raise CheckpointError(
                    f"{self._folder / str(step)}: the checkpoint is of another model: {name} is "
                    f"{there} there, must be {here}"
                )


class _DamagedError(Exception):
    """A checkpoint that cannot be trusted."""


def _shapes(tree: Any) -> Iterator[tuple[str, str]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        yield name, f"{leaf.dtype}{list(leaf.shape)}"


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), _sha256(path.read_bytes())


def _check_room(folder: Path, state: Any) -> None:
    """Fail where the disk has no room for ``state``: Orbax's own failure prints pages of traces."""
    leaves = jax.tree.leaves(state)
    needed = sum(leaf.nbytes for leaf in leaves) * 5 // 4 + len(leaves) * 2**12 + 2**18
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _reason(error: BaseException) -> str:
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
