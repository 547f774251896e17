"""Answers of an endpoint on disk: what was paid for once is not asked again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import atomic_write

Message = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Completion:
    """What an endpoint answered.

    Attributes:
      text: the message, as it came.
      finish_reason: why it ended: ``stop``, ``length``, ...; empty where the endpoint does not say.
      prompt_tokens, completion_tokens: by the endpoint's count, else estimated from characters.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


class CompletionCache:
    """A file for each answer, named by a hash of model, messages and parameters.

    The prompt itself is not stored (a context may have megabytes), nor anything of the connection.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Makes the folder.

        Raises:
          ConfigError: it cannot be made.
        """
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: must be a folder for answers ({error})") from error

    def get(
        self, model: str, messages: Sequence[Message], parameters: Mapping[str, Any]
    ) -> Completion | None:
        """The stored answer; None where there is none, or a damaged file (it is asked anew)."""
        try:
            content = json.loads(self._path(model, messages, parameters).read_bytes())
            found = Completion(**content["completion"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        whole = isinstance(found.text, str) and isinstance(found.finish_reason, str)
        counts = (found.prompt_tokens, found.completion_tokens)
        return found if whole and all(isinstance(count, int) for count in counts) else None

    def put(
        self,
        model: str,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        completion: Completion,
    ) -> None:
        """Store an answer, whole or not at all.

        Raises:
          OSError: the file cannot be written.
        """
        content = {
            "model": model,
            "parameters": dict(parameters),
            "completion": dataclasses.asdict(completion),
        }
        path = self._path(model, messages, parameters)
        atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())

    def _path(self, model: str, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Path:
        asked = [model, [dict(message) for message in messages], dict(parameters)]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest}.json"
