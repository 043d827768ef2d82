"""What is done for a deployment. A crash makes a step run again, so it looks first for what it may have done before.

Whatever decides how a workflow goes on is the answer of a step, for a workflow that is gone on with reads it again.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypedDict

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.selection import Ask, Candidate, Offer, order
from deep_orchestrator.sites import Look, Site, SiteError, State
from deep_orchestrator.store import Attempt, Deployment, Json, Outcome, Status

# How long the failure of an attempt counts against its site.
FAILURES_COUNT_FOR = timedelta(days=1)


class Progress(enum.StrEnum):
    """How far something is that takes a while."""

    GOING_ON = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()
    # A newer operation has taken over.
    SUPERSEDED = enum.auto()


class Seen(TypedDict):
    """What a look at a site found; ``since``: when the first of these looks was, in seconds."""

    progress: str
    reason: str
    outputs: Json
    since: float


class Limits(BaseModel):
    """Where patience ends.

    ``attempt``: seconds for one attempt; ``stuck``: seconds of it in which a site says that it does not get on by
    itself; ``removal``: seconds until what is removed is gone; ``sites`` that are tried where the order does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: float = Field(default=1800, gt=0)
    stuck: float = Field(default=120, gt=0)
    removal: float = Field(default=300, gt=0)
    sites: int = Field(default=3, gt=0)


