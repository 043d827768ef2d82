"""Who may do what: the table of expected answers, requests that find out, and the report of both."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.acceptance.probes.cluster import pod

PERSONS = ("member", "reader", "outsider", "admin")
VALID, NONE = "valid", "none"
# What a token can be. Only a valid one says who somebody is.
STATES = (VALID, "expired", "other issuer", "other key", "other audience", "tampered group", NONE)
ALLOWED, CREATED, UPGRADED, UNKNOWN, FORBIDDEN = 200, 201, 101, 401, 403
# Action -> expected status for member, reader, outsider, admin. The outsider is a member of the other namespace.
EXPECTED: dict[str, tuple[int, int, int, int]] = {
    "list": (ALLOWED, ALLOWED, FORBIDDEN, ALLOWED),
    "create": (CREATED, FORBIDDEN, FORBIDDEN, CREATED),
    "exec over WebSocket": (UPGRADED, FORBIDDEN, FORBIDDEN, UPGRADED),
    "exec over SPDY": (UPGRADED, FORBIDDEN, FORBIDDEN, UPGRADED),
    "port-forward over WebSocket": (UPGRADED, FORBIDDEN, FORBIDDEN, UPGRADED),
    "port-forward over SPDY": (UPGRADED, FORBIDDEN, FORBIDDEN, UPGRADED),
    "logs": (ALLOWED, ALLOWED, FORBIDDEN, ALLOWED),
    "secrets": (ALLOWED, FORBIDDEN, FORBIDDEN, ALLOWED),
    "status": (FORBIDDEN, FORBIDDEN, FORBIDDEN, ALLOWED),
    "quota": (FORBIDDEN, FORBIDDEN, FORBIDDEN, CREATED),
    "rights": (FORBIDDEN, FORBIDDEN, FORBIDDEN, CREATED),
    "pod before all others": (FORBIDDEN, FORBIDDEN, FORBIDDEN, CREATED),
    "pod past the scheduler": (FORBIDDEN, FORBIDDEN, FORBIDDEN, CREATED),
    "pod on control planes": (FORBIDDEN, FORBIDDEN, FORBIDDEN, CREATED),
    "other namespace": (FORBIDDEN, FORBIDDEN, ALLOWED, ALLOWED),
    "nodes": (FORBIDDEN, FORBIDDEN, FORBIDDEN, ALLOWED),
}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "YWNjZXB0YW5jZS1jaGVjaw==",
}
SPDY = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
TIMEOUT = 20


class NoAnswerError(Exception):
    """The server answered, and not in HTTP."""


@dataclass(frozen=True)
class Request:
    """One request to the API server."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str = ""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    person: str
    token: str
    action: str
    expected: int
    seen: int | str = 0

    @property
    def ok(self) -> bool:
        """Whether the answer was the expected one."""
        return self.expected == self.seen

    def __str__(self) -> str:
        """The case for people."""
        return f"{self.person} with token {self.token}: {self.action} answered {self.seen}, not {self.expected}"

    def asked(self, api: ApiServer, request: Request, token: str) -> Case:
        """The case with what ``api`` answers, or with why it does not: no request may cost the others' answers."""
        try:
            return replace(self, seen=api.status(request, token))
        except (OSError, NoAnswerError) as error:
            return replace(self, seen=f"nothing ({type(error).__name__}: {error})")


def expected(person: str, state: str, action: str, stranger: int = UNKNOWN) -> int:
    """The status that the API server is to answer; ``stranger`` to a request without a token."""
    if state == NONE:
        return stranger
    return EXPECTED[action][PERSONS.index(person)] if state == VALID else UNKNOWN


def cases(stranger: int = UNKNOWN) -> Iterator[Case]:
    """Every person with every token and every action."""
    for person in PERSONS:
        for state in STATES:
            for action in EXPECTED:
                yield Case(person, state, action, expected(person, state, action, stranger))


