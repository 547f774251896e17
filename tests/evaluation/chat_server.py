"""A chat endpoint on this machine that does what a list of replies says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclasses.dataclass
class Reply:
    """Status, body and headers; ``seconds`` are waited before."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def said(text: str | None, reason: str = "stop", **usage: int) -> Reply:
    """A good answer."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    content: dict[str, Any] = {"choices": [choice]}
    if usage:
        content["usage"] = usage
    return Reply(body=json.dumps(content).encode())


@dataclasses.dataclass
class ChatServer:
    """What was asked, and what is answered: replies in turn, the last one for ever."""

    replies: list[Reply]
    url: str = ""
    requests: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    headers: list[dict[str, str]] = dataclasses.field(default_factory=list)
    paths: list[str] = dataclasses.field(default_factory=list)
    think: Callable[[dict[str, Any]], Reply] | None = None

    def reply(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """The reply to one request, which is remembered."""
        self.paths.append(path)
        self.headers.append(headers)
        self.requests.append(json.loads(body))
        if self.think is not None:
            return self.think(self.requests[-1])
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextlib.contextmanager
def chat_server(*replies: Reply) -> Iterator[ChatServer]:
    """The server, until the end of the block."""
    server = ChatServer(list(replies))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = server.reply(self.path, dict(self.headers), body)
            time.sleep(reply.seconds)
            with contextlib.suppress(OSError):  # who asked may not have waited
                self.send_response(reply.status)
                length = {"Content-Length": str(len(reply.body))}
                for name, value in (length | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
