"""What makes damage to a checkpoint visible: SHA-256 of its files and of its description."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


class DamagedError(Exception):
    """Files that are not what was saved; says which."""


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its path in it.

    Raises:
      DamagedError: a file cannot be read.
      PermissionError: it may not be read, which is no damage.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = _sha256(_read(path, f"{folder.name}/{name}"))
    return found


def check_digests(folder: Path, saved: dict[str, str]) -> None:
    """Raise ``DamagedError`` where a file is missing or differs from what ``digests`` said."""
    found = digests(folder)
    for name, digest in saved.items():
        if found.get(name) != digest:
            problem = "is not what was saved" if name in found else "is missing"
            raise DamagedError(f"{folder.name}/{name} {problem}")


def seal(content: dict[str, Any]) -> bytes:
    """``content`` as JSON beside its own digest."""
    text = json.dumps(content, sort_keys=True)
    return json.dumps({"digest": _sha256(text.encode()), "content": text}).encode()


def unseal(path: Path) -> dict[str, Any]:
    """What ``seal`` wrote.

    Raises:
      DamagedError: the file is missing, cannot be read or is not what was saved.
      PermissionError: it may not be read, which is no damage.
    """
    data = _read(path, path.name)
    try:
        stored = json.loads(data)
        text, digest = str(stored["content"]), stored["digest"]
        sound = _sha256(text.encode()) == digest
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedError(f"{path.name} cannot be read") from error
    if not sound:
        raise DamagedError(f"{path.name} is not what was saved")
    return json.loads(text)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        raise
    except OSError as error:
        raise DamagedError(f"{name} cannot be read: {error.strerror}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
