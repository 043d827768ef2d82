"""What an assessment looks for from outside: endpoints that let strangers in, and undeclared ways into a cluster."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.acceptance.probes import inlets, strangers
from tests.acceptance.probes.site import DECLARED

DECLARATIONS = yaml.safe_load(DECLARED.read_text(encoding="utf-8"))


class Service(http.server.BaseHTTPRequestHandler):
    """Open at ``/home``, where ``/`` leads; takes any token at ``/careless``; asks who it is everywhere else."""

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        statuses = {"/": 302, "/away": 302, "/home": 200, "/careless": 200 if token else 401}
        self.send_response(statuses.get(self.path, 401))
        if self.path in ("/", "/away"):
            self.send_header("Location", "/home" if self.path == "/" else "https://login.test/")
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


@contextmanager
def served(handler: Any) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def asked(url: str, *paths: str) -> list[strangers.Answered]:
    with strangers.stranger() as nobody:
        return list(strangers.ask(nobody, url, paths))


@pytest.mark.parametrize(
    ("public", "let_in"),
    [
        ([], ["/home (without a login and with a made-up token)", "/careless (with a made-up token)"]),
        (["/careless"], ["/home (without a login and with a made-up token)"]),
        (["/", "/home/*", "/careless"], ["/home (without a login and with a made-up token)"]),
        (["/*"], []),
    ],
)
def test_whoever_lets_strangers_in_undeclared_is_named(public: list[str], let_in: list[str]) -> None:
    with served(Service) as url:
        answers = asked(url, "/", "/careless", "/private", "/away")
    assert len(answers) == 8
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


def test_nothing_is_public_without_a_reason() -> None:
    entries = [{"port": [1, "2"], "paths": ["/a"], "public": {"/b": "anybody may"}}, {"port": 3, "public": {"/c": " "}}]
    assert strangers.declared_at(entries, 2) == (["/a"], {"/b": "anybody may"})
    assert strangers.declared_at(entries, 4) == ([], {})
    with pytest.raises(ValueError, match="port 3: public without a reason: /c"):
        strangers.declared_at(entries, 3)
    for group in (one for one in DECLARATIONS.values() if isinstance(one, dict)):
        for entry in group.get("http", []):
            assert all(isinstance(reason, str) and reason for reason in entry.get("public", {}).values()), entry


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
