"""MariaDB, nginx and systemd hold what is rendered for a publisher's container; on sockets and the loopback address."""

from __future__ import annotations

import configparser
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.rendering import SiteVariables, role_path

COMMON = "deephdc.testbed.common"


def need(program: str) -> str:
    """The path of a program of the distribution that not every machine has."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not here; on Debian and Ubuntu fetch it: scripts/bootstrap.sh test")
    return path


def wait_until(happens: Callable[[], bool]) -> None:
    """Wait up to 20 s."""
    end = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < end, "nothing answers"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def shared(found: SiteVariables, variables: dict[str, Any], backend: str, template: str) -> str:
    """A template of role common, given what the tasks of a role's backend give it; ``variables`` are that role's."""
    folder = Path(variables["role_path"]) / "tasks" / backend
    tasks = [task for path in sorted(folder.glob("*.yml")) for task in found.trusted_yaml(path)]
    given = [
        task["vars"]
        for task in tasks
        if task.get("ansible.builtin.include_role", {}).get("name") == COMMON and "vars" in task
    ]
    more = {name: found.render(value, variables) for one in given for name, value in one.items()}
    common = found.variables(variables["inventory_hostname"], "common", more)
    return found.render_file(role_path("common") / "templates" / template, common)


# --- systemd ---


def service_of(unit: str) -> dict[str, str]:
    """The section [Service] of a unit's text."""
    read = configparser.RawConfigParser(strict=False)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(unit.replace("\\\n", " "))
    return dict(read["Service"])


def systemd_says(unit: str, folder: Path) -> list[str]:
    """What systemd finds wrong with a unit's text."""
    # Programs and services that this machine need not have.
    text = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", unit, flags=re.MULTILINE)
    path = folder / "checked.service"
    path.write_text(text.replace("mariadb.service", "network.target"))
    argv = [need("systemd-analyze"), "verify", "--man=no", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if path.name in line]


# --- MariaDB ---


@contextmanager
def mariadb_server(folder: Path, settings: Path | None = None) -> Iterator[list[str]]:
    """A MariaDB of its own with a file of settings, without a network; the client's command line."""
    server, install, client = need("mariadbd"), need("mariadb-install-db"), need("mariadb")
    base = Path(server).parent.parent
    user = f"--user={'root' if os.geteuid() == 0 else os.environ['USER']}"
    own = [f"--basedir={base}", f"--datadir={folder}/data", user]
    made = [install, "--no-defaults", *own, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True)
    read = f"--defaults-file={settings}" if settings else "--no-defaults"
    argv = [server, read, *own, "--skip-networking", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    found = [client, "--no-defaults", f"--socket={folder}/socket", "--user=root", "--batch", "--skip-column-names"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            ask_it = [*found, "-e", "SELECT 1"]
            wait_until(lambda: subprocess.run(ask_it, check=False, capture_output=True).returncode == 0)
            yield found
        finally:
            running.terminate()


def query(client: list[str], text: str) -> str:
    """What statements print, by a client's command line that may end with a database."""
    done = subprocess.run(client, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- nginx ---


class Behind(http.server.BaseHTTPRequestHandler):
    """Says which headers, which path and how much it got."""

    def do_GET(self) -> None:
        size = len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        got = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"path": self.path, "headers": got, "size": size}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 # the name that http.server asks for

    def log_message(self, *_args: Any) -> None:
        """Be silent."""


@contextmanager
def something_behind(port: int = 0) -> Iterator[int]:
    """A server that ``Behind`` describes; its port."""
    behind = http.server.ThreadingHTTPServer(("127.0.0.1", port), Behind)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    try:
        yield int(behind.server_address[1])
    finally:
        behind.shutdown()
        behind.server_close()


def certificate(folder: Path, name: str) -> None:
    """A certificate of its own, tls.crt and tls.key."""
    folder.mkdir(exist_ok=True)
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "1"]
    subprocess.run([*argv, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True)


@contextmanager
def nginx(folder: Path, site: str, port: int) -> Iterator[None]:
    """Nginx with the text of a site that listens on ``port`` of the loopback address."""
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind}_temp;" for kind in temporary)
    # As root nginx drops to a user of its own, which the test's folder is closed to.
    user = "user root;" if os.geteuid() == 0 else ""
    frame = f"{user} daemon off; pid {folder}/pid; error_log stderr; events {{}}"
    (folder / "nginx.conf").write_text(f"{frame} http {{ access_log off; {paths}\n{site}}}")
    command = [need("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
            yield
        finally:
            running.terminate()


def ask(port: int, path: str = "/", headers: dict[str, str] | None = None, body: bytes = b"") -> tuple[int, Any]:
    """Status and, where something behind has answered, what it got."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False  # nosemgrep: tls-not-verified # its own certificate
    trusting.verify_mode = ssl.CERT_NONE  # nosemgrep: tls-not-verified # made a moment ago
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=10)
    connection.request("POST" if body else "GET", path, body=body or None, headers=headers or {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if answer.status == 200 else text
