"""Serve the mirror to nodes: GET and HEAD of declared files, byte ranges, no listing, nothing outside."""

from __future__ import annotations

import argparse
import ipaddress
import re
import sys
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from urllib.parse import unquote, urlsplit

from testbed.errors import DeepError

RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
# NAME/VERSION/FILE, none of which may begin with a dot.
LOCATION = re.compile(r"^/(?P<path>(?:[A-Za-z0-9][A-Za-z0-9._+~-]*/){2}[A-Za-z0-9][A-Za-z0-9._+-]*)$")
BLOCK = 1 << 20
IDLE_SECONDS = 60


class Handler(BaseHTTPRequestHandler):
    """Answers requests for files of the mirror below ``folder``."""

    protocol_version = "HTTP/1.1"
    server_version = "deep-artifacts"
    sys_version = ""
    timeout = IDLE_SECONDS

    def __init__(self, *arguments: Any, folder: Path, quiet: bool) -> None:
        self.folder = folder
        self.quiet = quiet
        super().__init__(*arguments)

    def do_GET(self) -> None:  # pylint: disable=invalid-name # the library's
        """Send a file or a part of it."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:  # pylint: disable=invalid-name # the library's
        """Send the headers of a file."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # pylint: disable=redefined-builtin # the library's
        """Log a request on stderr, unless quiet."""
        if not self.quiet:
            super().log_message(format, *args)

    def _answer(self, with_body: bool) -> None:
        path = self._locate()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as content:
            size = path.stat().st_size
            span = self._span(size)
            if span is None:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
                return
            first, end = span
            partial_content = end - first != size
            self.send_response(HTTPStatus.PARTIAL_CONTENT if partial_content else HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - first))
            if partial_content:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            self.end_headers()
            if with_body:
                content.seek(first)
                self._send(content, first, end, size)

    def _send(self, content: Any, first: int, end: int, size: int) -> None:
        if (first, end) == (0, size):
            copyfileobj(content, self.wfile, BLOCK)
            return
        left = end - first
        while left and (block := content.read(min(BLOCK, left))):
            self.wfile.write(block)
            left -= len(block)

    def _locate(self) -> Path | None:
        match = LOCATION.match(unquote(urlsplit(self.path).path))
        path = self.folder / match["path"] if match else None
        return path if path is not None and path.is_file() else None

    def _span(self, size: int) -> tuple[int, int] | None:
        """First byte and end of what is asked for; the whole file without a usable Range header."""
        match = RANGE.match(self.headers.get("Range", ""))
        if match is None or match.groups() == ("", ""):
            return 0, size
        first, last = match.groups()
        if not first:
            return max(0, size - int(last)), size
        end = min(size, int(last) + 1) if last else size
        return (int(first), end) if int(first) < end else None

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Server(ThreadingHTTPServer):
    """One thread per connection; nodes keep theirs open."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server; anything else is shown."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def make_server(folder: Path, bind: str, port: int, *, quiet: bool = False) -> Server:
    """A server bound to ``bind``:``port`` (0: any free port), not yet serving.

    Raises ``DeepError`` for a bad address, a port in use and a folder that is no mirror.
    """
    try:
        ipaddress.IPv4Address(bind)
    except ValueError as failure:
        raise DeepError(
            "cannot serve on this address", found=bind, needed="an IPv4 address of this host", next_step="give --bind"
        ) from failure
    if not folder.is_dir():
        raise DeepError(f"no mirror at {folder}", needed="a filled store", next_step="run 'deep artifacts build'")
    try:
        return Server((bind, port), partial(Handler, folder=folder, quiet=quiet))
    except OSError as failure:
        raise DeepError(
            f"cannot serve on {bind}:{port}",
            found=failure.strerror or str(failure),
            needed="an address of this host and a free port",
            next_step=f"see who has it: ss -ltnp 'sport = :{port}', or choose another --port",
        ) from failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until ended: the light-weight form that a testbed starts in the background."""
    parser = argparse.ArgumentParser(prog="python -m testbed.artifacts.serve", description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        with make_server(options.folder, options.bind, options.port) as server:
            print(f"http://{options.bind}:{server.server_port}", flush=True)
            server.serve_forever()
    except DeepError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
