"""The REST interface: through orpy as people use it, and by hand for what orpy does not say."""

from __future__ import annotations

import base64
import hmac
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import jwt
import pytest
import sqlalchemy as sa
import uvicorn
from cryptography.hazmat.primitives import serialization
from dbos import DBOSClient
from orpy import exceptions
from orpy.client.client import OrpyClient
from sqlalchemy.orm import Session

from deep_orchestrator import settings, store
from deep_orchestrator.api import LONGEST_REQUEST, Service, application
from deep_orchestrator.callbacks import Callbacks
from deep_orchestrator.delegation import Delegate, Grant
from deep_orchestrator.identity import Door, Issuer
from deep_orchestrator.selection import Agreement, Ask, Offer
from deep_orchestrator.sites import NullSite, SiteError
from deep_orchestrator.steps import Limits, Steps
from deep_orchestrator.store import Deployment, Json, Status
from deep_orchestrator.worker import working
from deep_orchestrator.workflows import TELLING, Deployer
from tests.services.crashing_worker import wait_for
from tests.services.signing_issuer import SigningIssuer, elliptic_key, other_key
from tests.unit.login_issuer import Authority, listening, serving

TEMPLATE = """\
tosca_definitions_version: tosca_simple_yaml_1_0
topology_template:
  node_templates:
    module:
      type: tosca.nodes.Container.Application.Docker
      requirements: [{host: runtime}]
    runtime: {type: tosca.nodes.Container.Runtime.Docker}
"""
ADMINISTRATORS = "administrators"


class Site(NullSite):
    """A site that wants a token of the owner for everything; it keeps those that it got."""

    delegate: Delegate
    tokens: list[str]

    def create(self, deployment: str, template: str, parameters: Json) -> str:
        self.tokens.append(self.delegate.token(deployment))
        return super().create(deployment, template, parameters)


@dataclass
class Running:
    """A service that runs, its issuer, and who it believes."""

    url: str
    service: Service
    issuer: SigningIssuer
    signer: Authority
    authority: Path
    site: Site

    def http(self, *who: str, **claims: Any) -> httpx.Client:
        """A client, with the token of a person (name, groups) if one is named."""
        headers = {"Authorization": f"Bearer {self.issuer.token(*who, **claims)}"} if who else {}
        verify = ssl.create_default_context(cafile=self.authority)
        return httpx.Client(base_url=self.url, headers=headers, verify=verify, timeout=20)

    def orpy(self, person: str, *groups: str) -> OrpyClient:
        return OrpyClient(self.url, token=self.issuer.token(person, *groups))

    def settled(self, uuid: str) -> Deployment:
        def get() -> Deployment:
            with Session(self.service.engine) as session:
                return store.get(session, uuid)

        wait_for(lambda: not get().status.in_progress, f"{uuid} is settled")
        return get()


class Receiver(BaseHTTPRequestHandler):
    """Takes callbacks; of the first one it says that it cannot."""

    got: ClassVar[list[Json]] = []

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(503 if len(self.got) == 1 else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        pass


@contextmanager
def receiving(authority: Authority, folder: Path) -> Iterator[str]:
    """The address of a receiver."""
    Receiver.got.clear()
    with listening(Receiver, context(authority, folder)) as port:
        yield f"https://localhost:{port}/done"


def check(deployment: Deployment) -> None:
    if "wrong" in deployment.template:
        raise ValueError("input cpus: found -1, needed a positive number")


def context(authority: Authority, folder: Path) -> ssl.SSLContext:
    return authority.context("localhost", folder)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, no_deployer: None) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("api")
    authority = Authority()
    trusted = folder / "ca.pem"
    trusted.write_bytes(authority.pem)
    (folder / "issuer").mkdir()
    (folder / "service").mkdir()
    context(authority, folder / "service")
    with serving(SigningIssuer("localhost"), context(authority, folder / "issuer")) as issuer:
        yield from serve(folder, authority, trusted, issuer)


