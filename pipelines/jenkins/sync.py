"""Bring a server's jobs to what is defined: a plan first, then one request for each change; jobs of others stay."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jenkins  # type: ignore[import-untyped]  # it has no types

from pipelines.jenkins import jobs
from pipelines.jenkins.client import NotFoundError, RefusedError, Server
from testbed.errors import CHECK_FAILED, DeepError

Action = Literal["create", "update", "disable", "delete", "none", "conflict"]


@dataclass(frozen=True)
class Change:
    """What becomes of one job; ``current`` is what the server holds, ``wanted`` what it shall hold."""

    name: str
    action: Action
    current: jobs.Element | None = None
    wanted: jobs.Element | None = None

    @property
    def text(self) -> str:
        """What is sent."""
        return "" if self.wanted is None else jobs.text_of(self.wanted)

    def diff(self) -> str:
        """The change, line by line, of both in canonical form."""
        before, after = ("" if one is None else jobs.canonical(one) for one in (self.current, self.wanted))
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), f"{self.name} (server)", f"{self.name} (defined)", lineterm=""
        )
        return "\n".join(lines)

    def as_dict(self, *, diff: bool = False) -> dict[str, Any]:
        """For ``--json``."""
        return {"name": self.name, "action": self.action, **({"diff": self.diff()} if diff else {})}


def plan(server: Server, defined: Mapping[str, jobs.Element], *, delete: bool = False) -> list[Change]:
    """What has to be done, by name.

    Jobs of ours that are defined no longer are disabled, which keeps their builds, or with ``delete`` deleted.
    """
    present = {one["name"]: one for one in server.ask("", "jobs[name,description]")["jobs"]}
    ours = {name for name, one in present.items() if jobs.MARKER in (one.get("description") or "")}
    found = {name: held(server, name) for name in sorted(present.keys() & defined.keys() | ours)}
    return [_change(name, found.get(name), defined.get(name), delete) for name in sorted(found.keys() | defined.keys())]


def _change(name: str, current: jobs.Element | None, defined: jobs.Element | None, delete: bool) -> Change:
    if current is None:
        return Change(name, "create" if defined is not None else "none", None, defined)
    if not jobs.owned(current):
        return Change(name, "conflict" if defined is not None else "none", current, defined)
    if defined is None and delete:
        return Change(name, "delete", current)
    wanted = jobs.disabled(current) if defined is None else jobs.with_added(defined, current)
    if jobs.canonical(wanted) == jobs.canonical(current):
        return Change(name, "none", current, wanted)
    return Change(name, "disable" if defined is None else "update", current, wanted)


def refuse_conflicts(server: Server, changes: list[Change]) -> None:
    """Raise ``DeepError`` where a job of somebody else has a name that is defined."""
    names = [one.name for one in changes if one.action == "conflict"]
    if names:
        raise DeepError(
            "jobs of somebody else have the names of ours; nothing was changed", host=server.host,
            found=", ".join(names), needed=f"jobs whose description ends with: {jobs.MARKER}", exit_code=CHECK_FAILED,
            next_step="rename or delete them on the server, or give them this last line of their description",
        )  # fmt: skip


def apply(server: Server, changes: list[Change]) -> Iterator[Change]:
    """Do what ``changes`` say and return each when it is done.

    Each is one request, which Jenkins takes whole or not at all: whenever this ends, the next run does the rest.
    Raises ``DeepError`` before the first change where there is a conflict, and after the last where some were refused.
    """
    refuse_conflicts(server, changes)
    refused = []
    for change in changes:
        if change.action == "none":
            continue
        try:
            _apply(server, change)
            yield change
        except (RefusedError, jenkins.JenkinsException) as failure:
            refused.append(f"{change.name} ({change.action}): {getattr(failure, 'found', None) or failure}")
    if refused:
        raise DeepError(
            "not every job could be changed", host=server.host, found="; ".join(refused),
            needed="a server that can hold them", exit_code=CHECK_FAILED,
            next_step="install the plug-ins that they need (docs/jenkins.md), then run the same command again",
        )  # fmt: skip


def _apply(server: Server, change: Change) -> None:
    current = held(server, change.name)
    new = change.action == "create"
    if (current is not None) == new or (current is not None and not jobs.owned(current)):
        raise RefusedError(
            f"the job {change.name} is not what it was when this began", host=server.host, exit_code=CHECK_FAILED,
            found="no such job" if current is None else "another job", next_step="run the same command again",
        )  # fmt: skip
    try:
        if new:
            server.create_job(change.name, change.text)
        elif change.action == "delete":
            server.delete_job(change.name)
        else:
            server.reconfig_job(change.name, change.text)
    except (RefusedError, jenkins.JenkinsException):
        # Asked twice, because the first answer did not arrive: the second time there was nothing left to do.
        made = held(server, change.name)
        if Change(change.name, "none", made, change.wanted).diff():
            raise


def held(server: Server, name: str) -> jobs.Element | None:
    """A job as the server holds it; nothing where it has none of this name."""
    try:
        return jobs.parse(server.get_job_config(name), f"the job {name} at {server.host}")
    except NotFoundError:
        return None
