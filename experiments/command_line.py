"""The command line, with every complaint about it turned into one clear line.

ml_collections parses ``--config`` and ``--config.field=value`` and complains in several ways: a
traceback inside a message, a bare key, Python's opinion of a literal. So what can be wrong is
looked at first, and said in the words of ``ConfigError``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
from absl import app, flags

from armt_jax.config import ConfigError

_EXAMPLE = "must name a configuration file such as configs/ar_remember.py, :VARIANT after it if any"


def parse_flags(argv: Sequence[str], *, names: bool = False) -> list[str]:
    """Parse the flags of the command, and return what else it was given.

    Args:
      argv: the command and its arguments.
      names: whether it takes arguments that are no flags.

    Raises:
      ConfigError: one line.
      SystemExit: after ``--help``.
    """
    app.define_help_flags()  # app.run would, and prints tracebacks for what errors.run says
    pairs = list(_named_values(argv))
    for name, value in pairs:
        if name == "config":
            _check_overrides(load_config(value), pairs)
    try:
        rest = flags.FLAGS(list(argv))
        flags.FLAGS.validate_all_flags()
    except ConfigError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ConfigError(" ".join(str(error.args[0] if error.args else error).split())) from None
    if len(rest) > 1 and not names:
        raise ConfigError(
            f"argument {rest[1]!r}: is no flag; every setting is given as --name=value"
        )
    return rest[1:]


def load_config(path_and_variant: str) -> ml_collections.ConfigDict:
    """The configuration that ``configs/NAME.py:VARIANT`` names.

    Raises:
      ConfigError: no such file or variant, or a file that is no configuration.
    """
    name, *variant = path_and_variant.split(":", 1)
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"--config = {path_and_variant!r}: {_EXAMPLE}")
    spec = importlib.util.spec_from_file_location("_experiment_config", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config = {path_and_variant!r}: {_EXAMPLE}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise ConfigError(f"--config = {path_and_variant!r}: the file has no function get_config")
    config = get_config(*variant)
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"--config = {path_and_variant!r}: get_config must return a ConfigDict")
    return config


def _named_values(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``--name=value`` and ``--name value`` as pairs; a flag without a value has an empty one."""
    arguments = list(argv[1:])
    for index, argument in enumerate(arguments):
        if argument == "--":
            return
        if not argument.startswith("-"):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if not equals and index + 1 < len(arguments) and not arguments[index + 1].startswith("-"):
            value = arguments[index + 1]
        yield name, value


def _check_overrides(config: ml_collections.ConfigDict, pairs: Sequence[tuple[str, str]]) -> None:
    for name, value in pairs:
        if not name.startswith("config."):
            continue
        group, where = config, "config"
        *groups, field = name.removeprefix("config.").split(".")
        for key in groups:
            group = _member(group, where, key)
            where = f"{where}.{key}"
            if not isinstance(group, ml_collections.ConfigDict):
                raise ConfigError(f"{name} = {value!r}: {where} is a value, it has no fields")
        present = _member(group, where, field)
        if isinstance(present, ml_collections.ConfigDict):
            fields = ", ".join(f"{name}.{key}" for key in present)
            raise ConfigError(f"{name} = {value!r}: is a group of settings; give {fields}")
        _check_number(name, value, present)


def _member(group: ml_collections.ConfigDict, where: str, key: str) -> object:
    if key not in group:
        raise ConfigError(f"{where}.{key}: unknown key; {where} has {', '.join(group)}")
    return group[key]


def _check_number(name: str, value: str, present: object) -> None:
    kind = type(present)
    if kind not in (int, float):
        return
    try:
        kind(value)
    except ValueError:
        raise ConfigError(f"{name} = {value!r}: must be of type {kind.__name__}") from None


def numbers(name: str, text: str) -> tuple[int, ...]:
    """What ``--name=10,50,100`` holds.

    Raises:
      ConfigError: something that is no number of at least 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise ConfigError(f"--{name} = {text!r}: must be numbers of at least 1, such as 10,50,100")
    return tuple(int(part) for part in parts)
