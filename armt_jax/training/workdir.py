"""The folder of a run: which experiment it belongs to, and that one process at a time uses it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from armt_jax.config import (
    AnyExperiment,
    ConfigError,
    Experiment,
    ModelConfig,
    TuningConfig,
    from_config_dict,
    to_dict,
)
from armt_jax.config.babilong import with_later_settings
from armt_jax.evaluation.results import atomic_write
from armt_jax.processes import is_main, together

_LOCK = ".lock"
_CONFIG = "config.json"
# Settings that may differ when a run goes on: they change no number of its training (``mesh``: none
# but by rounding, and a machine with other devices must not end a run).
_FREE = (
    "workdir",
    "evaluation",
    "mesh",
    "train.data_workers",
    "train.log_every",
    "train.memory_contexts",
)
_LISTED = 6  # differing settings that an error names, of more it says how many


class Workdir:
    """Context manager: the locked folder of one experiment.

    Of several processes the first one makes, checks and locks it, for all.

    Attributes:
      path: of the folder.
      checkpoints: folder of the checkpoints in it.
      chosen: folder of what stages train on by the model's own choice.
    """

    def __init__(self, config: Experiment) -> None:
        self.config = config
        self.path = Path(config.workdir)
        self.checkpoints = self.path / "checkpoints"
        self.chosen = self.path / "chosen"

    def __enter__(self) -> Workdir:
        """Make the folder or check whose it is.

        Raises:
          ConfigError: it is no folder, holds something else or another experiment, or is in use.
          OSError: it cannot be written.
        """
        with together():
            self._held = self._lock() if is_main() else contextlib.ExitStack()
        return self

    def _lock(self) -> contextlib.ExitStack:
        self._check()
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context((self.path / _LOCK).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{self._where}: another process is training there") from None
            self._check()  # again: another process may have had the folder until now
            for unfinished in self.path.glob(f".{_CONFIG}.*"):
                unfinished.unlink()
            content = json.dumps(to_dict(self.config), indent=1) + "\n"
            atomic_write(self.path / _CONFIG, content.encode())
            return stack.pop_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    @property
    def _where(self) -> str:
        return f"workdir = {str(self.path)!r}"

    def _check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self._where}: is a file; must be a folder, or not there yet")
        names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        if _CONFIG in names:
            _check_same(self._where, read_config_values(self.path), to_dict(self.config))
        # A start that was killed leaves the lock and perhaps an unfinished configuration.
        elif any(name != _LOCK and not name.startswith(f".{_CONFIG}.") for name in names):
            raise ConfigError(
                f"{self._where}: holds files but no {_CONFIG}; must be empty or a run's"
            )


def read_config_values(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a run holds, with the settings that an earlier version did not have.

    Raises:
      ConfigError: no such folder or file, or not JSON.
    """
    path = folder / _CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"workdir = {str(folder)!r}: has no {_CONFIG}; must be the folder of a run"
        ) from None
    except (ValueError, NotADirectoryError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: must be the JSON of a configuration ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be the JSON of a configuration")
    return with_later_settings(values)


def read_config(folder: Path) -> AnyExperiment:
    """The experiment whose run is in ``folder``.

    Raises:
      ConfigError: as ``read_config_values``, or settings this version does not know.
    """
    return from_config_dict(read_config_values(folder))


def differing_settings(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Settings that make two experiments two: ``model.d_mem = 32 there, 16 here``.

    Args:
      stored: an experiment as ``to_dict`` gave it, perhaps by a version whose models had fewer
        settings: those have their defaults.
      wanted: another one, of this version.
    """
    groups = {"model": ModelConfig(), "tuning": TuningConfig()}
    usual = _flatten({name: dataclasses.asdict(group) for name, group in groups.items()})
    first, second = {**usual, **_flatten(stored)}, _flatten(wanted)
    return [
        f"{name} = {first.get(name)!r} there, {second.get(name)!r} here"
        for name in sorted(first.keys() | second.keys())
        if _plain(first.get(name)) != _plain(second.get(name)) and not _is_free(name)
    ]


def _plain(value: Any) -> Any:
    """JSON has lists only."""
    return list(value) if isinstance(value, tuple) else value


def _check_same(where: str, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = differing_settings(stored, wanted)
    if differing:
        more = len(differing) - _LISTED
        rest = [f"and {more} more"] if more > 0 else []
        raise ConfigError(
            f"{where}: holds another experiment: {'; '.join(differing[:_LISTED] + rest)}; "
            "must be the same, or choose another --workdir"
        )


def _is_free(name: str) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in _FREE)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
