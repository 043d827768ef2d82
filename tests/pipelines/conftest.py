"""What the tests of pipelines share: the servers, each started once, and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.jenkins import client
from pipelines.jenkins.client import Server
from testbed import cli
from tests.pipelines.ancestor import EclipseHudson, Hudson
from tests.pipelines.misbehaving import Stub, listening

Deep = Callable[..., tuple[int, Any]]
# What runs against both servers, and against the later one; the rest runs against the earlier one.
BOTH = pytest.mark.parametrize("ancestor", ["hudson", "eclipse_hudson"], indirect=True)
LATER = pytest.mark.parametrize("ancestor", ["eclipse_hudson"], indirect=True)


@pytest.fixture(scope="session")
def hudson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hudson]:
    """The earlier server."""
    with Hudson(tmp_path_factory.mktemp("hudson")) as running:
        yield running


@pytest.fixture(scope="session")
def eclipse_hudson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EclipseHudson]:
    """The later one."""
    with EclipseHudson(tmp_path_factory.mktemp("eclipse-hudson")) as running:
        yield running


@pytest.fixture
def ancestor(request: pytest.FixtureRequest) -> Hudson:
    """The server of this test."""
    found: Hudson = request.getfixturevalue(getattr(request, "param", "hudson"))
    return found


@pytest.fixture
def server(ancestor: Hudson, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A connection to it as its administrator, for ``deep`` too; it holds no job."""
    monkeypatch.setenv("JENKINS_URL", ancestor.url)
    monkeypatch.setenv("JENKINS_USER", "admin")
    monkeypatch.setenv("JENKINS_TOKEN", ancestor.passwords["admin"])
    found = client.connect(None, say=lambda _line: None)
    for job in found.ask("", "jobs[name]")["jobs"]:
        found.delete_job(job["name"])
    return found


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A server that answers as it is told, and a client that does not wait long."""
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)
    with listening(Stub()) as answering:
        yield answering


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Deep:
    """Run ``deep jenkins ... --json``; returns its exit status and what it prints."""

    def run(*words: str) -> tuple[int, Any]:
        monkeypatch.setattr("sys.argv", ["deep", "jenkins", *words, "--json"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), json.loads(capsys.readouterr().out)

    return run
