"""``deep modules`` from the catalogue to a prediction: the real orchestrator, a real DEEPaaS, the real command line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
import uvicorn
import yaml
from dbos import DBOSClient
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from deep_orchestrator import settings, store
from deep_orchestrator.api import Service, application
from deep_orchestrator.asks import ask
from deep_orchestrator.identity import Door, Issuer
from deep_orchestrator.selection import Agreement, Offer
from deep_orchestrator.sites import Look, NullSite, SiteError, State
from deep_orchestrator.steps import Limits, Steps
from deep_orchestrator.store import Deployment, Json
from deep_orchestrator.worker import working
from deep_orchestrator.workflows import Deployer
from testbed import login, modules, sites
from testbed.cli.modules import app
from testbed.errors import DeepError
from testbed.iam import Tokens
from testbed.login import Login, Place
from testbed.modules import Wish
from testbed.paths import repo_root, state_dir
from tests.services.deepaas_server import installed, serving
from tests.services.signing_issuer import SigningIssuer
from tests.unit import login_issuer
from tests.unit.login_issuer import Authority

HERE = Place("local", "x")
IMAGE = "deephdc/image-classifier"
DIGEST = f"sha256:{'ab' * 32}"
DEEP = Path(sys.executable).with_name("deep")
runner = CliRunner()


class ModuleSite(NullSite):
    """A site at which every container is the one DEEPaaS of this test; ``asked`` keeps what it was sent."""

    endpoint = ""
    asked: Json | None = None

    def create(self, deployment: str, template: str, parameters: Json) -> str:
        self.asked = parameters
        return super().create(deployment, template, parameters)

    def look(self, *where: str) -> Look:
        found = super().look(*where)
        ready = found.state is State.READY
        return Look(found.state, found.reason, {"endpoint": self.endpoint} if ready else {})


@dataclass
class World:
    """What a test looks at and changes."""

    site: ModuleSite
    broken: NullSite
    offers: dict[str, Offer]
    engine: sa.Engine
    issuer: SigningIssuer


@pytest.fixture(scope="module")
def deepaas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an image classifier."""
    found = installed(tmp_path_factory.mktemp("modules"))
    with serving(found, "image_classifier", tmp_path_factory.mktemp("deepaas") / "tmp") as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, no_deployer: None) -> Iterator[World]:
    """A testbed ``x`` with an orchestrator, where ``member`` is logged in."""
    folder = tmp_path_factory.mktemp("world")
    authority = Authority()
    with pytest.MonkeyPatch.context() as patch:
        ignored = shutil.ignore_patterns("secrets.yml")
        shutil.copytree(repo_root() / "inventories", folder / "inventories", ignore=ignored)
        patch.setattr(sites, "inventories", lambda: folder / "inventories")
        patch.setenv("DEEP_STATE_DIR", str(folder / "state"))
        state = state_dir("x")
        inventory(state, {})
        (state / "public").mkdir()
        (state / "public" / "ca.crt").write_bytes(authority.pem)
        (state / "public" / "images.json").write_text(json.dumps({f"{IMAGE}:0.1.0": DIGEST}))
        (folder / "issuer").mkdir()
        issuer = SigningIssuer("localhost")
        with (
            login_issuer.serving(issuer, authority.context("localhost", folder / "issuer")),
            orchestrating(folder, authority, state / "public/ca.crt", issuer) as (port, found),
        ):
            inventory(state, {"orchestrator_endpoint": f"localhost:{port}", "iam_issuer": issuer.url})
            yield found


def inventory(state: Path, more: dict[str, Any]) -> None:
    """One host, and variables of the testbed."""
    file = state / "inventory/group_vars/all/own.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(more))
    groups: dict[str, Any] = {"kubernetes_control_plane": {"hosts": {"node1": {}}}}
    hosts = {"all": {"hosts": {"node1": {"ansible_host": "127.0.0.1"}}, "children": groups}}
    (state / "inventory/hosts.yml").write_text(yaml.safe_dump(hosts))


def offer(site: str, priority: int = 100) -> Offer:
    """What a site has."""
    agreed = {"imaging": Agreement(priority=priority)}
    return Offer(site=site, gpus_total=2, gpus_free=2, cpus_free=8, memory_mib_free=8192, agreements=agreed)


def check(deployment: Deployment) -> None:
    ask(deployment)


