"""Images are pushed when the registry lacks them, and only then; a registry that refuses is waited for no longer."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from plugins.modules.registry_images import Image, Registry, read_record, stale, wanted, write_record
from tests.unit.login_issuer import Authority

TOKEN = "Basic ZGVlcDpzZWNyZXQ="  # deep:secret


@pytest.fixture
def image(tmp_path: Path) -> Image:
    archive = tmp_path / "pause.tar"
    archive.write_bytes(b"archive")
    return Image("deephdc/pause", "3.10", archive)


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A registry without TLS that holds one image and knows one password."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            known = self.headers["Authorization"] == TOKEN
            found = self.path in ("/v2/", "/v2/deephdc/pause/manifests/3.10")
            self.send_response(401 if not known else 200 if found else 404)
            self.send_header("Docker-Content-Digest", "sha256:1")
            self.end_headers()

        do_GET = do_HEAD = answer  # noqa: N815 # names that the library asks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def registry(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    plain = urllib.request.Request

    def without_tls(url: str, **arguments: Any) -> Any:
        return plain(url.replace("https://", "http://"), **arguments)

    monkeypatch.setattr("plugins.modules.registry_images.urllib.request.Request", without_tls)
    monkeypatch.setattr("plugins.modules.registry_images.urllib.request.urlopen", _open)
    port = server.server_address[1]
    params = {"registry": f"127.0.0.1:{port}", "ca": None, "username": "deep", "password": "secret", "timeout": 2}
    return Registry(params, str(tmp_path))


def test_a_chain_without_its_root_is_believed(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    """A site's own certificate comes with what signed it, but seldom with the authority that every system knows."""
    server.socket = Authority().context("localhost", tmp_path).wrap_socket(server.socket, server_side=True)
    chain = tmp_path / "chain.pem"
    _, begin, rest = (tmp_path / "server.pem").read_text().partition("-----BEGIN CERTIFICATE")
    chain.write_text(begin + rest)
    params = {"registry": f"localhost:{server.server_address[1]}", "username": "deep", "password": "secret"}
    assert Registry({**params, "ca": str(chain)}, str(tmp_path)).request("")[0] == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        Registry({**params, "ca": None}, str(tmp_path)).request("")


def _open(request: Any, timeout: float, context: Any) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=timeout)


def pushed(image: Image, digest: str = "sha256:1") -> dict[str, Any]:
    return {image.reference: {"archive": image.fingerprint(), "digest": digest}}


def test_images_come_from_the_folder_into_the_namespace(tmp_path: Path) -> None:
    item = {"name": "pause", "tag": "3.10", "file": "pause.tar", "upstream": "example.test/pause"}
    images = wanted({"directory": str(tmp_path), "namespace": "deephdc", "images": [item]})
    assert images == [Image("deephdc/pause", "3.10", tmp_path / "pause.tar")]
    assert images[0].reference == "deephdc/pause:3.10"


def test_an_image_that_the_registry_holds_is_left_alone(image: Image) -> None:
    assert stale([image], pushed(image), {image.reference: "sha256:1"}) == []


@pytest.mark.parametrize("held", ["", "sha256:2"])
def test_an_image_that_is_missing_or_another_one_is_pushed(image: Image, held: str) -> None:
    assert stale([image], pushed(image), {image.reference: held}) == [image]


def test_an_image_without_a_record_is_pushed(image: Image) -> None:
    assert stale([image], {}, {image.reference: "sha256:1"}) == [image]


def test_a_new_archive_is_pushed(image: Image) -> None:
    record = pushed(image)
    image.archive.write_bytes(b"another archive")
    assert stale([image], record, {image.reference: "sha256:1"}) == [image]


def test_the_record_is_read_back(tmp_path: Path, image: Image) -> None:
    path = str(tmp_path / "folder" / "record.json")
    assert read_record(path) == {}
    write_record(path, pushed(image))
    assert read_record(path) == pushed(image)
    Path(path).write_text("{", encoding="utf-8")
    assert read_record(path) == {}


def test_the_registry_gives_the_digest_of_what_it_holds(registry: Registry, image: Image) -> None:
    assert registry.wait() == ""
    assert registry.digest(image) == "sha256:1"
    assert registry.digest(image._replace(tag="4")) == ""


def test_a_wrong_password_is_told_at_once(registry: Registry) -> None:
    registry.token = "bm9ib2R5"
    assert registry.wait() == "HTTP status 401"


def test_a_registry_that_does_not_answer_is_told(registry: Registry) -> None:
    registry.params["registry"] = "127.0.0.1:1"
    registry.params["timeout"] = 0
    assert "refused" in registry.wait()


def test_the_password_is_only_in_a_file_of_root(registry: Registry, tmp_path: Path) -> None:
    registry.login_file()
    file = tmp_path / "config.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["auths"][registry.params["registry"]]["auth"] == TOKEN.removeprefix("Basic ")


def test_what_crane_says_reaches_the_reader(
    registry: Registry, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "crane"
    program.write_text('#!/bin/sh\necho "$2 $3 $DOCKER_CONFIG" >&2\nexit 1\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = registry.push(image)
    assert said.startswith(f"{registry.params['registry']}/deephdc/pause:3.10: ")
    assert str(image.archive) in said
    assert str(tmp_path) in said
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    assert registry.push(image) == ""
