"""Jenkins' ancestor, on loopback: real servers for tests, which talk to its API. None of them is a Jenkins.

Hudson 1.395 is the last before the name Jenkins; Eclipse Hudson 3.3.2 is the last of those that kept the old name.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import socket
import subprocess
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

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
  <version>{version}</version>
  <numExecutors>2</numExecutors>
  {security}
  <crumbIssuer class="hudson.security.csrf.DefaultCrumbIssuer"/>
</hudson>
"""
SECURITY = """\
  <slaveAgentPort>-1</slaveAgentPort>
  <useSecurity>true</useSecurity>
  <authorizationStrategy class="hudson.security.GlobalMatrixAuthorizationStrategy">
    <permission>hudson.model.Hudson.Administer:admin</permission>
    <permission>hudson.model.Hudson.Read:reader</permission>
    <permission>hudson.model.Item.Read:reader</permission>
  </authorizationStrategy>
  <securityRealm class="hudson.security.HudsonPrivateSecurityRealm"><disableSignup>true</disableSignup></securityRealm>
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
# The filter that asks for crumbs, which the makers of Eclipse Hudson left out: their own pages sent none any more.
CRUMBS = """\
<web-app>
  <filter>
    <filter-name>crumbs</filter-name>
    <filter-class>hudson.security.csrf.CrumbFilter</filter-class>
  </filter>
  <filter-mapping><filter-name>crumbs</filter-name><url-pattern>/*</url-pattern></filter-mapping>
</web-app>
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

    name: ClassVar = "hudson"  # of its artefact
    version: ClassVar = "1.395"
    folder: Path
    port: int = field(default_factory=free_port)
    passwords: dict[str, str] = field(
        default_factory=lambda: {name: secrets.token_hex() for name in ("admin", "reader")}
    )
    # Of a port on which it would listen to all networks for those who look for servers; it goes on without.
    taken: socket.socket = field(default_factory=lambda: socket.socket(type=socket.SOCK_DGRAM))
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
        self.configure()
        try:
            self.taken.bind(("127.0.0.1", 0))
            self.start()
            self.wait()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop it for good."""
        self.stop()
        self.taken.close()

    def configure(self) -> None:
        """Write what it reads when it starts."""
        said = CONFIGURATION.format(version=self.version, security=SECURITY)
        (self.home / "config.xml").write_text(said, encoding="utf-8")

    def start(self) -> None:
        """Start it; it answers later."""
        java = shutil.which("java")
        assert java, "Java comes with Maven: scripts/bootstrap.sh"
        words: list[str | Path] = [
            java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
            f"-Dhudson.udp={self.taken.getsockname()[1]}", "-Dhudson.DNSMultiCast.disabled=true",
            f"-DHUDSON_HOME={self.home}", f"-Djava.io.tmpdir={self.folder}",
            *(f"--add-opens={one}/java.{name}=ALL-UNNAMED" for one, names in OPENED.items() for name in names),
            *self.program(),
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(  # pylint: disable=consider-using-with # stop() ends it
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

    def program(self) -> list[str | Path]:
        """What Java runs."""
        return [
            "-cp", artefact(self.name), HERE / "Ancestor.java", f"--httpPort={self.port}",
            "--httpListenAddress=127.0.0.1", "--ajp13Port=-1", "--prefix=/ci", f"--webroot={self.folder}/war",
        ]  # fmt: skip

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


class EclipseHudson(Hudson):
    """The same of a later version, which by its own listens everywhere, asks for plug-ins, and waits for a browser."""

    name = "eclipse-hudson"
    version = "3.3.2"

    def configure(self) -> None:
        said = CONFIGURATION.format(version=self.version, security="")
        (self.home / "config.xml").write_text(said, encoding="utf-8")
        said = f"<hudsonSecurityManager>{SECURITY}</hudsonSecurityManager>"
        (self.home / "hudson-security.xml").write_text(said, encoding="utf-8")
        (self.folder / "web.xml").write_text(CRUMBS, encoding="utf-8")
        (self.folder / "update-center.json").write_text('{"plugins": {}}', encoding="utf-8")
        with zipfile.ZipFile(artefact(self.name)) as war:
            war.extractall(self.folder, [name for name in war.namelist() if name.startswith("libs/")])

    def program(self) -> list[str | Path]:
        return [
            "-DskipInitSetup=true", f"-DupdateServer={self.folder.as_uri()}/", "-cp", self.folder / "libs/*",
            HERE / "Eclipse.java", artefact(self.name), str(self.port),
            self.folder,
        ]  # fmt: skip
