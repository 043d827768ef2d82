"""Images of a real registry, behind TLS and a password as a site's is, and how long they are believed."""

from __future__ import annotations

import base64
import http.client
import io
import json
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deep_cloud_info import glue, publish, registry
from deep_cloud_info.config import Configuration, Registry
from deep_cloud_info.errors import CloudInfoError
from deep_cloud_info.resources import Resources
from tests.services import kube_api

PASSWORD = "p" * 16


@dataclass(frozen=True)
class Running:
    """A registry: its address in clear, the one with TLS, and the folder with ``ca.crt``."""

    crane: Path
    clear: str
    address: str
    folder: Path

    def push(self, name: str) -> str:
        """Push an image that is an empty layer with a name in it; returns its digest."""
        layer = self.folder / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            archive.addfile(tarfile.TarInfo(name.replace("/", "-")), io.BytesIO())
        argv = [str(self.crane), "append", "--insecure", f"--new_layer={layer}", f"--new_tag={self.clear}/{name}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout.strip().rpartition("@")[2]

    def settings(self, **changed: Any) -> Registry:
        given = {
            "url": self.address, "ca_file": self.folder / "ca.crt", "username": "deep",
            "password_file": self.folder / "password",
        }  # fmt: skip
        return Registry.model_validate({**given, **changed})


def front(clear: str) -> type[BaseHTTPRequestHandler]:
    """What passes requests with the password on to the registry."""
    wanted = "Basic " + base64.b64encode(f"deep:{PASSWORD}".encode()).decode()

    class Front(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_error(http.client.UNAUTHORIZED)
                return
            with closing(http.client.HTTPConnection(clear)) as behind:
                behind.request(self.command, self.path, headers={"Accept": self.headers["Accept"]})
                answer = behind.getresponse()
                body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 # the library's name

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    return Front


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    if not (found := kube_api.store("crane", "crane")):
        pytest.skip("crane is not in the artefact store; build it: deep artifacts build crane")
    program = tmp_path / "crane"
    shutil.copyfile(found, program)
    program.chmod(0o755)
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "ca.crt")]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc"]
    subprocess.run([*new, *subject, *files], check=True, capture_output=True)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (port,) = kube_api.free_ports(1)
    clear = f"127.0.0.1:{port}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    with (
        kube_api.program(tmp_path, str(program), "registry", "serve", f"--address={clear}"),
        ThreadingHTTPServer(("127.0.0.1", 0), front(clear)) as server,
    ):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        deadline = time.monotonic() + 10
        while not answers(clear):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Running(program, clear, f"https://127.0.0.1:{server.server_port}", tmp_path)
        server.shutdown()


def answers(clear: str) -> bool:
    try:
        return httpx.get(f"http://{clear}/v2/").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def test_every_tag_is_listed_with_its_digest(running: Running) -> None:
    assert registry.images(running.settings()) == []
    pushed = {name: running.push(name) for name in ("deephdc/one:1", "deephdc/one:2", "other:latest", "third:1")}
    host = running.address.removeprefix("https://")
    found = {image.name: image.digest for image in registry.images(running.settings())}
    assert found == {f"{host}/{name}": digest for name, digest in pushed.items()}


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    """The registry above knows no pages; these are as the distribution's specification has them."""

    def answer(request: httpx.Request) -> httpx.Response:
        last = int(request.url.params.get("last", "0"))
        link = {"Link": f'</v2/_catalog?n=1&last={last + 1}>; rel="next"'} if last < 3 else {}
        return httpx.Response(200, json={"repositories": [str(last)]}, headers=link)

    with httpx.Client(base_url="https://registry.example", transport=httpx.MockTransport(answer)) as client:
        assert list(registry._listed(client, "/v2/_catalog", "repositories")) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"username": "x"}, "401"),
        ({"ca_file": None}, "CERTIFICATE_VERIFY"),
        (dict.fromkeys(["password_file"], "/none"), "password"),
    ],
)
def test_a_registry_that_does_not_let_us_in(running: Running, changed: dict[str, Any], what: str) -> None:
    with pytest.raises(CloudInfoError, match=what) as refused:
        registry.images(running.settings(**changed))
    assert PASSWORD not in str(refused.value)


def test_images_are_asked_for_now_and_then_and_kept_while_the_registry_is_away(running: Running) -> None:
    cluster = dict.fromkeys(("ca_file", "token_file"), "somewhere") | {"server": "https://api.example"}
    site = {
        "site": "here",
        "kubernetes": cluster,
        "registry": running.settings(refresh_seconds=60).model_dump(),
        "endpoints": [{"interface": "org.opencontainers.distribution", "url": running.address}],
    }
    path = running.folder / "here.json"

    def published(ago: timedelta = timedelta(), **changed: Any) -> tuple[list[str], str]:
        """Names that are published ``ago``, and the health of the registry's endpoint."""
        configuration = Configuration.model_validate({**site, **changed})
        writer = glue.Writer(configuration, datetime.now(UTC) - ago)
        made = writer.document(Resources("Kubernetes", "v1", []), publish.images(configuration, writer, path))
        path.write_text(json.dumps(made))
        names = [one["Name"].rpartition("/")[2] for one in made["CloudComputingImage"]]
        return names, made["CloudComputingEndpoint"][0]["HealthState"]

    running.push("one:1")
    assert published() == (["one:1"], "ok")
    running.push("two:1")
    assert published() == (["one:1"], "ok")
    path.unlink()
    assert published(timedelta(seconds=61)) == (["one:1", "two:1"], "ok")
    running.push("three:1")
    away = {**site["registry"], "password_file": running.folder / "ca.crt"}  # type: ignore[dict-item]
    assert published(registry=away) == (["one:1", "two:1"], "critical")
    assert published() == (["one:1", "three:1", "two:1"], "ok")