def requests(namespace: str, other: str, target: str) -> dict[str, Request]:
    """The request of each action, about the pod ``target`` in ``namespace``; nothing that it asks for is kept."""
    inside = f"/api/v1/namespaces/{namespace}"
    run = f"{inside}/pods/{target}/exec?command=true&stdout=true"
    forward = f"{inside}/pods/{target}/portforward?ports=8080"
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    return {
        "list": _plain("GET", f"{inside}/pods"),
        "create": _plain("POST", f"{inside}/configmaps", _named("ConfigMap")),
        "exec over WebSocket": Request("GET", run, {**WEBSOCKET, "Sec-WebSocket-Protocol": "v5.channel.k8s.io"}),
        "exec over SPDY": Request("POST", run, {**SPDY, "X-Stream-Protocol-Version": "v4.channel.k8s.io"}),
        "port-forward over WebSocket": Request(
            "GET", forward, {**WEBSOCKET, "Sec-WebSocket-Protocol": "SPDY/3.1+portforward.k8s.io"}
        ),
        "port-forward over SPDY": Request("POST", forward, {**SPDY, "X-Stream-Protocol-Version": "portforward.k8s.io"}),
        "logs": _plain("GET", f"{inside}/pods/{target}/log"),
        "secrets": _plain("GET", f"{inside}/secrets"),
        "status": _plain("PATCH", f"{inside}/pods/{target}/status", {"status": {"message": "acceptance"}}),
        "quota": _plain("POST", f"{inside}/resourcequotas", _named("ResourceQuota")),
        "rights": _plain("POST", bindings, {**_named("RoleBinding"), "roleRef": role}),
        "pod before all others": _pod(inside, priorityClassName="system-node-critical"),
        "pod past the scheduler": _pod(inside, nodeName="node"),
        "pod on control planes": _pod(inside, tolerations=[{"operator": "Exists"}]),
        "other namespace": _plain("GET", f"/api/v1/namespaces/{other}/pods"),
        "nodes": _plain("GET", "/api/v1/nodes"),
    }


def _pod(inside: str, **asks: object) -> Request:
    manifest = pod("acceptance-authorisation", "acceptance", "true")
    return _plain("POST", f"{inside}/pods", {**manifest, "spec": {**manifest["spec"], "tolerations": [], **asks}})


def _named(kind: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "acceptance-authorisation"}}


def _plain(method: str, path: str, content: Mapping[str, Any] | None = None) -> Request:
    if content is None:
        return Request(method, path, {})
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    groups = "rbac.authorization.k8s.io/v1" if content.get("kind") == "RoleBinding" else "v1"
    body = json.dumps(content if method == "PATCH" else {"apiVersion": groups, **content})
    return Request(method, f"{path}?dryRun=All", {"Content-Type": kind}, body)


class ApiServer:
    """One API server at an address, under the name of its certificate; each request is a connection of its own."""

    def __init__(self, address: str, server: str, authority: str, name: str = "") -> None:
        parts = urlsplit(server)
        self._place = (address, parts.port or 443)
        self._name = name or str(parts.hostname)
        self._trust = ssl.create_default_context(cafile=authority)

    def status(self, request: Request, token: str) -> int:
        """The status that the server answers; 101 where it has accepted to change to another protocol."""
        headers = {"Host": self._name, "Connection": "close", **request.headers}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if request.method != "GET":
            headers["Content-Length"] = str(len(request.body))
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        with (
            socket.create_connection(self._place, timeout=TIMEOUT) as plain,
            self._trust.wrap_socket(plain, server_hostname=self._name) as secure,
        ):
            secure.sendall("\r\n".join([*lines, "", request.body]).encode())
            return _status(secure)


def _status(connection: ssl.SSLSocket) -> int:
    with connection.makefile("rb") as answer:
        line = answer.readline().decode(errors="replace").split()
    if len(line) < 2 or not line[1].isdigit():
        raise NoAnswerError(f"the API server did not answer in HTTP: {' '.join(line)!r}")
    return int(line[1])


def write_report(folder: Path, results: Sequence[Case], seconds: float) -> None:
    """Write authorisation.json and authorisation.md."""
    wrong = sum(not case.ok for case in results)
    content = {"cases": len(results), "mismatches": wrong, "seconds": round(seconds, 2)}
    rows = [{**asdict(case), "ok": case.ok} for case in results]
    (folder / "authorisation.json").write_text(json.dumps({**content, "table": rows}, indent=1) + "\n")
    (folder / "authorisation.md").write_text(markdown(results, seconds))


def markdown(results: Sequence[Case], seconds: float) -> str:
    """The table for people."""
    wrong = sum(not case.ok for case in results)
    lines = [
        "# Who may do what",
        "",
        f"{len(results)} cases in {seconds:.1f} s, {wrong} not as expected. What the API server answered:",
        "101 a connection was opened, 200 and 201 allowed, 401 not known, 403 refused.",
        "",
        "| Person | Token | Action | Expected | Seen | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.person} | {one.token} | {one.action} | {one.expected} | {one.seen} | {'' if one.ok else 'MISMATCH'} |"
        for one in results
    ]
    return "\n".join(lines) + "\n"
