"""Who takes packages from a repository: a web server for it, and apt in folders of its own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

APT = """\
Dir "{folder}";
Dir::Etc::sourcelist "{folder}/deep.sources";
Dir::Etc::sourceparts "-";
Dir::Etc::trusted "-";
Dir::Etc::trustedparts "-";
Dir::State::status "{folder}/status";
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""
SOURCES = "Types: deb\nURIs: {url}\nSuites: base updates third-party\nComponents: main\nSigned-By: {key}\n"


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """A folder by http; its address."""
    with ThreadingHTTPServer((address, 0), partial(_Silent, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Apt:
    """apt-get as on a host that has nothing but this repository; it installs nothing on this machine."""

    def __init__(self, folder: Path, url: str, key: Path) -> None:
        self.folder = folder
        for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt/preferences.d"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "apt.conf").write_text(APT.format(folder=folder))
        (folder / "deep.sources").write_text(SOURCES.format(url=url, key=key))

    def __call__(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *words], cwd=self.folder, check=False,
            env={"APT_CONFIG": str(self.folder / "apt.conf"), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def update(self) -> subprocess.CompletedProcess[str]:
        return self("apt-get", "update", "--error-on=any")

    def offered(self, package: str) -> str:
        """The version that would be installed."""
        said = self("apt-cache", "policy", package).stdout
        return next((line.split()[1] for line in said.splitlines() if line.strip().startswith("Candidate:")), "")
