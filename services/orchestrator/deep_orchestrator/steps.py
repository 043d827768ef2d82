"""What is done for a deployment. A crash makes a step run again, so it looks first for what it may have done before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.selection import Ask, Candidate, Offer, order
from deep_orchestrator.sites import Site, SiteError, State
from deep_orchestrator.store import Attempt, Deployment, Json, Outcome, Status

# How long the failure of an attempt counts against its site.
FAILURES_COUNT_FOR = timedelta(days=1)


class Seen(TypedDict):
    """What a look at an infrastructure found; ``at``: when, in seconds."""

    at: float
    state: str
    reason: str
    outputs: Json


class Steps:
    """Every step, over the sites and the tables.

    ``sites`` by name; ``offers``: what each has now; ``ask``: what a deployment needs; ``most_sites``: how many are
    tried where the deployment does not say.
    """

    def __init__(
        self,
        engine: sa.Engine,
        sites: Mapping[str, Site],
        offers: Callable[[], list[Offer]],
        ask: Callable[[Deployment], Ask],
        most_sites: int = 3,
    ) -> None:
        self._engine, self._sites, self._offers, self._ask, self._most_sites = engine, sites, offers, ask, most_sites

    def _site(self, name: str) -> Site:
        if name not in self._sites:
            raise SiteError(f"no site {name} (found {name}; needed one of: {', '.join(sorted(self._sites))})")
        return self._sites[name]

    def _to_try(self, deployment: Deployment) -> list[str]:
        """The sites that may be tried, in order, of those that were found able."""
        able = [candidate["site"] for candidate in deployment.selection if candidate["rank"]]
        retries = deployment.max_providers_retry
        return able[: self._most_sites if retries is None else retries + 1]

    def choose(self, uuid: str) -> tuple[list[str], str]:
        """The sites to try, in order, or why there is none; what was decided about each is kept with the deployment."""
        with Session(self._engine) as session, session.begin():
            deployment = store.get(session, uuid)
            failures = store.recent_failures(session, store.now() - FAILURES_COUNT_FOR)
            candidates = order(self._ask(deployment), self._offers(), failures)
            deployment.selection = [candidate.model_dump() for candidate in candidates]
            return self._to_try(deployment), "" if any(one.rank for one in candidates) else shortage(candidates)

    def begin(self, uuid: str, operation: int, site: str) -> bool:
        """Note that a site is tried, before anything is made there; not where a newer operation has taken over."""
        with Session(self._engine) as session, session.begin():
            if store.get(session, uuid).operation != operation:
                return False
            session.merge(Attempt(deployment=uuid, site=site, outcome=Outcome.RUNNING))
            return True

    def make(self, uuid: str, site: str) -> tuple[str, str]:
        """The infrastructure at a site, made unless it is there; or why there is none."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            template, parameters = deployment.template, deployment.parameters
        try:
            there = self._site(site).find(uuid)
            return there[0] if there else self._site(site).create(uuid, template, parameters), ""
        except SiteError as error:
            return "", str(error)

    def look(self, uuid: str, operation: int, site: str, infrastructure: str) -> Seen | None:
        """How far an infrastructure is; None where a newer operation has taken over."""
        with Session(self._engine) as session:
            if store.get(session, uuid).operation != operation:
                return None
        try:
            seen = self._site(site).look(infrastructure)
        except SiteError as error:
            return Seen(at=time.time(), state=State.FAILED, reason=str(error), outputs={})
        return Seen(at=time.time(), state=seen.state, reason=seen.reason, outputs=seen.outputs)

    def change(self, uuid: str, site: str, infrastructure: str) -> str:
        """Make an infrastructure what the template says now; why not, where it cannot."""
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            template, parameters = deployment.template, deployment.parameters
        try:
            self._site(site).update(infrastructure, template, parameters)
        except SiteError as error:
            return str(error)
        return ""

    def remove(self, uuid: str, site: str) -> bool:
        """Ask a site to remove whatever carries the deployment's name; whether nothing did any more."""
        there = self._site(site).find(uuid)
        for infrastructure in there:
            self._site(site).remove(infrastructure)
        if there:
            return False
        with Session(self._engine) as session, session.begin():
            session.get_one(Attempt, (uuid, site)).outcome = Outcome.REMOVED
        return True

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
                self._site(site).remove(other)

    def complete(self, uuid: str, operation: int, site: str, infrastructure: str, outputs: Json) -> None:
        """Note where it runs."""
        with Session(self._engine) as session, session.begin():
            attempt = session.get_one(Attempt, (uuid, site))
            attempt.outcome, attempt.infrastructure, attempt.ended = Outcome.COMPLETE, infrastructure, store.now()
            _settle(session, uuid, operation, Status.CREATE_COMPLETE, None, outputs)

    def finish(self, uuid: str, operation: int, status: Status, outputs: Json) -> None:
        """Note that an operation is done."""
        with Session(self._engine) as session, session.begin():
            _settle(session, uuid, operation, status, None, outputs)

    def fail(self, uuid: str, operation: int, status: Status, reason: str) -> None:
        """Note that an operation has failed, and why."""
        with Session(self._engine) as session, session.begin():
            _settle(session, uuid, operation, status, reason, None)

    def place(self, uuid: str) -> tuple[str, str]:
        """Site and identifier of the infrastructure that runs; empty where none does."""
        with Session(self._engine) as session:
            for attempt in store.get(session, uuid).attempts:
                if attempt.outcome == Outcome.COMPLETE:
                    return attempt.site, attempt.infrastructure or ""
        return "", ""

    def touched(self, uuid: str) -> list[str]:
        """Sites where something may be."""
        with Session(self._engine) as session:
            return [one.site for one in store.get(session, uuid).attempts if one.outcome != Outcome.REMOVED]


def _settle(
    session: Session, uuid: str, operation: int, status: Status, reason: str | None, outputs: Json | None
) -> None:
    """Give a deployment its state, unless a newer operation has taken over."""
    deployment = store.get(session, uuid)
    if deployment.operation == operation:
        deployment.status, deployment.status_reason = status, reason
        if outputs is not None:
            deployment.outputs = outputs


def shortage(candidates: list[Candidate]) -> str:
    """What every site lacks."""
    if not candidates:
        return "no site offers anything (found no offer; needed one of a site's information provider)"
    return "no site can take it: " + "; ".join(f"{one.site}: {', '.join(one.reasons)}" for one in candidates)