@contextmanager
def orchestrating(folder: Path, signer: Authority, trusted: Path, issuer: SigningIssuer) -> Iterator[tuple[int, World]]:
    """An orchestrator with two sites, of which one never makes anything that works."""
    (folder / "tls").mkdir()
    signer.context("localhost", folder / "tls")
    file = folder / "tls/server.pem"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        said = settings.Settings.model_validate(
            {
                "database": f"sqlite:///{folder}/orchestrator.sqlite", "executor": "one",
                "certificate": file, "key": file,
                "url": f"https://localhost:{port}",
                "identity": {
                    "issuer": issuer.url, "authority": trusted,
                    "organisations": [{"name": "imaging", "members": ["imaging"]}],
                },
            }
        )  # fmt: skip
        engine = store.engine(said.database)
        places = {"one": ModuleSite(folder / "one", 0.3), "two": NullSite(folder / "two", broken=True)}
        offers = {"one": offer("one")}
        found = World(places["one"], places["two"], offers, engine, issuer)  # type: ignore[arg-type]

        def deployer() -> Deployer:
            return Deployer(
                Steps(engine, dict(places), lambda: list(offers.values()), ask, Limits()), poll=0.02, pause=0.01
            )

        with working(engine, "one", deployer, poll=0.05, heartbeat=timedelta(seconds=1)):
            client = DBOSClient(system_database_engine=engine, lazy=True)
            service = Service(said, engine, client, Door(said.identity, Issuer(said.identity)), None, [*places], check)
            config = uvicorn.Config(
                application(service), log_config=None, ssl_certfile=str(file), ssl_keyfile=str(file)
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [free]}, daemon=True)
            thread.start()
            try:
                yield port, found
            finally:
                server.should_exit = True
                thread.join(20)


