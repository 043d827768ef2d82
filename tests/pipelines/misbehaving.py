"""Servers on loopback that do what a healthy one cannot be made to do: one answers as it is told, one is a proxy."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.unit import login_issuer

LOST, HELD = "lost", "held"


@dataclass(frozen=True)
class Request:
    line: str  # METHOD PATH
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered; nothing at all where the status is 0."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Stub:
    """Answers by ``METHOD PATH`` without the query, each once and the last one for ever; else 404."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[str]:
        return [one.line for one in self.asked]

    def answer(self, request: Request) -> Answer:
        left = self.answers.get(request.line.partition("?")[0], [Answer(404)])
        return left.pop(0) if len(left) > 1 else left[0]


@dataclass
class Proxy(Stub):
    """Asks ``server``, except for ``faults`` (pattern of ``METHOD PATH``, what happens), each for one request.

    What happens is a status, answered in place of the server; ``LOST``: the server does it, and its answer never
    arrives; ``HELD``: the server does it, and its answer waits for the end of the test.
    """

    server: str = ""
    faults: list[tuple[str, int | str]] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{super().url}{urlsplit(self.server).path}"

    def answer(self, request: Request) -> Answer:
        fault: int | str | None = None
        if self.faults and re.search(self.faults[0][0], request.line):
            fault = self.faults.pop(0)[1]
        if isinstance(fault, int):
            return Answer(fault, b"made up")
        answer = self.passed_on(request)
        if fault == HELD:
            self.holding.set()
            self.over.wait()
        return answer if fault is None else Answer(0)

    def passed_on(self, request: Request) -> Answer:
        method, path = request.line.split(" ", 1)
        upstream = HTTPConnection(urlsplit(self.server).netloc, timeout=120)
        try:
            upstream.request(method, path, request.body, request.headers)
            said = upstream.getresponse()
            return Answer(said.status, said.read(), dict(said.getheaders()))
        except (OSError, HTTPException):
            return Answer(503, b"nobody is there")  # as proxies say it
        finally:
            upstream.close()


@contextmanager
def listening[S: Stub](stub: S, context: ssl.SSLContext | None = None) -> Iterator[S]:
    """Let ``stub`` answer on a free port, over TLS where there is a context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(f"{self.command} {self.path}", dict(self.headers), body)
            stub.asked.append(request)
            said = stub.answer(request)
            if not said.status:
                return
            self.send_response(said.status)
            for name, value in said.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            self.wfile.write(said.body)

        do_POST = do_GET  # noqa: N815  # the name is the library's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
            pass

    with login_issuer.listening(Handler, context) as stub.port:
        try:
            yield stub
        finally:
            if isinstance(stub, Proxy):
                stub.over.set()