def serve(folder: Path, signer: Authority, trusted: Path, issuer: SigningIssuer) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        said = settings.Settings.model_validate(
            {
                "database": f"sqlite:///{folder}/orchestrator.sqlite", "executor": "one",
                "url": f"https://localhost:{port}", "certificate": folder / "service/server.pem",
                "key": folder / "service/server.pem", "callback_hosts": ["localhost"],
                "identity": {
                    "issuer": issuer.url, "authority": trusted, "administrators": ADMINISTRATORS,
                    "organisations": [
                        {"name": "imaging", "members": ["imaging"], "readers": ["imaging-readers"]},
                        {"name": "climate", "members": ["climate"]},
                    ],
                },
                "delegation": {
                    "client_id": "orchestrator", "client_secret": issuer.secret, "scopes": ["openid", "im"],
                    "secret": "0123456789" * 4,
                },
            }
        )  # fmt: skip
        engine = store.engine(said.database)
        known = Issuer(said.identity)
        assert said.delegation is not None
        delegate = Delegate(engine, known, said.delegation)
        site = Site(folder / "site")
        site.delegate, site.tokens = delegate, []
        offer = Offer(site="here", agreements={"imaging": Agreement(), "climate": Agreement()})
        callbacks = Callbacks(said.url, said.callback_hosts)
        callbacks._http = httpx.Client(verify=ssl.create_default_context(cafile=trusted))

        def ask(deployment: Deployment) -> Ask:
            return Ask(organisation=deployment.organisation)

        def deployer() -> Deployer:
            steps = Steps(engine, {"here": site}, lambda: [offer], ask, Limits(), callbacks.send)
            return Deployer(steps, poll=0.02, pause=0.01)

        with working(engine, "one", deployer, poll=0.05, heartbeat=timedelta(seconds=1)):
            client = DBOSClient(system_database_engine=engine, lazy=True)
            service = Service(said, engine, client, Door(said.identity, known), delegate, ["here"], check)
            tls = {"ssl_certfile": said.certificate, "ssl_keyfile": said.key}
            server = uvicorn.Server(uvicorn.Config(application(service), log_config=None, **tls))  # type: ignore[arg-type]
            thread = threading.Thread(target=server.run, kwargs={"sockets": [free]}, daemon=True)
            thread.start()
            yield Running(said.url, service, issuer, signer, trusted, site)
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def api(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The running one, whose issuer does as it should and which has no deployment."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(running.authority))
    running.issuer.down = running.issuer.refused = False
    running.issuer.sites_seconds = 300
    running.issuer.ended.clear()
    with Session(running.service.engine) as session:
        uuids = session.scalars(sa.select(Deployment.uuid)).all()
    for uuid in uuids:
        running.settled(uuid)
    with Session(running.service.engine) as session, session.begin():
        for one in session.scalars(sa.select(Deployment)):
            session.delete(one)
        session.execute(sa.delete(Grant))
    return running


def order(api: Running, **fields: Any) -> str:
    with api.http("member", "imaging") as http:
        answer = http.post("/deployments", json={"template": TEMPLATE, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["uuid"])


# --- orpy ---


def test_orpy_orders_looks_and_deletes(api: Running) -> None:
    client = api.orpy("member", "imaging")
    made = client.deployments.create(TEMPLATE, parameters={"cpus": "1"})
    assert made.status == Status.CREATE_IN_PROGRESS
    assert api.settled(made.uuid).status == Status.CREATE_COMPLETE
    shown = client.deployments.show(made.uuid)
    assert shown.cloudProviderName == "here"
    assert shown.outputs["endpoint"] == f"null:{shown.physicalId}"
    assert [one.uuid for one in client.deployments.list()] == [made.uuid]
    assert client.deployments.get_template(made.uuid).template == TEMPLATE
    runtime = next(one for one in client.resources.list(made.uuid) if one.toscaNodeName == "runtime")
    assert (runtime.state, runtime.requiredBy) == ("STARTED", ["module"])
    assert client.resources.show(made.uuid, runtime.uuid).toscaNodeType == "tosca.nodes.Container.Runtime.Docker"
    changed = client.deployments.update(made.uuid, TEMPLATE, parameters={"cpus": "2"})
    assert changed.status == Status.UPDATE_IN_PROGRESS
    assert api.settled(made.uuid).status == Status.UPDATE_COMPLETE
    client.deployments.delete(made.uuid)
    assert api.settled(made.uuid).status == Status.DELETE_COMPLETE
    assert client.deployments.list() == []
    assert api.site.find(made.uuid) == []


def test_orpy_is_told_why_not(api: Running) -> None:
    with pytest.raises(exceptions.ClientError, match="cpus"):
        api.orpy("member", "imaging").deployments.create(TEMPLATE + "wrong: 1")
    with pytest.raises(exceptions.ClientError, match="there is no deployment"):
        api.orpy("member", "imaging").deployments.show(str(uuid4()))


@contextmanager
def agent(token: str, path: Path) -> Iterator[dict[str, str]]:
    """An oidc-agent; the environment that tells of it. Without one, the command line of orpy 1.0.4 takes no token."""

    def answer() -> None:
        with suppress(OSError):  # closed
            while True:
                with agents.accept()[0] as connection:
                    connection.recv(4096)
                    connection.sendall(json.dumps({"status": "success", "access_token": token}).encode())

    with socket.socket(socket.AF_UNIX) as agents:
        agents.bind(str(path))
        agents.listen()
        threading.Thread(target=answer, daemon=True).start()
        yield {**os.environ, "OIDC_SOCK": str(path), "OIDC_ACCOUNT": "deep"}
        agents.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "arguments",
    [
        ["deployment", "list"],
        ["deployment", "show", "--long", "UUID"],
        ["resource", "list", "UUID"],
        ["configuration", "show"],
        ["info"],
    ],
)
def test_the_command_line_of_orpy_shows_what_there_is(api: Running, arguments: list[str], tmp_path: Path) -> None:
    uuid = order(api)
    api.settled(uuid)
    program = [sys.executable, "-c", "import sys; from orpy.shell import main; sys.exit(main(sys.argv[1:]))"]
    command = [*program, "--url", api.url, *(uuid if one == "UUID" else one for one in arguments)]
    with agent(api.issuer.token("member", "imaging"), tmp_path / "agent") as environment:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert arguments[0] != "deployment" or uuid in done.stdout


def test_orpy_reads_a_list_that_is_longer_than_a_page(api: Running) -> None:
    uuids = {order(api) for _ in range(3)}
    with api.http("member", "imaging") as http:
        first = http.get("/deployments", params={"size": 2}).json()
        links = {one["rel"]: one["href"] for one in first["links"]}
        assert first["page"] == {"size": 2, "totalElements": 3, "totalPages": 2, "number": 0}
        # With both of them there, orpy 1.0.4 breaks.
        assert "next" in links
        assert "last" not in links
        second = http.get(links["next"]).json()
        assert {one["uuid"] for one in first["content"] + second["content"]} == uuids
        assert [one["rel"] for one in second["links"]] == ["self", "prev"]
    assert len(api.orpy("member", "imaging").deployments.list()) == 3


# --- who is let in ---


def bad_tokens() -> dict[str, Any]:
    now = int(time.time())
    return {
        "over": {"exp": now - 60},
        "not yet": {"nbf": now + 60},
        "of another issuer": {"iss": "https://elsewhere.test"},
        "for another service": {"aud": ["kubernetes"]},
        "for nobody": {"aud": None},
        "without end": {"exp": None},
        "without holder": {"sub": None},
        "without name": {"preferred_username": None},
        "with odd groups": {"groups": "imaging"},
        "an identity token": {"typ": "ID"},
        "a refresh token": {"typ": "Refresh"},
        "signed by another": {"key": other_key()},
        "of another kind of key": {"key": elliptic_key(), "algorithm": "ES256"},
    }


@pytest.mark.parametrize("what", bad_tokens())
def test_a_token_that_does_not_count_is_refused(api: Running, what: str) -> None:
    with api.http("member", "imaging", **bad_tokens()[what]) as http:
        answer = http.get("/deployments")
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["title"] == "Unauthorized"


def unsigned(api: Running) -> str:
    return jwt.encode(
        jwt.decode(api.issuer.token("member", "imaging"), options={"verify_signature": False}), "", "none"
    )


def by_the_public_key(api: Running) -> str:
    """Where a service lets a token say how it is signed, the public key is as good as a secret."""
    public = api.issuer.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _, claims, _ = api.issuer.token("member", "imaging").split(".")
    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": api.issuer.identifier}).encode())
    return f"{head}.{claims}.{encoded(hmac.digest(public, f'{head}.{claims}'.encode(), 'sha256'))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("forge", [unsigned, by_the_public_key])
def test_a_forged_token_is_refused(api: Running, forge: Any) -> None:
    with api.http() as http:
        assert http.get("/deployments", headers={"Authorization": f"Bearer {forge(api)}"}).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Basic bWVtYmVyOng=", "Bearer x.y.z", "Bearer " + "x" * 5000])
def test_without_a_token_nobody_gets_in(api: Running, header: str) -> None:
    with api.http() as http:
        for method, path in [("GET", "/deployments"), ("POST", "/deployments"), ("GET", "/configuration")]:
            assert http.request(method, path, headers={"Authorization": header}).status_code == 401
        assert http.get("/info").status_code == 200


def test_a_key_that_is_new_counts_soon(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deep_orchestrator.identity.AGAIN", 0.0)
    monkeypatch.setattr(api.issuer, "identifier", "two")
    monkeypatch.setattr(api.issuer, "key", other_key())
    with api.http("member", "imaging") as http:
        assert http.get("/deployments").status_code == 200


def test_while_the_issuer_is_away_its_keys_count_for_a_time(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deep_orchestrator.identity.AGAIN", 0.0)
    monkeypatch.setattr("deep_orchestrator.identity.FRESH", 0.0)
    with api.http("member", "imaging") as http:
        assert http.get("/deployments").status_code == 200
        api.issuer.down = True
        assert http.get("/deployments").status_code == 200
        monkeypatch.setattr("deep_orchestrator.identity.KEPT", 0.0)
        answer = http.get("/deployments")
        assert answer.status_code == 503
        assert "does not answer" in answer.json()["message"]


# --- what they may ---


def test_an_organisation_sees_its_own_and_an_administrator_all(api: Running) -> None:
    uuid = order(api)
    sees = {
        ("colleague", "imaging"): True,
        ("reader", "imaging-readers"): True,
        ("admin", ADMINISTRATORS): True,
        ("outsider", "climate"): False,
        ("guest", ""): False,
    }
    for (person, group), visible in sees.items():
        with api.http(person, group) as http:
            assert http.get(f"/deployments/{uuid}").status_code == (200 if visible else 404), person
            assert len(http.get("/deployments").json()["content"]) == visible, person


def test_what_one_may_only_look_at_one_may_not_change(api: Running) -> None:
    uuid = order(api)
    refusals = {("colleague", "imaging"): 403, ("reader", "imaging-readers"): 403, ("outsider", "climate"): 404}
    for (person, group), status in refusals.items():
        with api.http(person, group) as http:
            assert http.put(f"/deployments/{uuid}", json={"template": TEMPLATE}).status_code == status
            assert http.delete(f"/deployments/{uuid}").status_code == status
            for path in ("template", "resources", f"resources/{uuid4()}"):
                assert http.get(f"/deployments/{uuid}/{path}").status_code in {200, 404}
    with api.http("admin", ADMINISTRATORS) as http:
        assert http.put(f"/deployments/{uuid}", json={"template": TEMPLATE}).status_code == 403
        api.settled(uuid)
        assert http.delete(f"/deployments/{uuid}").status_code == 204
    assert api.settled(uuid).status == Status.DELETE_COMPLETE


def test_only_members_deploy_and_only_for_their_organisation(api: Running) -> None:
    def answer(*groups: str, **fields: Any) -> tuple[int, str]:
        with api.http("somebody", *groups) as http:
            got = http.post("/deployments", json={"template": TEMPLATE, **fields})
            return got.status_code, got.json().get("message", got.json().get("userGroup"))

    assert answer("imaging-readers") == (
        403,
        "only members of an organisation of this site may deploy. Next: ask for membership",
    )
    assert answer("imaging", userGroup="climate")[0] == 403
    assert answer("imaging", "climate")[0] == 400
    assert answer("imaging", "climate", userGroup="climate") == (201, "climate")
    assert answer("imaging") == (201, "imaging")


# --- what is wrong ---


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "template: Field required"),
        ({"template": ""}, "template"),
        ({"template": "x" * 200_001}, "template"),
        ({"template": "x", "maxProvidersRetry": -1}, "maxProvidersRetry"),
        ({"template": "x", "parameters": []}, "parameters"),
        ({"template": "x", "paramters": {}}, "paramters: Extra inputs are not permitted"),
        ({"template": "x", "callback": "https://elsewhere.test/"}, "localhost"),
        ({"template": "x", "callback": "http://localhost/"}, "https"),
        ({"template": "x", "callback": "https://me@localhost/"}, "localhost"),
        ({"template": "x", "callback": "https://[localhost/"}, "localhost"),
        ({"template": "wrong"}, "input cpus: found -1"),
    ],
)
def test_a_wrong_order_says_what_is_wrong(api: Running, body: Json, said: str) -> None:
    with api.http("member", "imaging") as http:
        answer = http.post("/deployments", json=body)
        assert answer.status_code == 400, answer.text
        assert said in answer.json()["message"]
        assert http.get("/deployments").json()["content"] == []