@pytest.fixture
def member(world: World, deepaas: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world with one site that works, and somebody who may deploy."""
    world.site.endpoint = deepaas
    world.offers.clear()
    world.offers["one"] = offer("one")
    monkeypatch.setattr(modules, "PAUSE", 0.05)
    become(world, "member", "imaging")
    (HERE.folder / modules.NOTES).unlink(missing_ok=True)
    with Session(world.engine) as session, session.begin():
        for one in session.scalars(sa.select(Deployment)):
            session.delete(one)
    return world


def become(world: World, person: str, *groups: str) -> None:
    """Be logged in as a person."""
    tokens = Tokens(world.issuer.token(person, *groups), time.time() + 3000)
    login._keep(HERE, Login(world.issuer.url, "deep", HERE.fingerprint, tokens))


def deployed(**wish: Any) -> dict[str, Any]:
    return modules.deploy(HERE, "image-classifier", Wish(**wish), lambda line: None, patience=60)


# --- deploying and asking ------------------------------------------------------------------------------------------


def test_two_commands_give_ten_right_predictions(member: World) -> None:
    made = deployed()
    assert (made["ok"], made["status"], made["site"], made["module"]) == (
        True, "CREATE_COMPLETE", "one", "image-classifier"
    )  # fmt: skip
    found = modules.predict(HERE, "image-classifier", {})
    answer = found["predictions"]
    assert [one["label"] for one in answer["digits"]] == answer["truth"]
    assert len(answer["truth"]) == 10
    assert (found["uuid"], found["model"]) == (made["uuid"], "image_classifier")


def test_the_order_says_what_the_module_needs_and_which_image_by_its_digest(member: World) -> None:
    uuid = deployed(cpus=2, memory_mib=2048)["uuid"]
    registry = HERE.value("{{ registry_endpoint }}")
    assert member.site.asked == {
        "image": f"{registry}/{IMAGE}@{DIGEST}", "model_name": "image_classifier", "num_cpus": 2.0,
        "mem_size": "2048 MiB",
    }  # fmt: skip
    with Session(member.engine) as session:
        assert store.get(session, uuid).template == modules.template("kubernetes")
    deployed(gpus=1, inputs={"image": "elsewhere.test/x:1", "endpoint": "https://x.test"})
    asked = member.site.asked or {}
    assert (asked["num_gpus"], asked["image"]) == (1, "elsewhere.test/x:1")
    assert asked["endpoint"] == "https://x.test"


def test_each_step_is_shown(member: World) -> None:
    shown: list[str] = []
    made = modules.deploy(HERE, "image-classifier", Wish(), shown.append, patience=60)
    assert shown[0] == f"image-classifier: deployment {made['uuid']}"
    assert any(line.startswith("CREATE_IN_PROGRESS") for line in shown)
    assert shown[-2:] == ["CREATE_COMPLETE (one: complete)", f"waiting for {made['endpoint']}"]


def test_a_deployment_that_nobody_waits_for_goes_on(member: World) -> None:
    made = modules.deploy(HERE, "image-classifier", Wish(), lambda line: None, wait=False)
    assert made["status"] == "CREATE_IN_PROGRESS"
    with pytest.raises(DeepError, match="has no address yet") as early:
        modules.predict(HERE, made["uuid"], {})
    assert "CREATE_IN_PROGRESS" in str(early.value)
    deadline = time.monotonic() + 20
    while modules.status(HERE, made["uuid"])["status"] != "CREATE_COMPLETE":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_all_sites_full_says_what_was_missing(member: World) -> None:
    found = deployed(gpus=3)
    assert (found["ok"], found["status"], found["endpoint"]) == (False, "CREATE_FAILED", None)
    (choice,) = found["selection"]
    assert choice["reasons"] == ["3 GPUs asked, 2 of 2 free"]
    assert found["reason"]


def test_a_site_that_fails_is_told_of_and_another_takes_over(member: World) -> None:
    member.offers["two"] = offer("two", priority=1)
    found = deployed()
    assert [(one["site"], one["outcome"]) for one in found["attempts"]] == [("two", "removed"), ("one", "complete")]
    assert "nothing works at this site" in found["attempts"][0]["reason"]
    assert found["site"] == "one"


def test_delete_leaves_nothing(member: World) -> None:
    uuid = deployed()["uuid"]
    assert modules.noted(HERE) == sorted([uuid, "image-classifier"])
    found = modules.delete(HERE, "image-classifier", lambda line: None)
    assert (found["ok"], found["status"]) == (True, "DELETE_COMPLETE")
    assert member.site.find(uuid) == []
    assert modules.noted(HERE) == []
    assert modules.statuses(HERE) == []
    with pytest.raises(DeepError, match="no deployment of image-classifier"):
        modules.status(HERE, "image-classifier")


def test_the_newest_of_a_module_is_meant(member: World) -> None:
    older, newer = deployed()["uuid"], deployed()["uuid"]
    assert modules.status(HERE, "image-classifier")["uuid"] == newer
    modules.delete(HERE, newer, lambda line: None)
    assert modules.status(HERE, "image-classifier")["uuid"] == older
    assert [one["uuid"] for one in modules.statuses(HERE)] == [older]


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_wrong_input_is_refused_and_leaves_no_note(member: World) -> None:
    with pytest.raises(DeepError, match="num_cpus") as refused:
        deployed(cpus=65)
    assert refused.value.exit_code == 1
    assert modules.noted(HERE) == []


def test_an_outsider_is_refused(member: World) -> None:
    become(member, "outsider", "climate")
    with pytest.raises(DeepError, match="only members of an organisation") as refused:
        deployed()
    assert "ask for membership" in str(refused.value.next_step)


def test_others_deployments_are_not_there_for_an_outsider(member: World) -> None:
    uuid = deployed()["uuid"]
    become(member, "outsider", "climate")
    assert modules.statuses(HERE) == []
    actions: list[Callable[[], object]] = [
        lambda: modules.status(HERE, uuid),
        lambda: modules.predict(HERE, uuid, {}),
        lambda: modules.delete(HERE, uuid, lambda line: None),
    ]
    for action in actions:
        with pytest.raises(DeepError, match="there is no deployment"):
            action()


def test_a_token_that_does_not_count_leads_to_the_login(member: World) -> None:
    tokens = Tokens(member.issuer.token("member", "imaging", aud=["kubernetes"]), time.time() + 3000)
    login._keep(HERE, Login(member.issuer.url, "deep", HERE.fingerprint, tokens))
    with pytest.raises(DeepError, match="the token does not count") as refused:
        modules.statuses(HERE)
    assert refused.value.next_step == HERE.again


def test_an_orchestrator_that_is_away_is_named(member: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    state = HERE.folder
    before = yaml.safe_load((state / "inventory/group_vars/all/own.yml").read_text())
    inventory(state, {"orchestrator_endpoint": f"localhost:{port}"})
    become(member, "member", "imaging")
    # As another command would: a place remembers what it has read.
    elsewhere = Place("local", "x")
    try:
        with pytest.raises(DeepError, match="does not answer") as away:
            modules.statuses(elsewhere)
    finally:
        inventory(state, before)
    assert away.value.host == f"localhost:{port}"


def test_a_wrong_argument_is_answered_with_what_the_module_says(member: World) -> None:
    deployed()
    with pytest.raises(DeepError, match="the module refuses the request") as refused:
        modules.predict(HERE, "image-classifier", {"images": [[1]]})
    assert "found 1, needed 64 numbers" in str(refused.value.found)
    assert refused.value.exit_code == 1


def test_a_module_that_does_not_answer_is_named(member: World) -> None:
    uuid = deployed()["uuid"]
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        member.site.endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    other = modules.deploy(HERE, "image-classifier", Wish(), lambda line: None, wait=False)["uuid"]
    deadline = time.monotonic() + 20
    while not modules.status(HERE, other)["endpoint"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(DeepError, match="does not answer") as away:
        modules.predict(HERE, other, {})
    assert f"deep modules logs {other}" in str(away.value.next_step)
    assert modules.predict(HERE, uuid, {})["ok"]


def test_waiting_ends_and_says_for_what_and_how_to_go_on(member: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        member.site.endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    with pytest.raises(DeepError) as silent:
        modules.deploy(HERE, "image-classifier", Wish(), lambda line: None, patience=2)
    (made,) = modules.statuses(HERE)
    named = f"deployment {made['uuid']} takes longer than the 2 s of --timeout"
    assert named in str(silent.value)
    assert f"found: {member.site.endpoint}/v2/models/" in str(silent.value)
    assert silent.value.needed == "HTTP status 200 from the module"
    assert silent.value.next_step == (
        f"deep modules logs {made['uuid']} --site local --name x; to give it up: deep modules delete {made['uuid']}"
        " --site local --name x"
    )
    monkeypatch.setattr(member.site, "remove", lambda *_: None)
    with pytest.raises(DeepError) as staying:
        modules.delete(HERE, made["uuid"], lambda line: None, patience=0.3)
    assert (staying.value.found, staying.value.needed) == ("DELETE_IN_PROGRESS (one: complete)", "DELETE_COMPLETE")
    assert staying.value.next_step == f"deep modules status {made['uuid']} --site local --name x"
    found = modules.status(HERE, "image-classifier")
    assert (found["ok"], found["status"], found["next"]) == (True, "DELETE_IN_PROGRESS", None)
    monkeypatch.undo()


@pytest.mark.parametrize("when", ["CREATE_IN_PROGRESS", "waiting for"])
def test_a_deployment_that_is_deleted_meanwhile_is_no_success(member: World, when: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        member.site.endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    shown: list[str] = []

    def show(line: str) -> None:
        if line.startswith(when) and not any(one.startswith(when) for one in shown):
            modules.delete(HERE, "image-classifier", lambda _: None, wait=False)
        shown.append(line)

    with pytest.raises(DeepError, match="was deleted while it was waited for") as deleted:
        modules.deploy(HERE, "image-classifier", Wish(), show, patience=20)
    assert deleted.value.exit_code == 1
    assert str(deleted.value.found).startswith("DELETE_")
    assert "waiting for None" not in shown


def locked(*_: object) -> None:
    """A site that does not let go of what has failed."""
    raise SiteError("it is locked")


def test_what_helps_after_a_failure_is_said(member: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = deployed(gpus=3)
    delete = f"deep modules delete {nowhere['uuid']} --site local --name x"
    assert (
        nowhere["next"]
        == f"{delete}, then ask for what a site has: deep modules deploy with other --gpus, --cpus or --memory"
    )
    member.offers.clear()
    member.offers["two"] = offer("two")
    gone = deployed()
    assert [one["outcome"] for one in gone["attempts"]] == ["removed"]
    assert "deep modules logs" not in gone["next"]
    monkeypatch.setattr(member.broken, "remove", locked)
    left = deployed()
    assert f"deep modules logs {left['uuid']} --site local --name x, or deep modules delete" in left["next"]
    found = modules.delete(HERE, left["uuid"], lambda line: None)
    assert (found["ok"], found["status"]) == (False, "DELETE_FAILED")
    assert found["next"].endswith("once what it says is put right")


# --- logs ----------------------------------------------------------------------------------------------------------


class Kubernetes(BaseHTTPRequestHandler):
    """Answers what Kubernetes does about pods of one namespace; ``pods`` and ``asked`` are the test's."""

    pods: ClassVar[list[Json]] = []
    asked: ClassVar[list[tuple[str, str]]] = []
    refuses: ClassVar[bool] = False

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.refuses:
            self._say(403, json.dumps({"kind": "Status", "message": "pods is forbidden"}))
        elif "/log" in self.path:
            self._say(200, "Running on http://0.0.0.0:5000\n", "text/plain")
        else:
            self._say(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": self.pods}))

    def _say(self, status: int, body: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        pass


def pod(name: str, deployment: str, state: Json) -> Json:
    """A pod with one container, as Kubernetes describes it."""
    container = {"name": "module", "env": [{"name": "DEEP_DEPLOYMENT", "value": f"deep-{deployment}"}]}
    status = {"name": "module", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {
        "metadata": {"name": name, "namespace": "imaging"},
        "spec": {"containers": [container]},
        "status": {"phase": "Pending" if "waiting" in state else "Running", "containerStatuses": [status]},
    }


@pytest.fixture
def kubernetes(member: World, tmp_path: Path) -> Iterator[type[Kubernetes]]:
    """The testbed's cluster, of which the inventory says where it is."""
    authority, state = Authority(), HERE.folder
    (state / "public/kubernetes-ca.crt").write_bytes(authority.pem)
    before = yaml.safe_load((state / "inventory/group_vars/all/own.yml").read_text())
    Kubernetes.refuses = False
    Kubernetes.asked.clear()
    with login_issuer.listening(Kubernetes, authority.context("localhost", tmp_path)) as port:
        inventory(state, {**before, "kubernetes_control_plane_endpoint": f"localhost:{port}"})
        become(member, "member", "imaging")
        try:
            yield Kubernetes
        finally:
            inventory(state, before)


def test_logs_are_those_of_the_deployment_and_say_why_nothing_runs(member: World, kubernetes: type[Kubernetes]) -> None:
    place = Place("local", "x")
    uuid = deployed()["uuid"]
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    kubernetes.pods[:] = [pod("others", "another", running), pod("mine", uuid, running), pod("stuck", uuid, waiting)]
    found = modules.logs(place, "image-classifier", lines=7)
    assert [(one["name"], one["log"], one["reasons"]) for one in found["pods"]] == [
        ("mine", "Running on http://0.0.0.0:5000\n", []),
        ("stuck", "", ["ImagePullBackOff: Back-off pulling image"]),
    ]
    paths = [path for path, _ in kubernetes.asked]
    assert paths == ["/api/v1/namespaces/imaging/pods", "/api/v1/namespaces/imaging/pods/mine/log?tailLines=7"]
    # With the rights of who is logged in.
    assert {who for _, who in kubernetes.asked} == {f"Bearer {login.token(place).access}"}
    said = runner.invoke(app, ["logs", uuid, "--name", "x"]).output
    assert "Running on http://0.0.0.0:5000" in said
    assert "ImagePullBackOff" in said


def test_logs_that_there_are_none_or_one_may_not_read(member: World, kubernetes: type[Kubernetes]) -> None:
    uuid = deployed()["uuid"]
    kubernetes.pods.clear()
    with pytest.raises(DeepError, match=f"deployment {uuid} has no container in namespace imaging"):
        modules.logs(Place("local", "x"), uuid)
    kubernetes.refuses = True
    with pytest.raises(DeepError, match="pods is forbidden") as refused:
        modules.logs(Place("local", "x"), uuid)
    assert "in namespace imaging" in str(refused.value.needed)


# --- the command line ----------------------------------------------------------------------------------------------


def test_the_program_asks_and_says_what_is_wrong(member: World) -> None:
    deployed()

    def deep(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(DEEP), "modules", "predict", "image-classifier", *words, "--name", "x"]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))

    asked = deep("samples=[3,4]", "--json")
    assert asked.returncode == 0, asked.stderr
    assert len(json.loads(asked.stdout)["predictions"]["digits"]) == 2
    wrong = deep("samples=[9999]")
    assert wrong.returncode == 1
    assert "HTTP status 422" in wrong.stderr
    assert "next: correct the arguments" in wrong.stderr


def test_the_commands_from_deployment_to_deletion(member: World) -> None:
    def deep(*words: str) -> tuple[int, str]:
        done = runner.invoke(app, [*words, "--name", "x"])
        return done.exit_code, done.output

    member.offers["two"] = offer("two", priority=1)
    code, said = deep("deploy", "image-classifier")
    assert code == 0, said
    for line in (
        "CREATE_COMPLETE",
        "one: choice 2: priority 100 agreed with imaging",
        "tried two: removed: nothing works at this site",
        f"address {member.site.endpoint}",
    ):
        assert line in said
    code, said = deep("deploy", "image-classifier", "--gpus", "3")
    assert code == 1
    assert "one: not: 3 GPUs asked, 2 of 2 free" in said
    assert "next: deep modules delete" in said
    (failed, made) = modules.statuses(Place("local", "x"))
    code, said = deep("status")
    assert code == 0
    assert {failed["uuid"], made["uuid"]} <= set(said.split())
    assert deep("status", failed["uuid"])[0] == 1
    code, said = deep("predict", made["uuid"])
    assert code == 0
    assert "the way there is not encrypted" in said
    code, said = deep("delete", made["uuid"], "--json")
    assert (code, json.loads(said.splitlines()[-1])["status"]) == (0, "DELETE_COMPLETE")
