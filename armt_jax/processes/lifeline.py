"""A connection of every process to the first one, which breaks when either of them dies.

A process that waits for a dead one in a sum over devices does not return to Python, and JAX's
heartbeats need a minute to notice. The kernel closes a dead process's connections at once, so a
thread that reads from them knows within milliseconds, says it in a line and ends its process.
Where no connection can be made, or a whole machine is gone, JAX's heartbeats remain.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable

from armt_jax.processes.together import broadcast, is_main, process_count, process_index, together

_CONNECT_SECONDS = 10
_WELCOME = b"+"
_FAILED = 1


class Lifeline:
    """Ends this process when another one dies, until ``release``."""

    def __init__(self, host: str | None, end: Callable[[str], None] | None = None) -> None:
        """Connect; all processes at the same place, after ``jax.distributed`` has started.

        Args:
          host: the machine of process 0, None: by the name it has for itself.
          end: called with what is to be said, instead of saying it and ending the process.
        """
        self._end = _end_process if end is None else end
        self._released = threading.Event()
        server = token = None
        address: tuple[str, int, str] | None = None
        with together():
            if is_main():
                server, token = socket.create_server(("", 0)), secrets.token_hex(16)
                address = (host or socket.gethostname(), server.getsockname()[1], token)
        name, port, token = broadcast(address)
        self._connections: dict[socket.socket, str] = {}
        if server is not None:
            with server:
                self._accept(server, token)
        else:
            self._connect(name, port, token)
        if self._connections:
            threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def release(self) -> None:
        """From now on other processes may end: the run is over."""
        self._released.set()

    def _accept(self, server: socket.socket, token: str) -> None:
        server.settimeout(_CONNECT_SECONDS)
        with contextlib.suppress(OSError):  # some did not come: JAX's heartbeats remain
            while len(self._connections) < process_count() - 1:
                connection, _ = server.accept()
                with contextlib.suppress(OSError):
                    connection.settimeout(_CONNECT_SECONDS)
                    said, _, index = connection.recv(100).decode(errors="replace").partition(" ")
                    if secrets.compare_digest(said.encode(), token.encode()):
                        connection.sendall(_WELCOME)
                        connection.settimeout(None)
                        self._connections[connection] = f"process {index}"
                        continue
                connection.close()

    def _connect(self, host: str, port: int, token: str) -> None:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host.strip("[]"), port), _CONNECT_SECONDS)
            connection.sendall(f"{token} {process_index()}".encode())
            if connection.recv(len(_WELCOME)) == _WELCOME:
                connection.settimeout(None)
                self._connections[connection] = "process 0"

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection, selectors.EVENT_READ)
            (key, _), *_ = selector.select()  # nothing is ever sent: it is the end of one
        if not self._released.is_set():
            name = self._connections[key.fileobj]  # pyright: ignore[reportArgumentType]
            self._end(f"{name} ended before the run did")


def _end_process(reason: str) -> None:
    text = f"error: {reason}; process {process_index()} stops; "
    print(
        f"{text}start all of them again and the run goes on from its last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(_FAILED)
