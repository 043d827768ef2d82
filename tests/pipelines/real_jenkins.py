"""The same against a Jenkins of your own, with pipelines: not part of ``make test``, see docs/jenkins.md.

It makes, builds and deletes jobs whose names begin with ``deep-selftest-``, and touches no other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from pipelines.jenkins import builds, jobs, sync
from pipelines.jenkins.client import Server, connect
from testbed.errors import DeepError
from tests.pipelines.toys import ours, pipeline, reporting, xml

FREESTYLE, PIPELINE, FOREIGN = (f"deep-selftest-{kind}" for kind in ("freestyle", "pipeline", "foreign"))
SCRIPT = "node { sh 'echo from the pipeline' }"


@pytest.fixture
def server() -> Iterator[Server]:
    """The server that DEEP_TEST_JENKINS_URL names, before and after without jobs of ours for tests."""
    url = os.environ.get("DEEP_TEST_JENKINS_URL")
    assert url, "set DEEP_TEST_JENKINS_URL: nothing is tried on a server that was not named for it"
    found = connect(url, say=print)
    try:
        clean(found)
        yield found
    finally:
        clean(found)


def clean(server: Server) -> None:
    for one in server.ask("", "jobs[name]")["jobs"]:
        if one["name"] in (FREESTYLE, PIPELINE, FOREIGN):
            server.delete_job(one["name"])


def synced(server: Server, defined: dict[str, jobs.Element], *, delete: bool = False) -> dict[str, str]:
    """What a sync does to jobs of this test; the plan never holds another."""
    plan = [one for one in sync.plan(server, defined, delete=delete) if one.name.startswith("deep-selftest-")]
    return {one.name: one.action for one in sync.apply(server, plan)}


def test_jobs_come_and_go(server: Server) -> None:
    defined = {FREESTYLE: ours("true"), PIPELINE: pipeline(SCRIPT)}
    assert synced(server, defined) == dict.fromkeys(defined, "create")
    assert synced(server, defined) == {}
    changed = {FREESTYLE: ours("false"), PIPELINE: pipeline(f"{SCRIPT}\n")}
    assert synced(server, changed) == dict.fromkeys(defined, "update")
    assert synced(server, changed) == {}
    assert synced(server, {}) == dict.fromkeys(defined, "disable")
    assert synced(server, {}) == {}
    assert synced(server, {}, delete=True) == dict.fromkeys(defined, "delete")


def test_a_job_of_somebody_else(server: Server) -> None:
    server.create_job(FOREIGN, xml())
    before = server.get_job_config(FOREIGN)
    with pytest.raises(DeepError, match="somebody else"):
        synced(server, {FOREIGN: ours()})
    assert synced(server, {}, delete=True) == {}
    assert server.get_job_config(FOREIGN) == before


def test_builds(server: Server) -> None:
    defined = {FREESTYLE: ours(reporting()), PIPELINE: pipeline(SCRIPT)}
    synced(server, defined)
    until = time.monotonic() + 900
    for name, word in ((FREESTYLE, "report.xml"), (PIPELINE, "from the pipeline")):
        number = builds.start(server, name, {}, until)
        built = builds.wait(server, name, number, until)
        assert built.ok
        assert word in "".join(builds.log(server, name, number))
    assert builds.wait(server, FREESTYLE, 1, until).tests == {"passed": 2, "failed": 0, "skipped": 1}
    assert synced(server, defined) == {}, "a build changes nothing that a sync would change back"
