"""What becomes of an order, with sites that do what each test wants of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.orm import Session

from deep_orchestrator import orders, store, workflows
from deep_orchestrator.selection import Agreement, Ask, Offer
from deep_orchestrator.sites import Look, NullSite, Site, SiteError, State
from deep_orchestrator.steps import FAILURES_COUNT_FOR, Steps
from deep_orchestrator.store import Deployment, Outcome, Status
from deep_orchestrator.worker import working
from deep_orchestrator.workflows import Deployer, Limits

PATIENCE = 60
ORGANISATION = "imaging"


@dataclass
class Orchestrator:
    """One that runs, and the sites that it knows, in the order in which they come first."""

    engine: sa.Engine
    client: DBOSClient
    folder: Path
    sites: dict[str, Site] = field(default_factory=dict)
    gpus_free: int = 1

    def offers(self) -> list[Offer]:
        return [
            Offer(
                site=name, gpus_total=1, gpus_free=self.gpus_free, agreements={ORGANISATION: Agreement(priority=place)}
            )
            for place, name in enumerate(self.sites)
        ]

    def add(self, name: str, kind: type[NullSite] = NullSite, **options: Any) -> NullSite:
        site = kind(self.folder / name, **options)
        self.sites[name] = site
        return site

    def order(self, **options: Any) -> str:
        """Order a deployment; its identifier."""
        deployment = Deployment(
            issuer="https://iam.test",
            subject="1",
            username="member",
            organisation=ORGANISATION,
            template="t",
            **options,
        )
        with Session(self.engine) as session, session.begin():
            orders.create(self.client, session, deployment)
            return deployment.uuid

    def ask_for(self, uuid: str, what: Callable[[DBOSClient, Session, Deployment], None], **changed: Any) -> None:
        """Order something else of a deployment."""
        with Session(self.engine) as session, session.begin():
            deployment = store.get(session, uuid)
            for name, value in changed.items():
                setattr(deployment, name, value)
            what(self.client, session, deployment)

    def get(self, uuid: str) -> Deployment:
        with Session(self.engine) as session:
            deployment = store.get(session, uuid)
            assert deployment.attempts is not None  # read while there is a session
            return deployment

    def settled(self, uuid: str) -> Deployment:
        self.wait_for(lambda: not self.get(uuid).status.in_progress)
        return self.get(uuid)

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    folder = tmp_path_factory.mktemp("orchestrator")
    engine = store.engine(f"sqlite:///{folder}/orchestrator.sqlite")
    found: list[Orchestrator] = []

    def deployer() -> Deployer:
        found.append(Orchestrator(engine, DBOSClient(system_database_engine=engine, lazy=True), folder))
        steps = Steps(engine, found[0].sites, found[0].offers, lambda one: Ask(organisation=one.organisation, gpus=1))
        return Deployer(steps, Limits(poll=0.02, attempt=0.5, removal=0.2, pause=0.001))

    with working(engine, "one", deployer, poll=0.05):
        yield found[0]


@pytest.fixture
def orchestrator(running: Orchestrator, tmp_path: Path) -> Orchestrator:
    """The running one without a site."""
    running.folder, running.gpus_free = tmp_path, 1
    running.sites.clear()
    return running


class Unreachable(NullSite):
    """A site that answers nothing while it is down."""

    down = True

    def _refuse(self) -> None:
        if self.down:
            raise ConnectionError("no route to the site")

    def find(self, deployment: str) -> list[str]:
        self._refuse()
        return super().find(deployment)


class Refusing(NullSite):
    """A site that makes nothing for anybody."""

    def create(self, deployment: str, template: str, parameters: dict[str, Any]) -> str:
        raise SiteError("the quota is used up")


class Unchangeable(NullSite):
    """A site that changes nothing that runs."""

    def update(self, infrastructure: str, template: str, parameters: dict[str, Any]) -> None:
        raise SiteError("it cannot be changed")


class Sticky(NullSite):
    """A site that says that it removes, and does not."""

    def remove(self, infrastructure: str) -> None:
        pass


class Silent(NullSite):
    """A site whose infrastructures never get ready."""

    def look(self, infrastructure: str) -> Look:
        return Look(State.PENDING)


def test_it_runs_at_the_first_site(orchestrator: Orchestrator) -> None:
    first, second = orchestrator.add("first"), orchestrator.add("second")
    uuid = orchestrator.order(parameters={"size": 1})
    found = orchestrator.settled(uuid)
    (made,) = first.find(uuid)
    assert (found.status, found.outputs, second.find(uuid)) == (
        Status.CREATE_COMPLETE,
        {"endpoint": f"null:{made}"},
        [],
    )
    assert [(one.site, one.outcome, one.infrastructure) for one in found.attempts] == [
        ("first", Outcome.COMPLETE, made)
    ]
    assert [one["site"] for one in found.selection] == ["first", "second"]


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (NullSite, {"broken": True}, "nothing works at this site"),
        (Refusing, {}, "the quota is used up"),
        (Silent, {}, "not ready within 0.5 s"),
    ],
)
def test_after_a_failure_the_next_site_is_tried_and_nothing_is_left(
    orchestrator: Orchestrator, kind: type[NullSite], options: dict[str, Any], reason: str
) -> None:
    first, second = orchestrator.add("first", kind, **options), orchestrator.add("second")
    uuid = orchestrator.order()
    found = orchestrator.settled(uuid)
    assert (found.status, len(first.find(uuid)), len(second.find(uuid))) == (Status.CREATE_COMPLETE, 0, 1)
    assert {one.site: (one.outcome, one.reason) for one in found.attempts} == {
        "first": (Outcome.REMOVED, reason),
        "second": (Outcome.COMPLETE, None),
    }


def test_a_failure_counts_against_the_site_the_next_time(orchestrator: Orchestrator) -> None:
    orchestrator.add("shaky", broken=True)
    orchestrator.settled(orchestrator.order())
    with Session(orchestrator.engine) as session:
        assert store.recent_failures(session, store.now() - FAILURES_COUNT_FOR)["shaky"] >= 1
        assert store.recent_failures(session, store.now()).get("shaky") is None


@pytest.mark.parametrize(("retries", "tried"), [(0, 1), (1, 2), (None, 3), (9, 4)])
def test_so_many_sites_are_tried(orchestrator: Orchestrator, retries: int | None, tried: int) -> None:
    for number in range(4):
        orchestrator.add(f"site{number}", broken=True)
    found = orchestrator.settled(orchestrator.order(max_providers_retry=retries))
    assert (found.status, len(found.attempts)) == (Status.CREATE_FAILED, tried)
    assert str(found.status_reason).count("nothing works at this site") == tried


def test_what_failed_last_is_kept_for_whoever_wants_to_look_at_it(orchestrator: Orchestrator) -> None:
    first, second = orchestrator.add("first", broken=True), orchestrator.add("second", broken=True)
    uuid = orchestrator.order(keep_last_attempt=True)
    assert orchestrator.settled(uuid).status == Status.CREATE_FAILED
    assert (len(first.find(uuid)), len(second.find(uuid))) == (0, 1)
    orchestrator.ask_for(uuid, orders.delete)
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE
    assert second.find(uuid) == []


def test_where_no_site_can_take_it_that_is_said(orchestrator: Orchestrator) -> None:
    orchestrator.add("first")
    orchestrator.gpus_free = 0
    found = orchestrator.settled(orchestrator.order())
    assert (found.status, found.attempts) == (Status.CREATE_FAILED, [])
    assert found.status_reason == "no site can take it: first: 1 GPUs asked, 0 of 1 free"


def test_without_any_offer_that_is_said(orchestrator: Orchestrator) -> None:
    assert "no site offers anything" in str(orchestrator.settled(orchestrator.order()).status_reason)


def test_a_site_that_is_not_reached_is_passed_over_and_tidied_later(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "FIRST_PAUSE", 0.05)
    first, second = orchestrator.add("first", Unreachable), orchestrator.add("second")
    uuid = orchestrator.order()
    found = orchestrator.settled(uuid)
    assert (found.status, len(second.find(uuid))) == (Status.CREATE_COMPLETE, 1)
    assert found.attempts[0].reason == "ConnectionError: no route to the site"
    assert isinstance(first, Unreachable)
    NullSite.create(first, uuid, "t", {})  # what it made before its answer was lost
    first.down = False
    orchestrator.wait_for(lambda: orchestrator.get(uuid).attempts[0].outcome == Outcome.REMOVED)
    assert first.find(uuid) == []


def test_what_runs_is_changed_where_it_is(orchestrator: Orchestrator) -> None:
    site = orchestrator.add("first")
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    before = site.find(uuid)
    orchestrator.ask_for(uuid, orders.update, template="another")
    assert orchestrator.settled(uuid).status == Status.UPDATE_COMPLETE
    assert site.find(uuid) == before
    assert '"another"' in (orchestrator.folder / "first" / f"{before[0]}.json").read_text(encoding="utf-8")


def test_a_change_that_is_refused_leaves_what_runs(orchestrator: Orchestrator) -> None:
    site = orchestrator.add("first", Unchangeable)
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.ask_for(uuid, orders.update, template="another")
    found = orchestrator.settled(uuid)
    assert (found.status, found.status_reason) == (Status.UPDATE_FAILED, "it cannot be changed")
    assert len(site.find(uuid)) == 1


def test_it_is_deleted_while_it_is_being_made(orchestrator: Orchestrator) -> None:
    site = orchestrator.add("first", Silent)
    uuid = orchestrator.order()
    orchestrator.wait_for(lambda: len(site.find(uuid)) == 1)
    orchestrator.ask_for(uuid, orders.delete)
    found = orchestrator.settled(uuid)
    assert (found.status, found.outputs, site.find(uuid)) == (Status.DELETE_COMPLETE, {}, [])


def test_what_does_not_go_is_no_success_and_can_be_deleted_again(orchestrator: Orchestrator) -> None:
    site = orchestrator.add("first", Sticky)
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.ask_for(uuid, orders.delete)
    found = orchestrator.settled(uuid)
    assert (found.status, found.status_reason) == (Status.DELETE_FAILED, "not gone from first: delete it again")
    for made in site.find(uuid):
        NullSite.remove(site, made)
    orchestrator.ask_for(uuid, orders.delete)
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE


def test_a_site_that_is_not_configured_any_more_is_named(orchestrator: Orchestrator) -> None:
    orchestrator.add("first")
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.sites["other"] = orchestrator.sites.pop("first")
    orchestrator.ask_for(uuid, orders.update)
    assert "no site first (found first; needed one of: other)" in str(orchestrator.settled(uuid).status_reason)


def test_an_error_of_ours_ends_the_operation_too(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    orchestrator.add("first")

    def begin(*_: object) -> bool:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Steps, "begin", begin)
    found = orchestrator.settled(orchestrator.order())
    assert (found.status, found.status_reason) == (Status.CREATE_FAILED, "ZeroDivisionError: a mistake")


@pytest.mark.parametrize("what", [orders.update, orders.delete])
def test_what_is_gone_is_neither_changed_nor_deleted(
    orchestrator: Orchestrator, what: Callable[[DBOSClient, Session, Deployment], None]
) -> None:
    orchestrator.add("first")
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.ask_for(uuid, orders.delete)
    orchestrator.settled(uuid)
    with pytest.raises(orders.ConflictError, match="DELETE_COMPLETE"):
        orchestrator.ask_for(uuid, what)


def test_an_order_that_is_taken_back_leaves_neither_a_row_nor_work(orchestrator: Orchestrator) -> None:
    orchestrator.add("first")
    deployment = Deployment(issuer="i", subject="1", username="m", organisation=ORGANISATION, template="t")
    with Session(orchestrator.engine) as session:
        orders.create(orchestrator.client, session, deployment)
        uuid = deployment.uuid
        session.rollback()
    with pytest.raises(LookupError, match=uuid):
        orchestrator.get(uuid)
    assert orchestrator.client.list_workflows(workflow_ids=[f"{uuid}:1"]) == []