def test_what_is_no_request_of_the_interface_is_refused_as_everything_else(api: Running) -> None:
    with api.http("member", "imaging") as http:
        for answer, status in [
            (http.post("/deployments", content=b"{", headers={"Content-Type": "application/json"}), 400),
            (http.get("/deployments/1"), 400),
            (http.get("/deployments", params={"size": 501}), 400),
            (http.get("/nothing"), 404),
            (http.patch("/deployments"), 405),
            (http.post("/deployments", json={"template": "x" * LONGEST_REQUEST}), 413),
        ]:
            assert answer.status_code == status, answer.text
            assert answer.json()["code"] == status
            assert set(answer.json()) == {"code", "title", "message"}


def test_what_is_being_deleted_is_deleted_once(api: Running) -> None:
    uuid = order(api)
    api.settled(uuid)
    with api.http("member", "imaging") as http:
        assert http.delete(f"/deployments/{uuid}").status_code == 204
        assert http.delete(f"/deployments/{uuid}").status_code == 409
        assert http.put(f"/deployments/{uuid}", json={"template": TEMPLATE}).status_code == 409


def test_an_order_that_is_sent_again_makes_no_other_one(api: Running) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    with api.http("member", "imaging") as http:
        first = http.post("/deployments", json={"template": TEMPLATE}, headers=key)
        second = http.post("/deployments", json={"template": TEMPLATE}, headers=key)
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json()["uuid"] == second.json()["uuid"] == key["Idempotency-Key"]
        assert http.post("/deployments", json={"template": "x"}, headers=key).status_code == 409
    with api.http("colleague", "imaging") as http:
        assert http.post("/deployments", json={"template": TEMPLATE}, headers=key).status_code == 409


