"""``deep jenkins status``, ``run`` and ``log`` against the API of Jenkins' ancestors, and a stub for what they lack."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pipelines.jenkins import builds, jobs, sync
from pipelines.jenkins.client import Server
from testbed import cli
from testbed.errors import DeepError
from tests.pipelines.ancestor import Hudson
from tests.pipelines.conftest import BOTH, Deep
from tests.pipelines.misbehaving import Answer, Stub
from tests.pipelines.toys import REPORT, WORD, ours, reporting, xml


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "POLL", 0.1)


def create(server: Server, name: str, command: str, **more: str) -> None:
    """A job of ours that also leaves a report, as the publisher of toys wants it."""
    server.create_job(name, jobs.text_of(ours(f"{reporting()}{command}", **more)))


# --- real builds ---------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("failed", "command", "status", "result"),
    [(False, "", 0, "SUCCESS"), (True, "", 1, "UNSTABLE"), (False, "exit 3", 1, "FAILURE")],
)
def test_a_build_runs_and_its_tests_are_counted(
    server: Server, deep: Deep, failed: bool, command: str, status: int, result: str
) -> None:
    server.create_job("a", jobs.text_of(ours(f"{reporting(failed=failed)}{command}")))
    ended, found = deep("run", "a")
    assert (ended, found["ok"], found["result"], found["number"]) == (status, status == 0, result, 1)
    assert found["tests"] == {"passed": 2 - failed, "failed": int(failed), "skipped": 1}
    assert deep("run", "a")[1]["number"] == 2


MAKEFILE = f"""\
install lint:
\t@echo doing $@
unit:
\t@mkdir reports
\t@printf '%s' '{REPORT.format(failed=0, failure="").replace(chr(10), "")}' > reports/unit.xml
"""


@BOTH
def test_a_job_of_the_definitions_runs(server: Server, ancestor: Hudson, deep: Deep) -> None:
    # It knows neither Git nor H in times, nor that artefacts may be missing. The tree is put where Git would.
    settings = {"repository": "https://git.example.org/x.git", "agent": "master", "look": "@yearly", "night": "@yearly"}
    defined = jobs.expand("freestyle", settings)
    for job in defined.values():
        scm = job.find("scm")
        assert scm is not None
        scm.clear()
        scm.set("class", "hudson.scm.NullSCM")
        archiver = job.find("publishers/hudson.tasks.ArtifactArchiver")
        assert archiver is not None
        archiver.remove(next(archiver.iter("allowEmptyArchive")))
    list(sync.apply(server, sync.plan(server, defined)))
    name = "deep-change-gate-freestyle"
    workspace = ancestor.home / "jobs" / name / "workspace"
    workspace.mkdir()
    (workspace / "Makefile").write_text(MAKEFILE)
    status, found = deep("run", name)
    log = deep("log", name)[1]["log"]
    assert (status, found["tests"]) == (0, {"passed": 2, "failed": 0, "skipped": 1}), log
    assert "doing install" in log
    assert "doing lint" in log
    assert server.ask(f"job/{name}/1/", "artifacts[relativePath]") == {
        "artifacts": [{"relativePath": "reports/unit.xml"}]
    }


def test_a_build_that_is_not_waited_for(server: Server, deep: Deep) -> None:
    create(server, "a", "echo begun; sleep 2; echo over")
    status, found = deep("run", "a", "--no-wait")
    assert (status, found["ok"], found["result"], found["tests"]) == (0, True, None, None)
    status, found = deep("log", "a", "--follow")
    assert (status, found["number"]) == (0, 1)
    assert "\nover\n" in found["log"].replace("\r", "")
    assert found["log"].rstrip().endswith("SUCCESS")


PATIENT = "echo begun; until [ -e go ]; do sleep 0.1; done; echo over"


@BOTH
def test_a_log_comes_piece_by_piece(server: Server, ancestor: Hudson) -> None:
    create(server, "a", PATIENT)
    number = builds.start(server, "a", {}, time.monotonic() + 300)
    said = ""
    for piece in builds.log(server, "a", number, follow=True):
        said += piece
        if "\nbegun" in said and "\nover" not in said:
            (ancestor.home / "jobs/a/workspace/go").touch()
    assert said.count("\nbegun") == said.count("\nover") == 1


def test_the_time_is_over(server: Server, ancestor: Hudson, deep: Deep) -> None:
    create(server, "a", PATIENT)
    status, found = deep("run", "a", "--timeout", "1")
    assert status == 1
    assert "deep jenkins status" in found["error"]["next_step"]
    (ancestor.home / "jobs/a/workspace/go").touch()
    assert builds.wait(server, "a", 1, time.monotonic() + 300).ok


@BOTH
def test_parameters_reach_the_build(server: Server, deep: Deep) -> None:
    create(server, "a", 'echo "said: $WORD"', properties=WORD)
    assert deep("run", "a", "-p", "WORD=a b=c&d")[0] == 0
    assert "said: a b=c&d" in deep("log", "a")[1]["log"]
    assert deep("run", "a")[0] == 0
    assert "said: nothing" in deep("log", "a", "2")[1]["log"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(("-p", "OTHER=x"), "no such parameter"), (("-p", "WORD"), "not a parameter"), (("-p", "=x"), "not a parameter")],
)
def test_parameters_that_will_not_do(server: Server, deep: Deep, words: tuple[str, ...], message: str) -> None:
    create(server, "a", "true", properties=WORD)
    status, found = deep("run", "a", *words)
    assert status == 2
    assert message in found["error"]["message"]
    assert server.ask("job/a/", "builds[number]") == {"builds": []}


def test_the_status_of_our_jobs(server: Server, deep: Deep) -> None:
    create(server, "a", "true")
    create(server, "b", "true")
    server.create_job("foreign", xml())
    server.disable_job("b")
    before = time.time()
    deep("run", "a")
    first, second = deep("status")[1]["jobs"]
    assert (first["name"], first["enabled"], first["last"]["number"]) == ("a", True, 1)
    assert first["last"]["result"] == "SUCCESS"
    assert before - 5 < first["last"]["started"] < time.time() + 5
    assert (second["name"], second["enabled"], second["last"]) == ("b", False, None)


@pytest.mark.parametrize("command", ["run", "log"])
def test_jobs_that_are_not_ours_or_not_there(server: Server, deep: Deep, command: str) -> None:
    server.create_job("foreign", xml())
    status, found = deep(command, "foreign")
    assert (status, found["error"]["message"]) == (2, "the job foreign is somebody else's")
    status, found = deep(command, "nowhere")
    assert status == 2
    assert "404" in found["error"]["found"]
    assert server.ask("job/foreign/", "builds[number]") == {"builds": []}


def test_a_disabled_job_is_not_built(server: Server, deep: Deep) -> None:
    create(server, "a", "true")
    server.disable_job("a")
    assert "disabled" in deep("run", "a")[1]["error"]["message"]


def test_a_job_that_was_never_built_has_no_log(server: Server, deep: Deep) -> None:
    create(server, "a", "true")
    assert "never built" in deep("log", "a")[1]["error"]["message"]
    assert "404" in deep("log", "a", "7")[1]["error"]["found"]


def test_people_see_lines(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    create(server, "a", "printf '\\033[31m[bold]red\\n'")
    assert people(monkeypatch, capsys, "run", "a").startswith(
        "a #1: SUCCESS; tests: 2 passed, 0 failed, 1 skipped; http"
    )
    log = people(monkeypatch, capsys, "log", "a")
    assert "\n[bold]red\n" in log
    assert "\033[31m" not in log
    assert "#1" in people(monkeypatch, capsys, "status")


def people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["deep", "jenkins", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    return capsys.readouterr().out


# --- a queue as Jenkins shows it; its ancestors do not ----------------------------------------------------------------


def said(data: Any) -> list[Answer]:
    return [Answer(body=json.dumps(one).encode()) for one in data]


JOB = {"name": "a", "description": jobs.MARKER, "buildable": True, "nextBuildNumber": 3, "property": [{}]}
QUEUED = Answer(201, headers={"Location": "http://public.example.org/queue/item/8/"})


@pytest.mark.parametrize("below", ["", "/jenkins", "/job/deep", "/jenkins/job/eu/job/deep"])
def test_a_build_is_found_by_its_place_in_the_queue(stub: Stub, below: str) -> None:
    """Jobs may be in folders; the queue and who issues crumbs are Jenkins' own."""
    whole = below.partition("/job/")[0]
    stub.answers = {
        f"GET {whole}/crumbIssuer/api/json": said([{"crumbRequestField": "Jenkins-Crumb", "crumb": "c"}]),
        f"GET {below}/job/a/api/json": said([JOB]),
        f"POST {below}/job/a/build": [QUEUED],
        f"GET {whole}/queue/item/8/api/json": said([{"why": "waits"}, {}, {"executable": {"number": 5}}]),
    }
    assert builds.start(Server(f"{stub.url}{below}"), "a", {}, time.monotonic() + 60) == 5
    (posted,) = (one for one in stub.asked if one.line.startswith("POST"))
    assert posted.headers["Jenkins-Crumb"] == "c"


def test_a_build_that_was_taken_out_of_the_queue(stub: Stub) -> None:
    stub.answers = {
        "GET /job/a/api/json": said([JOB]),
        "POST /job/a/build": [QUEUED],
        "GET /queue/item/8/api/json": said([{"cancelled": True}]),
    }
    with pytest.raises(DeepError, match="taken out of the queue"):
        builds.start(Server(stub.url), "a", {}, time.monotonic() + 60)


def test_a_build_that_nobody_begins(stub: Stub) -> None:
    stub.answers = {
        "GET /job/a/api/json": said([JOB]),
        "POST /job/a/build": [QUEUED],
        "GET /queue/item/8/api/json": said([{"why": "no agent"}]),
    }
    with pytest.raises(DeepError, match="did not begin"):
        builds.start(Server(stub.url), "a", {}, time.monotonic() + 0.1)
