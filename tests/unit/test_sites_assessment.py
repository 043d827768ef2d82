"""What an assessment looks for from outside: endpoints that let strangers in, and undeclared ways into a cluster."""

from __future__ import annotations

import http.server
import re
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import jwt
import pytest
import yaml
from kubernetes import client

from tests.acceptance.probes import declarations, endpoints, exposure, inlets, strangers
from tests.acceptance.probes.site import DECLARED, Site
from tests.unit.login_issuer import Authority

DECLARATIONS = yaml.safe_load(DECLARED.read_text(encoding="utf-8"))


ISSUER = "https://iam.test/realms/deep"
WAYS = strangers.logins(ISSUER)


class Service(http.server.BaseHTTPRequestHandler):
    """Open at ``/home``, where ``/`` leads; takes any token at ``/careless``; asks who it is everywhere else.

    ``/names`` looks at nothing but who a token says has issued it, ``/unsigned`` lets the token say that nobody has
    signed it.
    """

    def do_GET(self) -> None:
        statuses = {"/": 302, "/away": 302, "/home": 200, **self.careless()}
        self.answer(statuses.get(self.path, 401), {"/": "/home", "/away": "https://login.test/"}.get(self.path))

    def careless(self) -> dict[str, int]:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
            unsigned = jwt.get_unverified_header(token)["alg"] == "none"
        except jwt.InvalidTokenError:
            issuer, unsigned = "", False
        taken = {"/careless": bool(token), "/names": issuer == ISSUER, "/unsigned": unsigned}
        return {path: 200 if taken else 401 for path, taken in taken.items()}

    def answer(self, status: int, location: str | None = None) -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base class names it
        pass


class Mute(socketserver.BaseRequestHandler):
    """Speaks something else than HTTP."""

    def handle(self) -> None:
        self.request.sendall(b"+OK ready\r\n")


class OnceOnly(Service):
    """Answers one request, and is broken afterwards."""

    answered = False

    def do_GET(self) -> None:
        if not type(self).answered:
            super().do_GET()
        type(self).answered = True


def always(status: int) -> type[Service]:
    """Answers everything with the same status."""

    class Always(Service):
        def do_GET(self) -> None:
            self.answer(status)

    return Always


class Canonical(Service):
    """Open to everybody, by its name; leads there whoever asks by address."""

    def do_GET(self) -> None:
        name = f"portal.test:{self.connection.getsockname()[1]}"
        here = self.headers["Host"] == name and getattr(self.connection, "asked_for", "portal.test") == "portal.test"
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        self.answer(200 if here else 301, f"{scheme}://{name}{self.path}")


