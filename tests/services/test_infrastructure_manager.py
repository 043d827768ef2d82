"""The real Infrastructure Manager behind our guard: who comes in, where it goes, what it keeps."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import yaml

from deep_infrastructure_manager import settings
from testbed.artifacts import python_packages
from testbed.artifacts.declaration import PythonBuild, load_all
from testbed.paths import cache_dir, repo_root
from tests.unit.login_issuer import Authority, Issuer, serving

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TYPES = repo_root() / "services/tosca/deep_tosca/types.yaml"
HOST = "localhost"
RADL = "system front ()\ndeploy front 1\n"


def template(**parts: Any) -> str:
    node = {"type": "tosca.nodes.Compute"}
    return yaml.safe_dump(
        {
            "tosca_definitions_version": "tosca_simple_yaml_1_0",
            "topology_template": {"node_templates": {"front": node}},
            **parts,
        }
    )


@dataclass
class People(Issuer):
    """An issuer that knows the tokens that it has given; they are signed by nobody, as IM asks the issuer."""

    def token(self, *groups: str, known: bool = True, **claims: Any) -> str:
        said = {
            "iss": self.url, "sub": "1", "aud": ["kubernetes", "im"], "exp": int(time.time()) + 60,
            "groups": list(groups), "preferred_username": "somebody", "jti": str(uuid4()), **claims,
        }  # fmt: skip
        token = jwt.encode(said, "x" * 32)
        if known:
            self.usable[token] = "somebody"
        return token

    def answer(self, what: str, fields: dict[str, str], bearer: str) -> tuple[int, dict[str, Any]]:
        status, said = super().answer(what, fields, bearer)
        if what == "openid-configuration":
            said["introspection_endpoint"] = f"{self.url}/introspection"
        return status, said


@dataclass
class Manager:
    """A running Infrastructure Manager, and how to ask it."""

    url: str
    authority: Path
    folder: Path
    log: Path

    @property
    def database(self) -> Path:
        return self.folder / "infrastructures.sqlite"

    def ask(self, method: str, path: str, *lines: str, content: str = "", kind: str = "text/plain") -> httpx.Response:
        authorisation = {"Authorization": "\\n".join(lines)} if lines else {}
        context = ssl.create_default_context(cafile=self.authority)
        with httpx.Client(verify=context, base_url=self.url, timeout=20, trust_env=False) as client:
            return client.request(method, path, headers={"Content-Type": kind, **authorisation}, content=content)


def im_line(token: str) -> str:
    return f"id = im; type = InfrastructureManager; token = {token}"


@pytest.fixture(scope="session")
def program() -> Path:
    """The packages of the artefact, for the Python of the tests; made once for these pins."""
    build = load_all()["infrastructure-manager"].sources.build
    assert isinstance(build, PythonBuild)
    pins = python_packages.requirements_file(build, repo_root()).read_bytes()
    kept = cache_dir() / "tests" / f"infrastructure-manager-{VERSION}-{hashlib.sha256(pins).hexdigest()[:16]}"
    if not kept.is_dir():
        made = kept.with_name(f"{kept.name}.{os.getpid()}")
        subprocess.run(python_packages.command(build, repo_root(), VERSION, made), check=True)
        subprocess.run([sys.executable, "-m", "compileall", "-q", made], check=False, stdout=subprocess.DEVNULL)
        made.rename(kept)
    return kept


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(folder: Path, port: int, issuer: str, sites: list[dict[str, str]], **own: str) -> Path:
    """Write IM's configuration, as the role does."""
    folder.mkdir(parents=True, exist_ok=True)
    config = ConfigParser(interpolation=None)
    config.optionxform = str  # type: ignore[assignment,method-assign]
    config["im"] = {
        "REST_ADDRESS": "127.0.0.1", "REST_PORT": str(port), "REST_SSL": "True",
        "REST_SSL_KEYFILE": str(folder / "server.pem"), "REST_SSL_CERTFILE": str(folder / "server.pem"),
        "REST_SSL_CA_CERTS": str(folder / "ca.crt"), "DATA_DB": f"sqlite://{folder}/infrastructures.sqlite",
        "OIDC_ISSUERS": issuer, "OIDC_AUDIENCE": "im", "FORCE_OIDC_AUTH": "True", "VERIFI_SSL": "True",
        "LOG_FILE": str(folder / "im.log"), "LOG_LEVEL": "INFO",
    }  # fmt: skip
    config["deep"] = {
        "groups": json.dumps(["imaging", "climate"]), "sites": json.dumps(sites), "tosca_types": str(TYPES), **own,
    }  # fmt: skip
    with (folder / "im.cfg").open("w", encoding="utf-8") as sink:
        config.write(sink)
    return folder / "im.cfg"