def test_who_waits_is_told_even_if_the_first_time_fails(api: Running, tmp_path: Path) -> None:
    with receiving(api.signer, tmp_path) as address:
        uuid = order(api, callback=address)
        wait_for(lambda: len(Receiver.got) == 2, "the callback is told again")
        assert [(one["uuid"], one["status"]) for one in Receiver.got] == [(uuid, Status.CREATE_COMPLETE)] * 2


def test_who_cannot_show_who_they_are_is_told_nothing(api: Running, tmp_path: Path) -> None:
    with receiving(Authority(), tmp_path) as address:
        uuid = order(api, callback=address)
        wait_for(lambda: told(api, uuid) == "SUCCESS", "the callback is given up")
        assert Receiver.got == []


def told(api: Running, uuid: str) -> str:
    """What became of the workflow that tells who waits."""
    found = api.service.client.list_workflows(queue_name=TELLING)
    return next((one.status for one in found if one.input and uuid in one.input["args"]), "")


# --- acting for people ---


def test_a_site_gets_a_token_of_the_owner_that_is_renewed_when_it_is_over(api: Running) -> None:
    api.issuer.scopes.clear()
    uuid = order(api)
    api.settled(uuid)
    assert api.site.tokens[-1].startswith("member-")
    assert api.issuer.scopes == ["openid im"]
    delegate = api.service.delegate
    assert delegate is not None
    assert delegate.token(uuid) == delegate.token(uuid)
    api.issuer.sites_seconds = 1
    order(api)
    assert delegate.token(uuid) != delegate.token(uuid)


