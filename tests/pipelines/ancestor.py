"""Hudson, Jenkins' ancestor, on loopback: a real server for tests, which talk to its API. It is no Jenkins."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from testbed.artifacts import builders, engine
from testbed.artifacts.declaration import load_all
from testbed.artifacts.progress import Silent
from testbed.artifacts.store import Store
from testbed.paths import cache_dir

HERE = Path(__file__).parent
# Internals of Java that libraries of 2011 reach for.
OPENED = {
    "java.base": ("io", "lang", "lang.ref", "lang.reflect", "net", "text", "util", "util.concurrent"),
    "java.desktop": ("awt.font",),
}
CONFIGURATION = """\
<?xml version='1.0' encoding='UTF-8'?>
<hudson>
  <version>1.395</version>
  <numExecutors>2</numExecutors>
  <slaveAgentPort>-1</slaveAgentPort>
  <useSecurity>true</useSecurity>
  <authorizationStrategy class="hudson.security.GlobalMatrixAuthorizationStrategy">
    <permission>hudson.model.Hudson.Administer:admin</permission>
    <permission>hudson.model.Hudson.Read:reader</permission>
    <permission>hudson.model.Item.Read:reader</permission>
  </authorizationStrategy>
  <securityRealm class="hudson.security.HudsonPrivateSecurityRealm"><disableSignup>true</disableSignup></securityRealm>
  <crumbIssuer class="hudson.security.csrf.DefaultCrumbIssuer"/>
</hudson>
"""
USER = """\
<?xml version='1.0' encoding='UTF-8'?>
<user>
  <fullName>{name}</fullName>
  <properties>
    <hudson.security.HudsonPrivateSecurityRealm_-Details>
      <passwordHash>{salt}:{digest}</passwordHash>
    </hudson.security.HudsonPrivateSecurityRealm_-Details>
  </properties>
</user>
"""


def artefact(name: str) -> Path:
    """The one file of an artefact that is declared beside this module, fetched from the Maven repository once."""
    store, declarations = Store(cache_dir() / "test-servers"), load_all(HERE / "servers")
    engine.ensure([name], builders.context(store, declarations, Silent()))
    return store.file(name, declarations[name].files[0].name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Hudson:
    """A server with two users, of whom ``reader`` may change nothing; it asks for crumbs."""

    folder: Path
    port: int = field(default_factory=free_port)
    passwords: dict[str, str] = field(
        default_factory=lambda: {name: secrets.token_hex() for name in ("admin", "reader")}
    )
    running: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ci"

    def __enter__(self) -> Self:
        for name, password in self.passwords.items():
            salt = secrets.token_hex(4)
            digest = hashlib.sha256(f"{password}{{{salt}}}".encode()).hexdigest()
            file = self.home / "users" / name / "config.xml"
            file.parent.mkdir(parents=True)
            file.write_text(USER.format(name=name, salt=salt, digest=digest), encoding="utf-8")
        (self.home / "config.xml").write_text(CONFIGURATION, encoding="utf-8")
        try:
            self.start()
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; it answers later."""
        java = shutil.which("java")
        assert java, "Java comes with Maven: scripts/bootstrap.sh"
        words: list[str | Path] = [
            java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
            "-Dhudson.udp=0", "-Dhudson.DNSMultiCast.disabled=true",  # it need not be found by others
            f"-DHUDSON_HOME={self.home}", f"-Djava.io.tmpdir={self.folder}",
            *(f"--add-opens={one}/java.{name}=ALL-UNNAMED" for one, names in OPENED.items() for name in names),
            "-cp", artefact("hudson"), HERE / "Ancestor.java", f"--httpPort={self.port}",
            "--httpListenAddress=127.0.0.1", "--ajp13Port=-1", "--prefix=/ci", f"--webroot={self.folder}/war",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(  # pylint: disable=consider-using-with # stop() ends it
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + 600
        while True:
            log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
            assert self.running is not None
            assert self.running.poll() is None, log[-2000:]
            assert "Failed to initialize" not in log, log[-2000:]
            try:
                if httpx.get(f"{self.url}/login", timeout=60).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < until, log[-2000:]
            time.sleep(0.2)

    def stop(self) -> None:
        if self.running is not None:
            self.running.kill()  # it keeps nothing in memory that a test would miss
            self.running.wait()
            self.running = None
