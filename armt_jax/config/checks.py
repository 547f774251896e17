"""``ConfigError``, and the checks that raise it."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot be: one line naming the field, the value and what is accepted."""


def require(ok: bool, field: str, value: object, accepted: str) -> None:
    """Raise ``ConfigError`` unless ``ok``; ``accepted`` says what the value would have to be."""
    if not ok:
        raise ConfigError(f"{field} = {value!r}: {accepted}")


def one_of(field: str, value: object, options: tuple[str, ...]) -> None:
    """Raise ``ConfigError`` where ``value`` is none of ``options``."""
    require(value in options, field, value, f"must be one of {', '.join(options)}")


def positive(owner: object, prefix: str, *names: str) -> None:
    """Raise ``ConfigError`` where a named attribute of ``owner`` is below 1."""
    for name in names:
        value = getattr(owner, name)
        require(value >= 1, f"{prefix}.{name}", value, "must be at least 1")
