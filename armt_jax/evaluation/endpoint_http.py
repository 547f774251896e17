"""One request to a chat endpoint, and what its answer means."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from armt_jax.config import ConfigError

_PASSING = (408, 409, 425, 429)
# OpenAI's 429 for an account without money: waiting does not help.
_NO_MONEY = "insufficient_quota"
_MOST_BYTES = 16 * 2**20
_SHOWN = 200


class EndpointError(ConfigError):
    """The endpoint refuses, in one line; trying again does not help.

    Attributes:
      is_about_key: it said that the key is wrong or missing.
    """

    def __init__(self, message: str, is_about_key: bool = False) -> None:
        super().__init__(message)
        self.is_about_key = is_about_key


class PassingError(EndpointError):
    """Something that may be over at the next try; ``retry_after`` are seconds, 0 for unsaid."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ChatAnswer(NamedTuple):
    """The first choice of an answer; counts are None where the endpoint gives none."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


def post_chat(url: str, body: Mapping[str, Any], key: str, timeout: float) -> ChatAnswer:
    """Send one request.

    Args:
      url: of ``chat/completions``.
      body: the request.
      key: sent as a bearer token; empty for none.
      timeout: seconds without a byte.

    Raises:
      PassingError: worth another try.
      EndpointError: not worth one. No message has the key, even where the endpoint repeats it.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout) as response:
            content = response.read(_MOST_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, key) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise EndpointError(f"certificate is not trusted ({error.reason})") from None
        raise PassingError(_no_answer(error.reason, timeout)) from None
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(_no_answer(error, timeout)) from None
    return _answer(content, key)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to wherever it points."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        """None: the redirect becomes an ``HTTPError``."""
        return


def _no_answer(reason: object, timeout: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout:g} s"
    return f"no connection ({' '.join(str(reason).split()) or type(reason).__name__})"


def _refusal(error: urllib.error.HTTPError, key: str) -> EndpointError:
    try:
        content = error.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException):
        content = b""
    said, code = _complaint(content)
    message = _redacted(f"HTTP {error.code}" + (f": {said}" if said else ""), key)
    if (error.code in _PASSING or error.code >= 500) and code != _NO_MONEY:
        return PassingError(message, _retry_after(error.headers.get("Retry-After")))
    if 300 <= error.code < 400:
        return EndpointError(f"{message}; redirects are not followed, give the final address")
    return EndpointError(message, is_about_key=error.code in (401, 403))


def _complaint(content: bytes) -> tuple[str, str]:
    """What an error says, and its code if it has one."""
    try:
        error = json.loads(content)["error"]
        if isinstance(error, str):
            return error, ""
        return str(error.get("message", "")), str(error.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return content.decode(errors="replace"), ""


def _retry_after(value: str | None) -> float:
    """Seconds of the header, which has seconds or a date; 0 for none."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _answer(content: bytes, key: str) -> ChatAnswer:
    try:
        found = json.loads(content)
    except ValueError:
        shown = _redacted(content.decode(errors="replace"), key)
        raise PassingError(f"the answer is not JSON: {shown!r}") from None
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices:
        said = _redacted(_complaint(content)[0], key)
        raise PassingError(f"the answer has no choices: {said!r}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise PassingError("the answer has a choice without a message")
    reason = choice.get("finish_reason") or ""
    text = message.get("content") or message.get("refusal") or ""
    if not isinstance(text, str) or not isinstance(reason, str):
        raise PassingError("the answer's message is not text")
    # A filtered answer is one, and wrong; any other empty one is a fault.
    if not text.strip() and reason != "content_filter":
        raise PassingError(
            f"the answer is empty (finish_reason {reason!r})"
            + ("; more tokens for answers may help" if reason == "length" else "")
        )
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return ChatAnswer(
        text, reason, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _redacted(text: str, key: str) -> str:
    """The beginning of what a server said, in one line; the key goes before anything is cut."""
    text = " ".join(text.split())
    text = text.replace(key, "***") if key else text
    return text[:_SHOWN]
