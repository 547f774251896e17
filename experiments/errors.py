"""How a command ends when something is wrong: one line on stderr and an exit code, no traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from armt_jax.config import ConfigError
from armt_jax.processes import (
    ElsewhereError,
    end_processes,
    give_way,
    is_agreed,
    is_main,
    process_count,
    process_index,
)
from armt_jax.training.checkpoints import CheckpointError
from armt_jax.training.divergence import NonFiniteError
from armt_jax.training.interruption import Interrupted

USER_ERROR = 2
FAILED = 1


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_os_error(error: OSError) -> str:
    """``runs/x: No space left on device``: the file first, no error number."""
    reason = error.strerror or str(error)
    name = error.filename
    return f"{os.fspath(name) if name is not None else 'file system'}: {reason}"


def complain(message: str) -> None:
    """One line on stderr."""
    where = f"process {process_index()}: " if process_count() > 1 and not is_main() else ""
    print(f"error: {where}{' '.join(message.split())}", file=sys.stderr, flush=True)


def run(command: Callable[[], None]) -> int:
    """Run a command and turn what a user can mend into one line.

    Of several processes those that stop because all do say nothing but in the first one. One that
    fails alone ends at once, and the others with it (``armt_jax.processes.Lifeline``).

    Returns:
      0; 2 for a wrong setting, file or folder; 1 where training diverged; 128 + signal where it
      was stopped. Anything else is a fault of the program and keeps its traceback.
    """
    agreed = False

    def watched() -> None:
        nonlocal agreed
        try:
            command()
            agreed = True
        except BaseException as error:
            agreed = is_agreed(error)
            if not agreed:
                give_way()
            raise

    try:
        code = _attempt(watched)
    except Exception:
        if process_count() == 1:
            raise
        traceback.print_exc()
        code = FAILED
    end_processes(code, agreed)
    return code


def _attempt(command: Callable[[], None]) -> int:
    try:
        command()
    except ElsewhereError:
        return USER_ERROR
    except (ConfigError, CheckpointError) as error:
        complain(one_line(error))
        return USER_ERROR
    except NonFiniteError as error:
        if is_main():
            complain(one_line(error))
        return FAILED
    except Interrupted as error:
        if is_main():
            print(f"{one_line(error)}, saved; the same command goes on from there", file=sys.stderr)
        return 128 + error.signal_number
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on from the last checkpoint")
        return 128 + signal.SIGINT
    except OSError as error:
        complain(describe_os_error(error))
        return USER_ERROR
    return 0
