"""The server of the mirror: declared files and parts of them, nothing else."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.artifacts.serve import make_server
from testbed.errors import DeepError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "mirror" / "tool" / "1.0"
    place.mkdir(parents=True)
    (place / "tool").write_bytes(CONTENT)
    (place / ".hidden").write_text("secret", encoding="utf-8")
    (tmp_path / "outside").write_text("secret", encoding="utf-8")
    return tmp_path / "mirror"


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with make_server(folder, "127.0.0.1", 0, quiet=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_file_is_served_whole(address: str) -> None:
    answer = httpx.get(f"{address}/tool/1.0/tool")
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_head_has_the_size_and_no_body(address: str) -> None:
    answer = httpx.head(f"{address}/tool/1.0/tool")
    assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, str(len(CONTENT)), b"")


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("bytes=0-9", CONTENT[:10]),
        ("bytes=100-", CONTENT[100:]),
        ("bytes=-7", CONTENT[-7:]),
        ("bytes=10239-99999", CONTENT[10239:]),
    ],
)
def test_part_is_served(address: str, span: str, expected: bytes) -> None:
    answer = httpx.get(f"{address}/tool/1.0/tool", headers={"Range": span})
    assert (answer.status_code, answer.content) == (206, expected)


@pytest.mark.parametrize("span", ["bytes=10240-", "bytes=20-10"])
def test_part_beyond_the_end_is_refused(address: str, span: str) -> None:
    answer = httpx.get(f"{address}/tool/1.0/tool", headers={"Range": span})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")


@pytest.mark.parametrize("span", ["bytes=-", "lines=1-2", "bytes=1-2,4-5"])
def test_unknown_range_gives_the_whole_file(address: str, span: str) -> None:
    assert httpx.get(f"{address}/tool/1.0/tool", headers={"Range": span}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tool",
        "/tool/",
        "/tool/1.0",
        "/tool/1.0/",
        "/tool/1.0/.hidden",
        "/tool/1.0/absent",
        "/../outside",
        "/tool/../../outside",
        "/tool/1.0/%2e%2e/%2e%2e/%2e%2e/outside",
        "/..%2foutside",
        "//etc/passwd",
        "/tool/1.0/tool%00",
        "/etc/passwd",
    ],
)
def test_nothing_else_is_served(address: str, path: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        # By hand, because clients tidy a path before they send it.
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"secret" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_reading_is_allowed(address: str, method: str) -> None:
    assert httpx.request(method, f"{address}/tool/1.0/tool").status_code == 501


def test_port_in_use_is_explained(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            DeepError, match=f"cannot serve on 127.0.0.1:{port}.*found: Address already in use"
        ) as failure:
            make_server(folder, "127.0.0.1", port)
    assert failure.value.exit_code == 2


@pytest.mark.parametrize("bind", ["localhost", "300.1.1.1", ""])
def test_bad_address_is_explained(folder: Path, bind: str) -> None:
    with pytest.raises(DeepError, match="needed: an IPv4 address"):
        make_server(folder, bind, 0)


def test_empty_store_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DeepError, match="no mirror at"):
        make_server(tmp_path / "absent", "127.0.0.1", 0)


def test_background_server_says_where_it_listens(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "testbed.artifacts.serve",
        "--folder",
        str(folder),
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert httpx.get(f"{address}/tool/1.0/tool").content == CONTENT
        process.terminate()
