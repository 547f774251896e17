"""A language model behind an OpenAI-compatible chat endpoint (``POST BASE_URL/chat/completions``).

Every answer is kept on disk before the next question is asked, so whatever ends a run, the same
command goes on behind the last answer and pays for none twice. What may pass is tried again: 408,
409, 429, 5xx, no connection, no answer in time, an answer that is none. Waiting times double, with
jitter, and are never shorter than the endpoint's Retry-After. What will not pass (a wrong key, an
unknown model, a context that is too long, an empty account) ends the run with one line.

The key comes from an environment variable. It goes into the header of the request and nowhere else:
it is in no file, no message and no ``repr``, and redirects, which would carry it to another server,
are refused.
"""

from __future__ import annotations

import dataclasses
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from armt_jax.config import ConfigError
from armt_jax.evaluation.endpoint_cache import Completion, CompletionCache, Message
from armt_jax.evaluation.endpoint_http import EndpointError, PassingError, post_chat

# Longer than this nobody wants to sit and wait: the run ends and can be started again.
_MOST_WAITING = 600.0
_CHARACTERS_PER_TOKEN = 4


class BudgetReachedError(EndpointError):
    """The budget of a run is spent; all answers so far are kept."""


@dataclasses.dataclass
class Budget:
    """What one run may spend; None for no limit.

    Attributes:
      max_requests: requests sent, those tried again included.
      max_tokens: of prompts and answers, as the endpoint counts them. A request whose prompt alone
        (estimated, 4 characters a token) would exceed it is not sent.
      requests, tokens: spent so far.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}: must be at least 1")

    def check(self, expected_tokens: int) -> None:
        """Raise ``BudgetReachedError`` where another request of so many tokens is too much."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise BudgetReachedError(
                f"request budget of {self.max_requests} is spent; finished answers are kept, the "
                "same command goes on"
            )
        if self.max_tokens is not None and self.tokens + expected_tokens > self.max_tokens:
            raise BudgetReachedError(
                f"token budget of {self.max_tokens}: {self.tokens} are spent and the next question "
                f"has about {expected_tokens}; finished answers are kept, the same command goes on"
            )


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try.

    Attributes:
      timeout: seconds without a byte after which a request counts as lost.
      retries: further tries of a question after the first.
      first_wait, longest_wait: seconds between tries: doubling from the one up to the other, each
        times a random factor of 0.5 to 1.
    """

    timeout: float = 300.0
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ConfigError(f"timeout = {self.timeout}: must be above 0 seconds")
        if self.retries < 0:
            raise ConfigError(f"retries = {self.retries}: must be 0 or more")

    def wait(self, tries: int, retry_after: float, uniform: float) -> float:
        """Seconds before the next try after ``tries`` of them; ``uniform`` is from 0 to 1."""
        backoff = min(self.longest_wait, self.first_wait * 2.0 ** (tries - 1))
        return max(retry_after, 0.0) + backoff * (0.5 + 0.5 * uniform)


class ChatEndpoint:
    """One model of one endpoint, with its cache and its budget."""

    def __init__(
        self,
        base_url: str,
        model: str,
        parameters: Mapping[str, Any],
        cache: CompletionCache,
        *,
        key_variable: str = "OPENAI_API_KEY",
        patience: Patience | None = None,
        budget: Budget | None = None,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Looks at the settings; nothing is sent.

        Args:
          base_url: such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
          model: as the endpoint names it.
          parameters: further fields of the request: ``temperature``, ``max_tokens``, ...
          cache: where answers are kept.
          key_variable: environment variable of the key; where it is not set none is sent.
          patience, budget: None for the defaults.
          sleep, uniform: for tests.

        Raises:
          ConfigError: no http(s) address, no model, a key that no header can hold.
        """
        self.url = _chat_url(base_url)
        if not model:
            raise ConfigError("model = '': must be a name that the endpoint knows")
        for name in ("model", "messages", "stream"):
            if name in parameters:
                raise ConfigError(f"parameters = {dict(parameters)}: must not hold {name!r}")
        self.model, self.parameters, self.cache = model, dict(parameters), cache
        self.patience, self.budget = patience or Patience(), budget or Budget()
        self._key_variable = key_variable
        self._key = _key(key_variable)
        self._sleep, self._uniform = sleep, uniform

    def complete(self, messages: Sequence[Message]) -> Completion:
        """The answer to a conversation, from the cache or from the endpoint.

        Raises:
          BudgetReachedError: it is not in the cache, and the budget does not allow to ask.
          EndpointError: the endpoint refuses, or was tried often enough.
        """
        found = self.cache.get(self.model, messages, self.parameters)
        if found is not None:
            return found
        found = self._ask(messages)
        self.budget.tokens += found.tokens
        self.cache.put(self.model, messages, self.parameters, found)
        return found

    def _ask(self, messages: Sequence[Message]) -> Completion:
        content = [dict(message) for message in messages]
        body = {"model": self.model, "messages": content, **self.parameters}
        characters = sum(len(message["content"]) for message in messages)
        expected = characters // _CHARACTERS_PER_TOKEN
        tries = 0
        while True:
            self.budget.check(expected)
            self.budget.requests += 1
            tries += 1
            try:
                answer = post_chat(self.url, body, self._key, self.patience.timeout)
                break
            except PassingError as error:
                self._wait(tries, error)
            except EndpointError as error:
                unset = "" if self._key or not error.is_about_key else self._unset()
                raise EndpointError(f"{self.url}: {error}{unset}") from None
        prompt, completion = answer.prompt_tokens, answer.completion_tokens
        return Completion(
            text=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=expected if prompt is None else prompt,
            completion_tokens=(
                len(answer.text) // _CHARACTERS_PER_TOKEN if completion is None else completion
            ),
        )

    def _wait(self, tries: int, error: PassingError) -> None:
        if tries > self.patience.retries:
            often = "once" if tries == 1 else f"{tries} times"
            raise EndpointError(
                f"{self.url}: {error}; asked {often}; finished answers are kept, the same "
                "command goes on"
            ) from None
        seconds = self.patience.wait(tries, error.retry_after, self._uniform())
        if seconds > _MOST_WAITING:
            raise EndpointError(
                f"{self.url}: {error}; wants to be asked again in {error.retry_after:.0f} s; "
                "finished answers are kept, the same command goes on"
            ) from None
        print(
            f"{self.url}: {error}; again in {seconds:.1f} s ({tries} of {self.patience.retries})",
            file=sys.stderr,
            flush=True,
        )
        self._sleep(seconds)

    def _unset(self) -> str:
        return f" ({self._key_variable} is not set)"


def _chat_url(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url = {base_url!r}: must be such as https://api.openai.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url: must hold no user, password, query or fragment; a key belongs into an "
            "environment variable"
        )
    return base_url.rstrip("/") + "/chat/completions"


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    # Python's http client would show a key that it cannot send.
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(f"{variable}: must be printable ASCII without blanks")
    return key