def test_no_token_can_be_read_in_the_database(api: Running) -> None:
    order(api)
    with Session(api.service.engine) as session:
        grant = session.scalars(sa.select(Grant)).one()
    assert "refresh-" not in grant.refresh
    assert "member-" not in grant.access


def test_a_login_that_has_ended_is_said_and_a_new_one_goes_on(api: Running) -> None:
    api.issuer.sites_seconds = 1
    uuid = order(api)
    api.settled(uuid)
    api.issuer.ended.add("member")
    delegate = api.service.delegate
    assert delegate is not None
    with pytest.raises(SiteError, match=r"the login of member has ended .*Session not active"):
        delegate.token(uuid)
    api.issuer.ended.clear()
    order(api)
    assert delegate.token(uuid)


def test_without_the_issuer_nothing_is_ordered(api: Running) -> None:
    with api.http("member", "imaging") as http:
        api.issuer.refused = True
        answer = http.post("/deployments", json={"template": TEMPLATE})
        assert (answer.status_code, "access_denied: not this client" in answer.text) == (403, True)
        api.issuer.refused, api.issuer.down = False, True
        assert http.post("/deployments", json={"template": TEMPLATE}).status_code in {403, 503}
        api.issuer.down = False
        assert http.get("/deployments").json()["content"] == []


def test_what_people_gave_goes_with_their_last_deployment(api: Running) -> None:
    uuid = order(api)
    delegate = api.service.delegate
    assert delegate is not None
    api.settled(uuid)
    delegate.forget()
    assert delegate.token(uuid)
    with api.http("member", "imaging") as http:
        http.delete(f"/deployments/{uuid}")
    api.settled(uuid)
    delegate.forget()
    with pytest.raises(SiteError, match="has not let"):
        delegate.token(uuid)


# --- its description ---


def test_the_interface_describes_itself(api: Running) -> None:
    with api.http() as http:
        described = http.get("/openapi.json").json()
    assert {"/info", "/deployments", "/deployments/{uuid}"} <= set(described["paths"])
    written = Path(__file__).parents[2] / "docs/reference/orchestrator.openapi.json"
    assert json.loads(written.read_text(encoding="utf-8")) == described
