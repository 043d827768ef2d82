"""Builds of our jobs: how they ended, starting one and waiting for it, what it writes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from pipelines.jenkins import jobs
from pipelines.jenkins.client import NotFoundError, Server, job_path
from testbed.errors import CHECK_FAILED, DeepError

POLL = 1.0  # seconds between two questions
BUILD = "number,result,building,url,timestamp,duration"
JOB = f"name,description,buildable,url,lastBuild[{BUILD}]"


@dataclass(frozen=True)
class Build:
    """One build; ``result`` is Jenkins' word, nothing while it runs. ``started`` is in seconds since 1970."""

    job: str
    number: int
    result: str | None
    url: str
    started: float
    seconds: float
    tests: dict[str, int] | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended well; a build with failed tests did not."""
        return self.result == "SUCCESS"

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def status(server: Server) -> list[dict[str, Any]]:
    """Our jobs, each with its last build."""
    found = server.ask("", f"jobs[{JOB}]")["jobs"]
    return [
        {
            "name": one["name"],
            "enabled": bool(one.get("buildable")),
            "url": one["url"],
            "last": _build(one["name"], one["lastBuild"]).as_dict() if one.get("lastBuild") else None,
        }
        for one in sorted(found, key=lambda one: str(one["name"]))
        if jobs.MARKER in (one.get("description") or "")
    ]


def start(server: Server, name: str, parameters: Mapping[str, str], until: float) -> int:
    """Start a build and return its number, once it has one.

    Raises ``DeepError`` where the job is not ours, is disabled, or does not know a parameter, and where the build does
    not begin before ``until`` (monotonic clock).
    """
    tree = f"{JOB},nextBuildNumber,property[parameterDefinitions[name]]"
    job = _ours(server, name, tree)
    if not job["buildable"]:
        raise DeepError(
            f"the job {name} is disabled", host=server.host, found="disabled", needed="a job that is defined",
            next_step="deep jenkins sync, where its definition is there again",
        )  # fmt: skip
    known = [one["name"] for kind in job.get("property") or [] for one in kind.get("parameterDefinitions") or []]
    if unknown := sorted(parameters.keys() - set(known)):
        raise DeepError(
            f"the job {name} has no such parameter", host=server.host, found=", ".join(unknown),
            needed=", ".join(known) or "none; Jenkins learns those of a Jenkinsfile from its first build",
            next_step="correct it, or run the job once without",
        )  # fmt: skip
    verb = "buildWithParameters" if known else "build"
    answer = server.jenkins_request(
        # In the body: addresses are written into logs.
        requests.Request("POST", f"{server.server}{job_path(name)}{verb}", data={"delay": "0sec", **parameters})
    )
    place = urlsplit(answer.headers.get("Location", "")).path.strip("/").split("/")
    while True:
        # The ancestors of Jenkins do not say where in the queue it is.
        number = _left_queue(server, int(place[-1])) if "queue" in place else _begun(server, name, job)
        if number:
            return number
        _patience(server, f"the build of {name} did not begin", until)


def wait(server: Server, name: str, number: int, until: float) -> Build:
    """The build when it has ended, with its tests; raises ``DeepError`` where it has not before ``until``."""
    while (build := get(server, name, number)).result is None:
        _patience(server, f"{name} #{number} has not ended", until)
    with suppress(NotFoundError):  # it has no tests
        found = server.ask(f"{job_path(name, number)}testReport/", "passCount,failCount,skipCount")
        tests = {"passed": found["passCount"], "failed": found["failCount"], "skipped": found["skipCount"]}
        return Build(**{**asdict(build), "tests": tests})
    return build


def get(server: Server, name: str, number: int) -> Build:
    """A build as it is now."""
    return _build(name, server.ask(job_path(name, number), BUILD))


def last(server: Server, name: str) -> int:
    """The number of a job's newest build; raises ``DeepError`` where the job is not ours or has none."""
    job = _ours(server, name, JOB)
    if not job["lastBuild"]:
        raise DeepError(
            f"the job {name} was never built", host=server.host, found="no build", needed="a build",
            next_step=f"deep jenkins run {name}",
        )  # fmt: skip
    return int(job["lastBuild"]["number"])


def log(server: Server, name: str, number: int, *, follow: bool = False) -> Iterator[str]:
    """What a build has written, piece by piece; with ``follow`` until it ends."""
    start_at = "0"
    while True:
        answer = server.jenkins_request(
            requests.Request(
                "GET", f"{server.server}{job_path(name, number)}logText/progressiveText", params={"start": start_at}
            )
        )
        start_at = answer.headers.get("X-Text-Size", start_at)
        if answer.text:
            yield answer.text
        if answer.headers.get("X-More-Data") != "true" or not follow:
            return
        time.sleep(POLL)


def _ours(server: Server, name: str, tree: str) -> Any:
    """A job; raises ``DeepError`` where it is not ours, as where there is none."""
    job = server.ask(job_path(name), tree)
    if jobs.MARKER in (job.get("description") or ""):
        return job
    raise DeepError(
        f"the job {name} is somebody else's", host=server.host, found="a description without our last line",
        needed="a job of 'deep jenkins status'", next_step="run it in Jenkins",
    )  # fmt: skip


def _build(name: str, said: dict[str, Any]) -> Build:
    result = None if said["building"] else said["result"]
    return Build(name, said["number"], result, said["url"], said["timestamp"] / 1000, said["duration"] / 1000)


def _left_queue(server: Server, item: int) -> int:
    """The number of the build that an item of the queue became, 0 as long as it waits."""
    found = server.ask(f"queue/item/{item}/", "cancelled,why,executable[number]")
    if found.get("cancelled"):
        raise DeepError(
            "the build was taken out of the queue", host=server.host, found=f"queue item {item}",
            next_step="ask who did", exit_code=CHECK_FAILED,
        )  # fmt: skip
    return int((found.get("executable") or {}).get("number", 0))


def _begun(server: Server, name: str, job: dict[str, Any]) -> int:
    """The number that was the next one, once there is such a build, 0 before."""
    with suppress(NotFoundError):
        return get(server, name, job["nextBuildNumber"]).number
    return 0


def _patience(server: Server, message: str, until: float) -> None:
    if time.monotonic() > until:
        raise DeepError(
            message, host=server.host, found="the time is over", needed="an end, or more time (--timeout)",
            next_step="deep jenkins status, or deep jenkins log", exit_code=CHECK_FAILED,
        )  # fmt: skip
    time.sleep(POLL)