def _wait(manager: Manager, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if manager.ask("GET", "/version").status_code == 200:
                return
        except httpx.HTTPError:
            assert child.poll() is None, manager.log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, manager.log.read_text(encoding="utf-8")
            time.sleep(0.1)


@contextmanager
def running(program: Path, folder: Path, authority: Authority, issuer: str) -> Iterator[Manager]:
    """IM on a free port, killed at the end; it trusts ``authority`` and may use the site without a cloud."""
    port = free_port()
    configuration = configure(folder, port, issuer, [{"type": "Dummy"}])
    authority.context(HOST, folder)
    (folder / "ca.crt").write_bytes(authority.pem)
    manager = Manager(f"https://{HOST}:{port}", folder / "ca.crt", folder, folder / "output.log")
    with manager.log.open("a", encoding="utf-8") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "deep_infrastructure_manager", configuration],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"], "HOME": str(folder), "REQUESTS_CA_BUNDLE": str(folder / "ca.crt"),
                "PYTHONPATH": f"{program}:{repo_root()}/services/infrastructure_manager",
            },
            stdout=sink,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait(manager, child)
        yield manager
    finally:
        child.kill()
        child.wait()


@pytest.fixture(scope="module")
def people(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    issuer = People(HOST)
    with serving(issuer, authority.context(HOST, tmp_path_factory.mktemp("issuer"))):
        yield issuer


@pytest.fixture(scope="module")
def manager(
    program: Path, authority: Authority, people: People, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Manager]:
    with running(program, tmp_path_factory.mktemp("manager"), authority, people.url) as started:
        yield started


@pytest.fixture
def passer_by() -> Iterator[tuple[int, list[str]]]:
    """A port that nobody has business at, and who came."""
    visitors: list[str] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def wait() -> None:
            while True:
                try:
                    visitor, address = server.accept()
                except OSError:
                    return
                visitors.append(str(address))
                visitor.close()

        threading.Thread(target=wait, daemon=True).start()
        yield int(server.getsockname()[1]), visitors
        server.shutdown(socket.SHUT_RDWR)


# Who comes in


def test_it_is_the_version_that_the_guard_is_written_for(manager: Manager) -> None:
    assert manager.ask("GET", "/version").text == "2.0.0"


def test_a_member_of_one_organisation_comes_in_with_a_token_for_several_services(
    manager: Manager, people: People
) -> None:
    assert manager.ask("GET", "/infrastructures", im_line(people.token("imaging", "others"))).status_code == 200
    assert manager.ask("GET", "/infrastructures", im_line(people.token("climate", aud="im"))).status_code == 200


@pytest.mark.parametrize(
    ("why", "claims"),
    [
        ("Audience", {"aud": ["kubernetes", "orchestrator"]}),
        ("Audience", {"aud": "image"}),
        ("Audience", {"aud": None}),
        ("Issuer not accepted", {"iss": "https://localhost/elsewhere"}),
        ("Token expired", {"exp": 1}),
        ("needed one of climate, imaging", {"groups": ["outsiders"]}),
        ("needed one of climate, imaging", {"groups": []}),
        ("needed one of climate, imaging", {"groups": "imaging"}),
        ("invalid_token", {"known": False}),
    ],
)
def test_nobody_else_comes_in(manager: Manager, people: People, why: str, claims: dict[str, Any]) -> None:
    refused = manager.ask(
        "GET", "/infrastructures", im_line(people.token("imaging", **{"groups": ["imaging"]} | claims))
    )
    assert refused.status_code == 401, refused.text
    assert why in refused.text


def test_nobody_comes_in_without_a_token(manager: Manager) -> None:
    named = "id = im; type = InfrastructureManager; username = somebody; password = something"
    assert manager.ask("GET", "/infrastructures").status_code == 401
    assert manager.ask("GET", "/infrastructures", named).status_code == 401
    assert manager.ask("GET", "/infrastructures", im_line("no.token.at-all")).status_code in {400, 401}


def test_an_issuer_that_cannot_prove_who_it_is_is_asked_nothing(
    program: Path, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "impostor").mkdir()
    impostor = People(HOST)
    with serving(impostor, Authority().context(HOST, tmp_path / "impostor")):
        with running(program, tmp_path / "manager", authority, impostor.url) as started:
            refused = started.ask("GET", "/infrastructures", im_line(impostor.token("imaging")))
        assert refused.status_code == 401, refused.text
        assert not impostor.hosts, "it was asked, though its certificate is not trusted"


# Where it goes


def test_credentials_are_sent_to_the_sites_of_the_configuration_only(
    manager: Manager, people: People, passer_by: tuple[int, list[str]]
) -> None:
    port, visitors = passer_by
    site = f"id = k; type = Kubernetes; host = http://127.0.0.1:{port}; token = secret"
    refused = manager.ask("POST", "/infrastructures", im_line(people.token("imaging")), site, content=RADL)
    assert refused.status_code == 401
    assert f"found Kubernetes http://127.0.0.1:{port}, needed one of Dummy" in refused.text
    vault = f"id = v; type = Vault; host = http://127.0.0.1:{port}; token = secret"
    assert manager.ask("GET", "/infrastructures", im_line(people.token("imaging")), vault).status_code == 401
    assert not visitors


@pytest.mark.parametrize(
    "wanted",
    [
        "http://127.0.0.1:{port}/types.yaml",
        {"file": "http://127.0.0.1:{port}/types.yaml"},
        {"file": "/etc/hostname"},
        {"template_file": "http://127.0.0.1:{port}/types.yaml"},
        {"file": str(TYPES), "repository": "there"},
    ],
)
def test_no_import_is_fetched(
    manager: Manager, people: People, passer_by: tuple[int, list[str]], wanted: str | dict[str, str]
) -> None:
    port, visitors = passer_by
    text = template(imports=[wanted], repositories={"there": {"url": f"http://127.0.0.1:{port}/"}})
    text = text.replace("{port}", str(port))
    refused = manager.ask("POST", "/infrastructures", im_line(people.token("imaging")), content=text, kind="text/yaml")
    assert refused.status_code == 400
    assert "imports are not fetched" in refused.text
    assert not visitors


def test_no_script_is_fetched(manager: Manager, people: People, passer_by: tuple[int, list[str]]) -> None:
    port, visitors = passer_by
    create = {"Standard": {"create": f"http://127.0.0.1:{port}/script.yaml"}}
    front = {"type": "tosca.nodes.Compute"}
    tool = {"type": "tosca.nodes.SoftwareComponent", "requirements": [{"host": "front"}], "interfaces": create}
    text = template(topology_template={"node_templates": {"front": front, "tool": tool}})
    refused = manager.ask("POST", "/infrastructures", im_line(people.token("imaging")), content=text, kind="text/yaml")
    assert refused.status_code == 400
    assert "scripts and models are not fetched" in refused.text
    assert not visitors


def test_a_template_of_somebody_who_does_not_come_in_is_not_read(manager: Manager, people: People) -> None:
    text = template(imports=["/etc/hostname"])
    for line in (im_line(people.token("outsiders")), im_line(people.token("imaging", known=False))):
        refused = manager.ask("POST", "/infrastructures", line, content=text, kind="text/yaml")
        assert refused.status_code == 401, refused.text
        assert "imports" not in refused.text


def test_the_types_of_the_site_can_be_imported(manager: Manager, people: People) -> None:
    text = template(imports=[str(TYPES)])
    line = im_line(people.token("imaging"))
    made = manager.ask("POST", "/infrastructures", line, "id = d; type = Dummy", content=text, kind="text/yaml")
    assert made.status_code == 200, made.text
    place = f"/infrastructures/{made.headers['InfID']}"
    assert manager.ask("DELETE", place, line, "id = d; type = Dummy").status_code == 200


# What it keeps


def rows(manager: Manager) -> int:
    with closing(sqlite3.connect(manager.database)) as database:
        return int(database.execute("SELECT count(*) FROM inf_list").fetchone()[0])


def test_nothing_stays_of_what_was_destroyed(manager: Manager, people: People) -> None:
    token = people.token("imaging")
    lines = (im_line(token), "id = d; type = Dummy")
    made = manager.ask("POST", "/infrastructures", *lines, content=RADL)
    assert made.status_code == 200, made.text
    assert rows(manager) == 1
    assert token.encode() in manager.database.read_bytes(), "what is looked for below is really there before"
    place = f"/infrastructures/{made.headers['InfID']}"
    other = im_line(people.token("climate", sub="2", preferred_username="other"))
    assert manager.ask("DELETE", place, *lines).status_code == 200
    assert rows(manager) == 0
    assert token.encode() not in manager.database.read_bytes()
    assert manager.ask("GET", place, *lines).status_code == 404
    assert manager.ask("GET", place, other).status_code == 404
    for path in (path for path in manager.folder.rglob("*") if path.is_file()):
        assert token.encode() not in path.read_bytes(), path.name


def test_what_still_writes_brings_back_nothing_that_was_destroyed(manager: Manager, people: People) -> None:
    """Threads of IM save an infrastructure on their own; one that had read it before must not write it after."""
    lines = (im_line(people.token("imaging")), "id = d; type = Dummy")

    def make_and_destroy(_: int) -> None:
        made = manager.ask("POST", "/infrastructures", *lines, content=RADL)
        destroyed = manager.ask("DELETE", f"/infrastructures/{made.headers['InfID']}", *lines)
        assert destroyed.status_code == 200, destroyed.text

    with ThreadPoolExecutor(4) as at_once:
        list(at_once.map(make_and_destroy, range(40)))
    assert rows(manager) == 0


def test_what_is_marked_as_destroyed_goes_at_the_start(
    program: Path, authority: Authority, people: People, tmp_path: Path
) -> None:
    with running(program, tmp_path / "manager", authority, people.url) as started:
        database = sqlite3.connect(started.database)
        database.execute("DROP TRIGGER purge")
        database.execute("INSERT INTO inf_list VALUES ('a', 1, '', '', 'token-of-old'), ('b', 0, '', '', '')")
        database.commit()
        database.close()
    with running(program, tmp_path / "manager", authority, people.url) as started:
        assert rows(started) == 1
        assert b"token-of-old" not in started.database.read_bytes()


# What it begins with


@pytest.mark.parametrize(
    ("section", "option", "value", "found"),
    [
        ("deep", "groups", "[]", "[deep] groups: nobody may use this"),
        ("deep", "groups", "imaging", "[deep] groups is not understood (found imaging, needed a list in JSON)"),
        ("deep", "sites", "{}", "[deep] sites is not understood"),
        ("im", "FORCE_OIDC_AUTH", "False", "[im] FORCE_OIDC_AUTH (found it off, needed True)"),
        ("im", "VERIFI_SSL", "False", "[im] VERIFI_SSL (found it off, needed True)"),
        (
            "im",
            "OIDC_ISSUERS",
            "http://localhost",
            "[im] OIDC_ISSUERS (found http://localhost, needed https addresses)",
        ),
        ("im", "OIDC_ISSUERS", "", "[im] OIDC_ISSUERS (found none"),
        ("im", "OIDC_AUDIENCE", "", "[im] OIDC_AUDIENCE (found none"),
        ("im", "OIDC_GROUPS", "imaging", "[im] OIDC_GROUPS asks for all groups"),
    ],
)
def test_a_configuration_that_lets_in_too_much_is_refused(
    tmp_path: Path, section: str, option: str, value: str, found: str
) -> None:
    file = configure(tmp_path, 1, "https://localhost", [])
    config = ConfigParser(interpolation=None)
    config.read(file)
    assert settings.read(config).groups == {"imaging", "climate"}
    config[section][option] = value
    with pytest.raises(settings.SettingsError) as refused:
        settings.read(config)
    assert found in str(refused.value)


def test_addresses_are_compared_without_the_slash_at_their_end(tmp_path: Path) -> None:
    config = ConfigParser(interpolation=None)
    config.read(configure(tmp_path, 1, "https://localhost", [{"type": "Kubernetes", "host": "https://api:6443/"}]))
    assert settings.read(config).sites == {("Kubernetes", "https://api:6443")}