class Steps:
    """Every step, over the sites and the tables.

    ``sites`` by name; ``offers``: what each has now; ``ask``: what a deployment needs; ``tell``: sends a deployment to
    its callback.
    """

    def __init__(
        self,
        engine: sa.Engine,
        sites: Mapping[str, Site],
        offers: Callable[[], list[Offer]],
        ask: Callable[[Deployment], Ask],
        limits: Limits,
        tell: Callable[[Deployment], None] | None = None,
    ) -> None:
        self._engine, self._sites, self._offers, self._ask, self._limits = engine, sites, offers, ask, limits
        self._tell = tell
        # Since when each infrastructure that does not get on has not; a worker that starts is patient anew.
        self._stuck: dict[str, float] = {}

    def _site(self, name: str) -> Site:
        if name not in self._sites:
            raise SiteError(f"no site {name} (found {name}; needed one of: {', '.join(sorted(self._sites))})")
        return self._sites[name]

    def _to_try(self, deployment: Deployment) -> list[str]:
        """The sites that may be tried, in order, of those that were found able."""
        able = [candidate["site"] for candidate in deployment.selection if candidate["rank"]]
        retries = deployment.max_providers_retry
        return able[: max(1, self._limits.sites if retries is None else retries + 1)]

    def choose(self, uuid: str) -> tuple[list[str], str]:
        """The sites to try, in order, or why there is none; what was decided about each is kept with the deployment."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            failures = store.recent_failures(session, FAILURES_COUNT_FOR)
        try:
            asked = self._ask(deployment)
        except ValueError as error:  # of the template: it would be wrong again
            return [], str(error)
        candidates = order(asked, self._offers(), failures)
        with Session(self._engine) as session, session.begin():
            deployment = store.get(session, uuid)
            deployment.selection = [candidate.model_dump() for candidate in candidates]
            sites = self._to_try(deployment)
        return sites, "" if sites else shortage(candidates)

    def begin(self, uuid: str, operation: int, site: str) -> bool:
        """Note that a site is tried, before anything is made there; not where a newer operation has taken over."""
        with Session(self._engine) as session, session.begin():
            if store.get(session, uuid).operation != operation:
                return False
            session.merge(Attempt(deployment=uuid, site=site, outcome=Outcome.RUNNING))
            return True

    def make(self, uuid: str, operation: int, site: str) -> tuple[str, str]:
        """The infrastructure at a site, made unless it is there; or why there is none. Neither where superseded."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            if deployment.operation != operation:
                return "", ""
        try:
            there = self._site(site).find(uuid)
            return there[0] if there else self._site(site).create(uuid, deployment.template, deployment.parameters), ""
        except SiteError as error:
            return "", refusal(error)

    def look(self, uuid: str, operation: int, site: str, infrastructure: str, since: float) -> Seen:
        """How far an infrastructure is. ``since``: when the first look was, or 0."""
        since = since or time.time()
        with Session(self._engine) as session:
            if store.get(session, uuid).operation != operation:
                return Seen(progress=Progress.SUPERSEDED, reason="", outputs={}, since=since)
        try:
            seen = self._site(site).look(uuid, infrastructure)
        except SiteError as error:
            return Seen(progress=Progress.FAILED, reason=refusal(error), outputs={}, since=since)
        if seen.state == State.STUCK:
            self._stuck.setdefault(infrastructure, time.time())
        else:
            self._stuck.pop(infrastructure, None)
        if seen.state == State.READY:
            return Seen(progress=Progress.DONE, reason="", outputs=seen.outputs, since=since)
        if seen.state == State.FAILED:
            reason = seen.reason or "it failed and does not say why"
            return Seen(progress=Progress.FAILED, reason=reason, outputs={}, since=since)
        return self._pending(infrastructure, seen, since)

    def _pending(self, infrastructure: str, seen: Look, since: float) -> Seen:
        """Of what is not ready, whether it has had its time."""
        said = f": {seen.reason}" if seen.reason else ""
        stuck = self._stuck.get(infrastructure, time.time())
        if time.time() - stuck > self._limits.stuck:
            # A change may put it right, and has its own time.
            self._stuck.pop(infrastructure, None)
            reason = f"it does not get on, for {self._limits.stuck:g} s{said}"
            return Seen(progress=Progress.FAILED, reason=reason, outputs={}, since=since)
        return self._in_time(since, self._limits.attempt, "not ready", said)

    def change(self, uuid: str, site: str, infrastructure: str) -> str:
        """Make an infrastructure what the template says now; why not, where it cannot."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
        try:
            self._site(site).update(uuid, infrastructure, deployment.template, deployment.parameters)
        except SiteError as error:
            return refusal(error)
        return ""

    def remove(self, uuid: str, site: str, since: float) -> Seen:
        """Ask a site to remove whatever carries the deployment's name. ``since``: when it was asked first, or 0."""
        since = since or time.time()
        try:
            there = self._site(site).find(uuid)
            for infrastructure in there:
                self._stuck.pop(infrastructure, None)
                self._site(site).remove(uuid, infrastructure)
        except SiteError as error:
            return Seen(progress=Progress.FAILED, reason=refusal(error), outputs={}, since=since)
        if there:
            return self._in_time(since, self._limits.removal, "not gone")
        with Session(self._engine) as session, session.begin():
            session.get_one(Attempt, (uuid, site)).outcome = Outcome.REMOVED
        return Seen(progress=Progress.DONE, reason="", outputs={}, since=since)

    @staticmethod
    def _in_time(since: float, limit: float, what: str, said: str = "") -> Seen:
        if time.time() - since > limit:
            return Seen(progress=Progress.FAILED, reason=f"{what} within {limit:g} s{said}", outputs={}, since=since)
        return Seen(progress=Progress.GOING_ON, reason="", outputs={}, since=since)

    def note_failure(self, uuid: str, operation: int, site: str, reason: str) -> bool:
        """Keep why an attempt failed, which counts against the site for a day; whether what it left is to stay.

        That is where somebody wants to look at it, at the last site to be tried.
        """
        with Session(self._engine) as session, session.begin():
            attempt = session.get_one(Attempt, (uuid, site))
            attempt.outcome, attempt.reason, attempt.ended = Outcome.FAILED, reason, store.now()
            deployment = store.get(session, uuid)
            wanted = deployment.keep_last_attempt and deployment.operation == operation
            return wanted and self._to_try(deployment)[-1] == site

    def remove_others(self, uuid: str, site: str, infrastructure: str) -> None:
        """Remove what an interrupted step may have made beside it."""
        for other in self._site(site).find(uuid):
            if other != infrastructure:
                self._site(site).remove(uuid, other)

    def complete(self, uuid: str, operation: int, site: str, infrastructure: str, outputs: Json) -> None:
        """Note where it runs."""
        with Session(self._engine) as session, session.begin():
            attempt = session.get_one(Attempt, (uuid, site))
            attempt.outcome, attempt.infrastructure, attempt.ended = Outcome.COMPLETE, infrastructure, store.now()
            store.settle(session, uuid, operation, Status.CREATE_COMPLETE, outputs=outputs)

    def finish(self, uuid: str, operation: int, status: Status, outputs: Json) -> None:
        """Note that an operation is done."""
        with Session(self._engine) as session, session.begin():
            store.settle(session, uuid, operation, status, outputs=outputs)

    def fail(self, uuid: str, operation: int, status: Status, reason: str) -> None:
        """Note that an operation has failed, and why."""
        with Session(self._engine) as session, session.begin():
            store.settle(session, uuid, operation, status, reason=reason)

    def awaited(self, uuid: str, operation: int) -> bool:
        """Whether somebody is to be told that an operation is over."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            return deployment.callback is not None and deployment.operation == operation

    def tell(self, uuid: str, operation: int) -> None:
        """Send a deployment to its callback, unless something else is being done by now."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            if self._tell and deployment.operation == operation:
                self._tell(deployment)

    def place(self, uuid: str) -> tuple[str, str]:
        """Site and identifier of the infrastructure that runs; empty where none does."""
        with Session(self._engine) as session:
            for attempt in store.get(session, uuid).attempts:
                if attempt.outcome == Outcome.COMPLETE:
                    return attempt.site, attempt.infrastructure or ""
        return "", ""

    def touched(self, uuid: str) -> dict[str, bool]:
        """Sites where something may be, and whether it was still being made when it was looked at last."""
        with Session(self._engine) as session:
            attempts = [one for one in store.get(session, uuid).attempts if one.outcome != Outcome.REMOVED]
            return {one.site: one.outcome == Outcome.RUNNING for one in attempts}


def shortage(candidates: list[Candidate]) -> str:
    """What every site lacks."""
    if not candidates:
        return "no site offers anything (found no offer; needed one of a site's information provider)"
    return "no site can take it: " + "; ".join(f"{one.site}: {', '.join(one.reasons)}" for one in candidates)


def refusal(error: SiteError) -> str:
    """Why a site refuses; never empty."""
    return str(error) or "it refuses and does not say why"
