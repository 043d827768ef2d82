"""``deep jenkins sync`` against the API of Jenkins' ancestors: what changes, what stays, and what heals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from pipelines.jenkins import jobs, sync
from pipelines.jenkins.client import Server
from testbed.errors import DeepError
from testbed.paths import repo_root
from tests.pipelines.ancestor import Hudson
from tests.pipelines.conftest import BOTH, LATER, Deep
from tests.pipelines.misbehaving import HELD, LOST, Proxy, listening
from tests.pipelines.toys import ours, pipeline, xml

Define = Callable[..., None]
SYNC = ("sync", "--settings", "unread.yml")


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Have other jobs defined."""

    def are(**defined: jobs.Element) -> None:
        monkeypatch.setattr(jobs, "read_settings", lambda _file: {})
        monkeypatch.setattr(jobs, "expand", lambda _kind, _settings: defined)

    return are


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What ``deep`` talks to in place of the server."""
    with listening(Proxy(server=server.server.rstrip("/"))) as between:
        monkeypatch.setenv("JENKINS_URL", between.url)
        yield between


def actions(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {one["name"]: one["action"] for one in found["jobs"]}


def names(server: Server) -> list[str]:
    return sorted(one["name"] for one in server.ask("", "jobs[name]")["jobs"])


def config(server: Server, name: str) -> jobs.Element:
    found = sync.held(server, name)
    assert found is not None
    return found


def same(one: jobs.Element, other: jobs.Element) -> bool:
    return jobs.canonical(one) == jobs.canonical(other)


# --- what changes --------------------------------------------------------------------------------------------------


@BOTH
def test_jobs_are_created_and_a_second_sync_changes_nothing(
    server: Server, proxy: Proxy, deep: Deep, define: Define
) -> None:
    define(a=ours("echo 'ä < & >'"), b=ours("first\n\n  second  \n"))
    assert deep(*SYNC) == (0, deep_says(server, proxy, changed=2, a="create", b="create"))
    assert names(server) == ["a", "b"]
    assert same(config(server, "b"), ours("first\n\n  second  \n"))
    proxy.asked.clear()
    status, found = deep(*SYNC)
    assert (status, found["changed"], actions(found)) == (0, 0, {"a": "none", "b": "none"})
    assert not [line for line in proxy.lines() if not line.startswith("GET")]


def deep_says(server: Server, proxy: Proxy, changed: int, **expected: str) -> dict[str, object]:
    found = [{"name": name, "action": action} for name, action in expected.items()]
    return {"ok": True, "server": f"{proxy.url}/", "dry_run": False, "changed": changed, "jobs": found}


@BOTH
def test_a_changed_definition_and_a_change_by_hand_are_updated(server: Server, deep: Deep, define: Define) -> None:
    define(a=ours(), b=ours())
    deep(*SYNC)
    define(a=ours("false"), b=ours())
    by_hand = jobs.text_of(ours()).replace("<canRoam>true", "<canRoam>false")
    server.reconfig_job("b", by_hand)
    status, found = deep(*SYNC, "--diff")
    assert (status, actions(found)) == (0, {"a": "update", "b": "update"})
    assert "\n+      <command>false</command>" in found["jobs"][0]["diff"]
    assert "\n-  <canRoam>false</canRoam>" in found["jobs"][1]["diff"]
    assert same(config(server, "a"), ours("false"))
    assert same(config(server, "b"), ours())


def test_a_dry_run_says_the_same_and_changes_nothing(server: Server, proxy: Proxy, deep: Deep, define: Define) -> None:
    define(a=ours(), b=ours())
    deep(*SYNC)
    define(b=ours("false"), c=ours())
    proxy.asked.clear()
    status, found = deep(*SYNC, "--dry-run", "--diff")
    assert (status, actions(found)) == (0, {"a": "disable", "b": "update", "c": "create"})
    assert found["dry_run"]
    assert not [line for line in proxy.lines() if not line.startswith("GET")]
    assert names(server) == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ((), [f"deep-{name}" for name in ("benchmark", "change-gate", "images", "nightly", "release", "site-deploy")]),
        (("--freestyle",), ["deep-change-gate-freestyle", "deep-nightly-freestyle"]),
    ],
)
def test_the_definitions_with_the_settings_of_a_file(
    server: Server, deep: Deep, tmp_path: Path, kind: tuple[str, ...], expected: list[str]
) -> None:
    settings = tmp_path / "ci.yml"
    settings.write_text("repository: https://git.example.org/own.git\n")
    status, found = deep("sync", "--settings", str(settings), "--dry-run", "--diff", *kind)
    assert (status, actions(found)) == (0, dict.fromkeys(expected, "create"))
    assert all("<url>https://git.example.org/own.git</url>" in one["diff"] for one in found["jobs"])
    assert "No such file" in deep("sync", "--settings", str(tmp_path / "no.yml"))[1]["error"]["message"]


@BOTH
def test_a_job_that_is_defined_no_longer_is_disabled_and_comes_back(server: Server, deep: Deep, define: Define) -> None:
    define(a=ours(), b=ours())
    deep(*SYNC)
    define(a=ours())
    status, found = deep(*SYNC)
    assert (status, actions(found)) == (0, {"a": "none", "b": "disable"})
    assert config(server, "b").findtext("disabled") == "true"
    assert deep(*SYNC)[1]["changed"] == 0
    define(a=ours(), b=ours())
    assert actions(deep(*SYNC)[1]) == {"a": "none", "b": "update"}
    assert config(server, "b").findtext("disabled") == "false"


@BOTH
def test_a_job_that_is_defined_no_longer_is_deleted_on_demand(server: Server, deep: Deep, define: Define) -> None:
    define(a=ours(), b=ours())
    deep(*SYNC)
    define(a=ours())
    status, found = deep(*SYNC, "--delete")
    assert (status, actions(found)) == (0, {"a": "none", "b": "delete"})
    assert names(server) == ["a"]
    assert deep(*SYNC, "--delete")[1]["changed"] == 0


# --- what stays ----------------------------------------------------------------------------------------------------


@BOTH
def test_jobs_of_others_stay(server: Server, deep: Deep, define: Define) -> None:
    foreign = {
        "foreign": xml("theirs"),
        "quoting": xml("theirs", description=f"Not like those that say: {jobs.MARKER} Mine."),
    }
    for name, text in foreign.items():
        server.create_job(name, text)
    before = {name: server.get_job_config(name) for name in foreign}
    define(a=ours())
    deep(*SYNC)
    define()
    status, found = deep(*SYNC, "--delete")
    assert (status, actions(found)) == (0, {"a": "delete"})
    assert {name: server.get_job_config(name) for name in foreign} == before


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_job_of_somebody_else_under_a_name_of_ours_is_a_conflict(
    server: Server, deep: Deep, define: Define, dry: tuple[str, ...]
) -> None:
    server.create_job("b", xml("theirs"))
    before = server.get_job_config("b")
    define(a=ours(), b=ours())
    status, found = deep(*SYNC, *dry)
    assert status == 1
    assert found["error"]["found"] == "b"
    assert "rename or delete" in found["error"]["next_step"]
    assert names(server) == ["b"], "nothing at all was changed"
    assert server.get_job_config("b") == before


def test_a_job_that_became_somebody_elses_meanwhile(server: Server) -> None:
    made = sync.plan(server, {"a": ours(), "b": ours()})
    assert [one.name for one in sync.apply(server, made)] == ["a", "b"]
    planned = sync.plan(server, {"c": ours()}, delete=True)
    server.reconfig_job("a", xml("theirs"))
    server.create_job("c", xml("theirs"))
    with pytest.raises(DeepError, match="not every job could be changed") as caught:
        assert [one.name for one in sync.apply(server, planned)] == ["b"]
    assert "c (create): " in str(caught.value.found)
    assert names(server) == ["a", "c"]


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ancestor", "said"),
    [("hudson", "401"), ("eclipse_hudson", "403 Forbidden: Authentication")],
    indirect=["ancestor"],
)
def test_a_wrong_password(
    server: Server, deep: Deep, define: Define, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    define(a=ours())
    monkeypatch.setenv("JENKINS_TOKEN", "wrong")
    status, found = deep(*SYNC)
    assert status == 2
    assert found["error"]["message"] == "Jenkins does not let admin in"
    assert said in found["error"]["found"]
    assert "JENKINS_TOKEN" in found["error"]["next_step"]


@BOTH
def test_a_user_who_may_only_read(
    server: Server, ancestor: Hudson, deep: Deep, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(a=ours())
    monkeypatch.setenv("JENKINS_USER", "reader")
    monkeypatch.setenv("JENKINS_TOKEN", ancestor.passwords["reader"])
    assert deep("status") == (0, {"ok": True, "server": server.server, "jobs": []})
    status, found = deep(*SYNC)
    assert status == 2
    assert found["error"]["message"] == "Jenkins does not allow that to reader"
    assert names(server) == []


@BOTH
def test_nobody(server: Server, deep: Deep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JENKINS_USER")
    status, found = deep("status")
    assert status == 2
    assert "anonymous" in found["error"]["message"]


@BOTH
def test_the_server_does_ask_for_crumbs(server: Server) -> None:
    with pytest.raises(DeepError, match="does not allow"):
        Uncrumbed.of(server).create_job("a", xml())
    assert names(server) == []
    server.create_job("a", xml())


class Uncrumbed(Server):
    """A client that never sends a crumb."""

    @classmethod
    def of(cls, server: Server) -> Uncrumbed:
        user, token = (str(word, "utf-8") for word in (server._auths[0][1].username, server._auths[0][1].password))
        return cls(server.server, user, token)

    def maybe_add_crumb(self, req: object) -> None:
        pass


# --- what goes wrong on the way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [502, 503, 504, LOST])
def test_faults_on_the_way_do_no_harm(
    server: Server, proxy: Proxy, deep: Deep, define: Define, fault: int | str
) -> None:
    define(a=ours("old"), b=ours())
    deep(*SYNC)
    define(a=ours("new"), c=ours())
    expected = {"a": "update", "b": "delete", "c": "create"}
    proxy.faults += [(r"POST .*/config\.xml", fault), (r"POST .*/doDelete", fault), (r"POST .*/createItem", fault)]
    status, found = deep(*SYNC, "--delete")
    assert not proxy.faults
    assert (status, actions(found)) == (0, expected), found
    assert names(server) == ["a", "c"]
    assert same(config(server, "a"), ours("new"))
    assert deep(*SYNC, "--delete")[1]["changed"] == 0


@pytest.fixture
def restarting(ancestor: Hudson, proxy: Proxy) -> None:
    """A server that restarts as soon as it has made job b; nobody hears that it has."""

    class Restarting(threading.Event):
        def set(self) -> None:
            ancestor.stop()
            ancestor.start()

    proxy.faults.append((r"POST .*createItem\?name=b", HELD))
    proxy.holding = Restarting()
    proxy.over.set()


@pytest.mark.usefixtures("restarting")
def test_a_server_that_restarts_in_the_middle(server: Server, deep: Deep, define: Define) -> None:
    define(a=ours(), b=ours(), c=ours())
    status, found = deep(*SYNC, "--patience", "600")
    assert (status, actions(found)) == (0, {"a": "create", "b": "create", "c": "create"})
    assert names(server) == ["a", "b", "c"]
    assert deep(*SYNC)[1]["changed"] == 0


@LATER
@pytest.mark.usefixtures("restarting")
def test_a_server_that_has_its_own_words_after_a_restart(server: Server, deep: Deep, define: Define) -> None:
    # Whenever it starts, 3.3.2 writes down each job that it does not find in its own words.
    define(a=ours(), b=ours(), c=ours())
    status, found = deep(*SYNC, "--patience", "600")
    assert (status, found["error"]["message"]) == (1, "not every job could be changed")
    assert "b (create)" in found["error"]["found"]
    assert "a (create)" not in found["error"]["found"]
    assert config(server, "b").find("project-properties") is not None
    assert names(server) == ["a", "b", "c"], "each was made once, and the others go on"
    status, found = deep(*SYNC)
    assert (status, actions(found)) == (0, {"a": "update", "b": "update", "c": "none"})
    assert deep(*SYNC)[1]["changed"] == 0


def test_a_sync_that_is_killed_in_the_middle_is_completed_by_the_next(
    server: Server, proxy: Proxy, deep: Deep, define: Define
) -> None:
    defined = {name: ours(f"echo {name}") for name in ("a", "b", "c")}
    proxy.faults.append((r"POST .*createItem\?name=b", HELD))
    program = (
        "from tests.pipelines.toys import ours; from pipelines.jenkins import jobs; from testbed import cli\n"
        "jobs.read_settings = lambda _file: {}\n"
        "jobs.expand = lambda _kind, _settings: {name: ours(f'echo {name}') for name in 'abc'}\n"
        "cli.main()\n"
    )
    words = [sys.executable, "-c", program, "jenkins", *SYNC]
    with subprocess.Popen(words, cwd=repo_root(), env={**os.environ, "PYTHONPATH": str(repo_root())}) as running:
        assert proxy.holding.wait(300)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    proxy.over.set()
    assert names(server) == ["a", "b"]
    assert all(same(config(server, name), defined[name]) for name in "ab")
    define(**defined)
    status, found = deep(*SYNC)
    assert (status, actions(found)) == (0, {"a": "none", "b": "none", "c": "create"})


@BOTH
@pytest.mark.parametrize("held", [False, True])
def test_half_a_request_leaves_no_half_of_a_job(server: Server, ancestor: Hudson, held: bool) -> None:
    if held:
        server.create_job("a", jobs.text_of(ours("old")))
    path = f"{urlsplit(ancestor.url).path}/" + ("job/a/config.xml" if held else "createItem?name=a")
    send_half(server, path, jobs.text_of(ours("new")).encode())
    present = sync.held(server, "a")
    assert (present is not None) == held
    assert present is None or same(present, ours("old"))
    list(sync.apply(server, sync.plan(server, {"a": ours("new")})))
    assert same(config(server, "a"), ours("new"))


def send_half(server: Server, path: str, body: bytes) -> None:
    """A change whose sender dies in its middle."""
    crumb = server.ask("crumbIssuer/", "crumb,crumbRequestField")
    basic = server._auths[0][1]
    prepared = requests.Request(
        "POST", f"http://{server.host}{path}", auth=basic, data=body,
        headers={"Content-Type": "text/xml; charset=utf-8", crumb["crumbRequestField"]: crumb["crumb"]},
    ).prepare()  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in prepared.headers.items())
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: {server.host}\r\n{head}\r\n".encode() + body[: len(body) // 2]
        )
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)  # when the server is done with it


# --- what this server cannot hold ----------------------------------------------------------------------------------


@BOTH
def test_a_job_that_the_server_cannot_hold(server: Server, ancestor: Hudson, deep: Deep, define: Define) -> None:
    define(a=pipeline(), b=ours())
    for _ in range(2):
        status, found = deep(*SYNC)
        assert status == 1
        assert found["error"]["message"] == "not every job could be changed"
        assert "a (create)" in found["error"]["found"]
        assert "500" in found["error"]["found"]
        assert "plug-ins" in found["error"]["next_step"]
        assert names(server) == ["b"], "the others are as they should be"
    assert (ancestor.home / "jobs/a").is_dir(), "the ancestor leaves a folder"
    define(a=ours(), b=ours())
    assert actions(deep(*SYNC)[1]) == {"a": "create", "b": "none"}
    assert same(config(server, "a"), ours())