class Slow(Service):
    """Open to everybody who waits."""

    def do_GET(self) -> None:
        time.sleep(1)
        self.answer(200)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer paths, and servers that are near."""
    monkeypatch.setattr(strangers, "PATHS", ("/", "/metrics"))
    monkeypatch.setattr(exposure, "BANNER_TIMEOUT", 0.1)


@contextmanager
def served(handler: Any, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler, bind_and_activate=False) as running:
        running.daemon_threads = True
        running.server_bind()
        running.server_activate()
        if tls:
            # The handshake is made by the thread that serves the connection.
            running.socket = tls.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """TLS of a server, which notes the name by which each client asks for it."""
    context = Authority().context("portal.test", tmp_path)
    context.sni_callback = lambda connection, asked_for, _: setattr(connection, "asked_for", asked_for)
    return context


@dataclass
class Host:
    """A host of a site whose only address is the loopback one, with these ports and declarations."""

    urls: Sequence[str]
    http: Sequence[Mapping[str, Any]] = ()
    listeners: Sequence[Mapping[str, Any]] = ()

    def host(self, _: str) -> Any:
        return self

    def run(self, _: str) -> Any:
        lines = [f'tcp LISTEN 0 9 0.0.0.0:{port(url)} 0.0.0.0:* users:(("web",pid=1,fd=3))' for url in self.urls]
        return type("Result", (), {"rc": 0, "stdout": "\n".join(lines)})

    def address(self, _: str) -> str:
        return "127.0.0.1"

    def has(self, *_: str) -> bool:
        return False

    def declared_for(self, _: str, kind: str) -> Sequence[Mapping[str, Any]]:
        return {"http": self.http, "listeners": self.listeners}[kind]


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def asked(url: str, *paths: str) -> list[strangers.Answered]:
    with strangers.stranger() as nobody:
        return list(strangers.ask(nobody, url, paths, WAYS))


def complaint(host: Host) -> str:
    """What an assessment says of a host; nothing where it passes."""
    site = cast(Site, host)
    return "; ".join(endpoints.open_or_unknown(site, "node1", list(endpoints.of_host(site, "node1"))))


OWN, NOBODY = "with a token that it signed itself", "with an unsigned token"
HOME = f"/home (without a login and with a made-up token and {OWN} and {NOBODY})"
CARELESS = f"/careless (with a made-up token and {OWN} and {NOBODY})"
NAMES, UNSIGNED = f"/names ({OWN} and {NOBODY})", f"/unsigned ({NOBODY})"


@pytest.mark.parametrize(
    ("public", "let_in"),
    [
        ([], [HOME, CARELESS, NAMES, UNSIGNED]),
        (["/careless"], [HOME, NAMES, UNSIGNED]),
        (["/", "/home/*", "/careless"], [HOME, NAMES, UNSIGNED]),
        (["/*"], []),
    ],
)
def test_whoever_lets_strangers_in_undeclared_is_named(public: list[str], let_in: list[str]) -> None:
    with served(Service) as url:
        answers = asked(url, "/", "/careless", "/names", "/unsigned", "/private", "/away")
    assert len(answers) == 6 * 4
    assert strangers.open_to_strangers(answers, public) == let_in


def test_a_public_path_is_public_as_far_as_its_slashes() -> None:
    answers = [strangers.Answered("/realms/deep/users", "without a login", 200)]
    assert strangers.open_to_strangers(answers, ["/realms/*"])
    assert not strangers.open_to_strangers(answers, ["/realms/*/users"])


def test_what_does_not_speak_http_gives_no_answer() -> None:
    with served(Mute) as url:
        assert asked(url, "/", "/api") == []


def test_an_endpoint_that_stops_answering_is_no_pass() -> None:
    with served(OnceOnly) as url, pytest.raises(AssertionError, match="nothing is known of it"):
        asked(url, "/private", "/api")


def test_an_endpoint_that_refuses_nothing_but_is_broken_is_no_pass() -> None:
    with ExitStack() as running:
        urls = {running.enter_context(served(always(status))): status for status in (400, 421, 500, 502, 503)}
        said = complaint(Host(list(urls)))
    for url, status in urls.items():
        assert f"node1:{port(url)} (web): answers {status} everywhere, so nothing is known" in said


def test_an_endpoint_that_asks_who_it_is_passes() -> None:
    with ExitStack() as running:
        urls = [running.enter_context(served(always(status))) for status in (401, 403, 404, 405)]
        assert complaint(Host(urls, [{"port": [port(url) for url in urls], "paths": ["/private"]}])) == ""


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_endpoint_is_asked_by_the_name_that_it_gives_itself(tls: ssl.SSLContext, encrypted: bool) -> None:
    with served(Canonical, tls if encrypted else None) as url:
        assert "open to anybody: / (without a login" in complaint(Host([url]))
        assert complaint(Host([url], [{"port": port(url), "public": {"/": "a page", "/*": "its pages"}}])) == ""


def test_an_endpoint_without_an_answer_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "TIMEOUT", 0.3)
    with served(Slow) as slow, served(Mute) as mute:
        said = complaint(Host([slow, mute]))
        for url in (slow, mute):
            assert f"node1:{port(url)} (web): gives no answer in HTTP, so nothing is known" in said
        other = [{"port": [port(slow), port(mute)], "width": "host", "not_http": "of another protocol"}]
        assert complaint(Host([slow, mute], listeners=other)) == ""
        other[0]["not_http"] = " "
        with pytest.raises(ValueError, match="not_http: without a reason"):
            complaint(Host([slow, mute], listeners=other))


def test_an_endpoint_that_asks_for_a_certificate_asks_who_it_is(tls: ssl.SSLContext) -> None:
    tls.verify_mode = ssl.CERT_REQUIRED
    with served(always(200), tls) as url:
        assert complaint(Host([url])) == ""
    tls.verify_mode = ssl.CERT_OPTIONAL
    with served(always(200), tls) as url:
        assert "open to anybody" in complaint(Host([url]))


def test_a_declared_endpoint_has_to_be_there() -> None:
    with served(always(401)) as url:
        declared = [{"port": [port(url), 9]}]
        assert "node1:9 is declared to speak HTTP, but is not there for others" in complaint(Host([url], declared))


def test_what_cannot_be_reached_is_named() -> None:
    with served(always(401)) as url:
        pass
    said = complaint(Host([url]))
    assert f"node1:{port(url)} (web): 127.0.0.1:{port(url)} cannot be reached from here" in said


def test_an_address_of_ipv6_has_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "speaks", lambda *_: "tls")
    found = endpoints.Endpoint("node1", "fd00::1", 8443, "web").url
    assert (found, httpx.URL(found).port) == ("https://[fd00::1]:8443", 8443)


def test_a_port_has_the_paths_and_reasons_of_its_entries() -> None:
    entries = declarations.read(
        declarations.Http, "http", [{"port": [1, "2"], "paths": ["/a"], "public": {"/b": "anybody may"}}, {"port": 3}]
    )
    assert strangers.declared_at(entries, 2) == (["/a"], {"/b": "anybody may"})
    assert strangers.declared_at(entries, 4) == ([], {})
    for group in (one for one in DECLARATIONS.values() if isinstance(one, dict)):
        declarations.read(declarations.Http, "http", [{**entry, "port": 1} for entry in group.get("http", [])])


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({"paths": ["/a"]}, "port: is missing"),
        ({"port": 3, "public": {"/c": " "}}, "public./c: without a reason"),
        ({"port": 3, "public": {"/c": None}}, "public./c: found nothing, needed a text"),
        ({"port": 3, "public": ["/x"]}, "public: found a list, needed keys with values"),
        ({"port": 3, "public": {"*": "all"}}, "found '*', needed a path that begins with \"/\""),
        ({"port": 3, "paths": "/x"}, "paths: found '/x', needed a list"),
        ({"port": 3, "paths": ["x"]}, "found 'x', needed a path"),
        ({"port": 3, "path": ["/x"]}, "path: there is no such key, needed one of: paths, port, public"),
    ],
)
def test_a_declaration_that_says_something_else_is_refused(entry: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)) as refused:
        declarations.read(declarations.Http, "http", [entry])
    assert str(refused.value).startswith("declared_http, or http in tests/acceptance/declared.yml: ")


def _service(name: str, **spec: Any) -> Any:
    ports = [client.V1ServicePort(port=80, node_port=spec.pop("node_port", None))]
    return client.V1Service(metadata=_named(name), spec=client.V1ServiceSpec(ports=ports, **spec))


def _pod(name: str, *, init: bool = False, host_port: int | None = None, **spec: Any) -> Any:
    container = client.V1Container(name="c", ports=[client.V1ContainerPort(container_port=80, host_port=host_port)])
    plain = client.V1Container(name="c")
    made = client.V1PodSpec(
        containers=[plain if init else container], init_containers=[container] if init else None, node_name="n", **spec
    )
    return client.V1Pod(metadata=_named(name), spec=made)


def _named(name: str) -> Any:
    return client.V1ObjectMeta(namespace="ns", name=name)


def test_every_way_into_a_cluster_is_seen() -> None:
    services = [
        _service("inside", type="ClusterIP"),
        _service("node", type="NodePort", node_port=30080),
        _service("external", type="ClusterIP", external_ips=["192.0.2.1"]),
        _service("balanced", type="LoadBalancer", node_port=30081, health_check_node_port=30082),
    ]
    assert [(one.name, one.port) for one in inlets.of_services(services)] == [
        ("node", 30080), ("external", 80), ("balanced", 30081), ("balanced", 80), ("balanced", 30082),
    ]  # fmt: skip
    pods = [
        _pod("inside"), _pod("port", host_port=8080), _pod("init", init=True, host_port=8081),
        _pod("host", host_network=True, host_port=80),
    ]  # fmt: skip
    assert [(one.name, one.port) for one in inlets.of_pods(pods)] == [
        ("port", 8080), ("init", 8081), ("host", inlets.HOST_NETWORK),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "covered"),
    [
        ({}, True), ({"name": "web-*"}, True), ({"port": [1, "30080"]}, True), ({"name": "web"}, False),
        ({"namespace": "other"}, False), ({"kind": "Pod"}, False), ({"port": 80}, False),
        ({"port": inlets.HOST_NETWORK}, False),
    ],
)  # fmt: skip
def test_a_declaration_covers_no_more_than_it_names(change: dict[str, Any], covered: bool) -> None:
    found = list(inlets.of_services([_service("web-1", type="NodePort", node_port=30080)]))
    entry = {"kind": "Service", "namespace": "ns", "name": "web-1", "port": 30080, **change}
    extra = inlets.undeclared(found, [entry])
    assert (extra == []) is covered
    assert all("Service ns/web-1: NodePort port 30080" in str(one) for one in extra)


@pytest.mark.parametrize("lacking", ["kind", "namespace", "name", "port"])
def test_an_inlet_that_is_half_declared_is_refused(lacking: str) -> None:
    entry = {"kind": "Service", "namespace": "ns", "name": "web-1", "port": 30080}
    del entry[lacking]
    with pytest.raises(ValueError, match=f"declared_inlets.*: {lacking}: is missing"):
        inlets.undeclared([], [entry])
