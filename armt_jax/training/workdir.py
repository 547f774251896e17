"""The folder of a run: which experiment it belongs to, and that one process at a time uses it."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from armt_jax.config import ConfigError, ExperimentConfig, from_config_dict, to_dict
from armt_jax.evaluation.results import atomic_write

_LOCK = ".lock"
_CONFIG = "config.json"
# Settings that may differ when a run goes on: they change no number of its training.
_FREE = ("workdir", "evaluation", "train.data_workers")


class Workdir:
    """Context manager: the locked folder of one experiment.

    Attributes:
      path: of the folder.
      checkpoints: folder of the checkpoints in it.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.path = Path(config.workdir)
        self.checkpoints = self.path / "checkpoints"

    def __enter__(self) -> Workdir:
        """Make the folder or check whose it is.

        Raises:
          ConfigError: it is no folder, holds something else or another experiment, or is in use.
          OSError: it cannot be written.
        """
        where = f"workdir = {str(self.path)!r}"
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{where}: is a file; must be a folder, or not there yet")
        there = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        if there - {_LOCK} and _CONFIG not in there:
            raise ConfigError(f"{where}: holds files but no {_CONFIG}; must be empty or a run's")
        if _CONFIG in there:
            _check_same(where, read_config_values(self.path), to_dict(self.config))
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(f"{where}: another process is training there") from None
        content = json.dumps(to_dict(self.config), indent=1) + "\n"
        atomic_write(self.path / _CONFIG, content.encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()


def read_config_values(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a run holds.

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
    return values


def read_config(folder: Path) -> ExperimentConfig:
    """The experiment whose run is in ``folder``.

    Raises:
      ConfigError: as ``read_config_values``, or settings this version does not know.
    """
    return from_config_dict(read_config_values(folder))


def _check_same(where: str, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    first, second = _flatten(stored), _flatten(wanted)
    for name in sorted(first.keys() | second.keys()):
        free = any(name == entry or name.startswith(f"{entry}.") for entry in _FREE)
        if not free and first.get(name) != second.get(name):
            raise ConfigError(
                f"{where}: holds another experiment: {name} = {first.get(name)!r} there, "
                f"{second.get(name)!r} here; must be the same, or choose another --workdir"
            )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
