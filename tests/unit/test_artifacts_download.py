"""Downloads: continued, verified, retried, and explained when they fail."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from testbed.artifacts import download
from testbed.artifacts.declaration import Declaration, Upstream
from testbed.artifacts.download import Wanted, client, fetch
from testbed.errors import DeepError
from testbed.files import parse_checksums

CONTENT = b"0123456789" * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Site(ThreadingHTTPServer):
    """A small official site: ``files`` by path, with the misbehaviour a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.files: dict[str, bytes] = {"/tool": CONTENT}
        self.failures = 0
        self.cut_after: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class SiteHandler(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the library's name
        """Quiet."""

    def do_GET(self) -> None:
        span = self.headers.get("Range", "")
        self.server.asked.append((self.path, span))
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
        elif self.path not in self.server.files:
            self.send_error(404)
        else:
            self._send(self.server.files[self.path], span)

    def _send(self, content: bytes, span: str) -> None:
        first = int(span.removeprefix("bytes=").rstrip("-")) if span and self.server.ranges else 0
        if first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(content[first : first + cut] if cut else content[first:])


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(site: Site, folder: Path, path: str = "/tool", digest: str = DIGEST) -> Path:
    target = folder / "tool"
    with client() as http:
        fetch(
            Wanted(f"{site.url}{path}", digest, target), folder / "tool.part", lambda _done, _total: None, http, pause=0
        )
    return target


def test_file_arrives_and_no_part_is_left(site: Site, tmp_path: Path) -> None:
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert not (tmp_path / "tool.part").exists()


def test_a_redirection_away_from_https_is_not_followed() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://example.org/tool"})

    with client() as http:
        http._transport = httpx.MockTransport(answer)
        http._mounts = {}
        with pytest.raises(httpx.UnsupportedProtocol, match="needed an https address"):
            http.get("https://example.org/tool")
    assert asked == ["https://example.org/tool"]


def test_part_of_an_earlier_run_is_continued(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tool.part").write_bytes(CONTENT[:12345])
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == [("/tool", "bytes=12345-")]


def test_connection_cut_in_the_middle_is_continued(site: Site, tmp_path: Path) -> None:
    site.cut_after = 20000
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked[1][1].startswith("bytes="), "the second request asks for the rest only"


def test_damaged_part_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tool.part").write_bytes(b"x" * 12345)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert [span for _, span in site.asked] == ["bytes=12345-", ""]


def test_part_longer_than_the_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tool.part").write_bytes(CONTENT + b"more")
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_complete_part_is_used_without_its_content_being_sent_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tool.part").write_bytes(CONTENT)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_site_that_ignores_ranges_sends_all_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / "tool.part").write_bytes(CONTENT[:100])
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_busy_site_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.failures = 2
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_site_that_stays_busy_is_given_up(site: Site, tmp_path: Path) -> None:
    site.failures = 99
    with pytest.raises(DeepError, match="found: HTTP 503"):
        get(site, tmp_path)
    assert len(site.asked) == download.ATTEMPTS


def test_absent_file_is_not_asked_again(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DeepError, match=r"/absent \(found: HTTP 404"):
        get(site, tmp_path, "/absent")
    assert len(site.asked) == 1


def test_wrong_hash_names_both_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DeepError, match=f"found: sha256 {DIGEST}; needed: sha256 {'0' * 64}"):
        get(site, tmp_path, digest="0" * 64)
    assert not list(tmp_path.iterdir())


def test_unreachable_site_is_explained(tmp_path: Path) -> None:
    with client() as http, pytest.raises(DeepError, match="found: ConnectError"):
        fetch(
            Wanted("http://127.0.0.1:9/x", DIGEST, tmp_path / "x"),
            tmp_path / "p",
            lambda _done, _total: None,
            http,
            pause=0,
        )


def upstream(site: Site, **source: Any) -> Declaration:
    data = {
        "name": "tool", "version": "1.0", "licence": "MIT", "homepage": "https://example.org", "summary": "A tool",
        "files": [{"name": "tool"}, {"name": "toolctl"}],
        "sources": {"upstream": {"url": "https://example.org/x", "checksum_url": "https://example.org/y"}},
    }  # fmt: skip
    declaration = Declaration.model_validate(data)
    # A local site has no certificate, so the rule that addresses are HTTPS is passed by for the test.
    wanted = Upstream.model_construct(**{"checksum_url": None, "sha256": {}, "member": None, **source})
    return declaration.model_copy(update={"sources": declaration.sources.model_copy(update={"upstream": wanted})})


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        for name in ("tool", "toolctl"):
            info = tarfile.TarInfo(f"tool-1.0/bin/{name}")
            info.size = len(name)
            content.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


def fetch_all(item: Declaration, folder: Path) -> dict[str, Path]:
    (folder / "work").mkdir()
    return download.fetch_upstream(item, folder / "downloads", folder / "work", lambda _done, _total: None)


def test_archive_is_fetched_once_for_all_its_members(site: Site, tmp_path: Path) -> None:
    site.files = {"/tool-1.0.tar.gz": archive()}
    site.files["/SHA256SUMS"] = (
        f"{'1' * 64}  other\n{hashlib.sha256(archive()).hexdigest()}  tool-1.0.tar.gz\n".encode()
    )
    item = upstream(
        site,
        url=f"{site.url}/tool-{{version}}.tar.gz",
        checksum_url=f"{site.url}/SHA256SUMS",
        member="tool-{version}/bin/{file}",
    )
    made = fetch_all(item, tmp_path)
    assert {name: path.read_text(encoding="utf-8") for name, path in made.items()} == {
        "tool": "tool",
        "toolctl": "toolctl",
    }
    assert [path for path, _ in site.asked].count("/tool-1.0.tar.gz") == 1


def test_missing_member_is_explained(site: Site, tmp_path: Path) -> None:
    site.files = {"/t.tar.gz": archive()}
    item = upstream(
        site,
        url=f"{site.url}/t.tar.gz",
        sha256={"t.tar.gz": hashlib.sha256(archive()).hexdigest()},
        member="bin/{file}",
    )
    with pytest.raises(DeepError, match="needed: bin/tool"):
        fetch_all(item, tmp_path)


def test_single_files_with_a_bare_hash_beside_each(site: Site, tmp_path: Path) -> None:
    for name in ("tool", "toolctl"):
        site.files[f"/{name}"] = name.encode()
        site.files[f"/{name}.sha256"] = hashlib.sha256(name.encode()).hexdigest().encode()
    made = fetch_all(upstream(site, url=f"{site.url}/{{file}}", checksum_url=f"{site.url}/{{file}}.sha256"), tmp_path)
    assert made["toolctl"].read_text(encoding="utf-8") == "toolctl"


def test_checksum_file_without_the_name_is_explained(site: Site, tmp_path: Path) -> None:
    site.files["/SHA256SUMS"] = b"no hash here at all\n"
    with pytest.raises(DeepError, match="no checksum of tool in"):
        fetch_all(upstream(site, url=f"{site.url}/{{file}}", checksum_url=f"{site.url}/SHA256SUMS"), tmp_path)


def test_absent_checksum_file_is_explained(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DeepError, match=r"no checksum: .*absent \(found: Client error '404"):
        fetch_all(upstream(site, url=f"{site.url}/{{file}}", checksum_url=f"{site.url}/absent"), tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{DIGEST}\n", DIGEST),
        (f"{DIGEST.upper()}\n", DIGEST),
        (f"{DIGEST}  tool\n", DIGEST),
        (f"{DIGEST} *tool\n", DIGEST),
        (f"{DIGEST}  ./release/tool\n", DIGEST),
        (f"{DIGEST}  toolbox\n", None),
        ("", None),
    ],
)
def test_formats_of_checksum_files(text: str, expected: str | None) -> None:
    assert parse_checksums(text, "tool") == expected
