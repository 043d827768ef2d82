"""What becomes of an order, with sites that do what each test wants of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from deep_orchestrator import orders, store, workflows
from deep_orchestrator.selection import Agreement, Ask, Offer
from deep_orchestrator.sites import Look, NullSite, Site, SiteError, State
from deep_orchestrator.steps import FAILURES_COUNT_FOR, Limits, Steps
from deep_orchestrator.store import Deployment, Outcome, Status
from deep_orchestrator.worker import forget, working
from deep_orchestrator.workflows import Deployer
from tests.services.crashing_worker import ORGANISATION, new, wait_for


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

    def ask(self, deployment: Deployment) -> Ask:
        return Ask(organisation=deployment.organisation, gpus=1)

    def add(self, name: str, kind: type[NullSite] = NullSite, **options: Any) -> NullSite:
        site = kind(self.folder / name, **options)
        self.sites[name] = site
        return site

    def order(self, **options: Any) -> str:
        """Order a deployment; its identifier."""
        deployment = new(**options)
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
        wait_for(lambda: not self.get(uuid).status.in_progress, f"{uuid} is settled")
        return self.get(uuid)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, no_deployer: None) -> Iterator[Orchestrator]:
    folder = tmp_path_factory.mktemp("orchestrator")
    engine = store.engine(f"sqlite:///{folder}/orchestrator.sqlite")
    found: list[Orchestrator] = []

    def deployer() -> Deployer:
        found.append(Orchestrator(engine, DBOSClient(system_database_engine=engine, lazy=True), folder))
        ask = found[0].ask
        steps = Steps(engine, found[0].sites, found[0].offers, ask, Limits(attempt=0.5, stuck=0.2, removal=0.2))
        return Deployer(steps, poll=0.02, pause=0.001)

    with working(engine, "one", deployer, poll=0.05, heartbeat=timedelta(seconds=0.1)):
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


class Speechless(NullSite):
    """A site that does not say why."""

    def create(self, deployment: str, template: str, parameters: dict[str, Any]) -> str:
        raise SiteError


class OddError(Exception):
    """One that can be neither kept nor read again."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}\nand more")
        self.lock = threading.Lock()


class Odd(NullSite):
    """A site whose library has errors of its own."""

    def look(self, deployment: str, infrastructure: str) -> Look:
        raise OddError(500, "odd")


class Leaving(NullSite):
    """A site that refuses to remove anything."""

    def remove(self, deployment: str, infrastructure: str) -> None:
        raise SiteError("it is locked")


class Unchangeable(NullSite):
    """A site that changes nothing that runs."""

    def update(self, deployment: str, infrastructure: str, template: str, parameters: dict[str, Any]) -> None:
        raise SiteError("it cannot be changed")


class Sticky(NullSite):
    """A site that says that it removes, and does not."""

    def remove(self, deployment: str, infrastructure: str) -> None:
        pass


class Silent(NullSite):
    """A site whose infrastructures never get ready."""

    def look(self, deployment: str, infrastructure: str) -> Look:
        return Look(State.PENDING)


class Stuck(NullSite):
    """A site whose infrastructures do not get on, and say why."""

    def look(self, deployment: str, infrastructure: str) -> Look:
        return Look(State.STUCK, "ImagePullBackOff: there is no such image")


class Slow(NullSite):
    """A site whose infrastructures do not get on now and then, and never for long."""

    looks = 0

    def look(self, deployment: str, infrastructure: str) -> Look:
        self.looks += 1
        return Look(State.STUCK if self.looks % 2 else State.PENDING, "ErrImagePull: the registry is away")


def mistake(*_: object) -> None:
    """A step with a defect of ours."""
    raise ZeroDivisionError("a mistake")


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
        (Speechless, {}, "it refuses and does not say why"),
        (Odd, {}, "OddError: 500: odd"),
        (Silent, {}, "not ready within 0.5 s"),
        (Stuck, {}, "it does not get on, for 0.2 s: ImagePullBackOff: there is no such image"),
        (Slow, {}, "not ready within 0.5 s: ErrImagePull: the registry is away"),
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
    orchestrator.settled(orchestrator.order())  # it ran nowhere: the deployment may be at fault
    orchestrator.add("sound")
    orchestrator.settled(orchestrator.order())
    with Session(orchestrator.engine) as session:
        assert store.recent_failures(session, FAILURES_COUNT_FOR)["shaky"] == 1
        assert store.recent_failures(session, timedelta()) == {}


@pytest.mark.parametrize(("retries", "tried"), [(-1, 1), (0, 1), (1, 2), (None, 3), (9, 4)])
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
    monkeypatch.setattr(workflows, "FIRST_TIDYING", 0.05)
    first, second = orchestrator.add("first", Unreachable), orchestrator.add("second")
    uuid = orchestrator.order()
    found = orchestrator.settled(uuid)
    assert (found.status, len(second.find(uuid))) == (Status.CREATE_COMPLETE, 1)
    assert found.attempts[0].reason == "ConnectionError: no route to the site"
    assert isinstance(first, Unreachable)
    NullSite.create(first, uuid, "t", {})  # what it made before its answer was lost
    first.down = False
    wait_for(lambda: orchestrator.get(uuid).attempts[0].outcome == Outcome.REMOVED, "it is tidied")
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
    wait_for(lambda: len(site.find(uuid)) == 1, "it is made")
    orchestrator.ask_for(uuid, orders.delete)
    found = orchestrator.settled(uuid)
    assert (found.status, found.outputs, site.find(uuid)) == (Status.DELETE_COMPLETE, {}, [])


def test_what_does_not_go_is_no_success_and_can_be_deleted_again(orchestrator: Orchestrator) -> None:
    site = orchestrator.add("first", Sticky)
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.ask_for(uuid, orders.delete)
    found = orchestrator.settled(uuid)
    assert (found.status, found.status_reason) == (
        Status.DELETE_FAILED,
        "not removed, delete it again: first: not gone within 0.2 s",
    )
    for made in site.find(uuid):
        NullSite.remove(site, uuid, made)
    orchestrator.ask_for(uuid, orders.delete)
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE


def test_a_site_that_is_not_configured_any_more_is_named(orchestrator: Orchestrator) -> None:
    orchestrator.add("first")
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.sites["other"] = orchestrator.sites.pop("first")
    for what in (orders.update, orders.delete):
        orchestrator.ask_for(uuid, what)
        assert "no site first (found first; needed one of: other)" in str(orchestrator.settled(uuid).status_reason)


def test_a_site_that_keeps_what_it_has_is_quoted(orchestrator: Orchestrator) -> None:
    orchestrator.add("first", Leaving)
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    orchestrator.ask_for(uuid, orders.delete)
    found = orchestrator.settled(uuid)
    assert (found.status, found.status_reason) == (
        Status.DELETE_FAILED, "not removed, delete it again: first: it is locked",
    )  # fmt: skip


def test_of_two_orders_at_the_same_time_one_is_refused(orchestrator: Orchestrator) -> None:
    site = orchestrator.add("first")
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    with Session(orchestrator.engine) as session:
        seen = store.get(session, uuid)
        orchestrator.ask_for(uuid, orders.delete)
        with pytest.raises(orders.ConflictError, match="at the same time"):
            orders.update(orchestrator.client, session, seen)
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE
    assert site.find(uuid) == []


def test_what_is_over_does_not_settle_the_next_operation(orchestrator: Orchestrator) -> None:
    orchestrator.add("first", Silent)
    uuid = orchestrator.order()
    with Session(orchestrator.engine) as session:
        store.settle(session, uuid, 1, Status.CREATE_COMPLETE)
        orchestrator.ask_for(uuid, orders.delete)
        with pytest.raises(StaleDataError):
            session.flush()
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE


def test_what_is_made_late_is_found_after_the_deletion(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "LATE_TIDYING", 1.0)
    site = orchestrator.add("first", Silent)
    uuid = orchestrator.order()
    wait_for(lambda: len(site.find(uuid)) == 1, "it is made")
    orchestrator.ask_for(uuid, orders.delete)
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE
    site.create(uuid, "t", {})
    wait_for(lambda: site.find(uuid) == [], "it is found")


def test_the_database_is_waited_for(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    orchestrator.add("first")
    away = iter(range(3 * workflows.TRIES))
    begin = Steps.begin

    def interrupted(self: Steps, uuid: str, operation: int, site: str) -> bool:
        if next(away, None) is not None:
            raise sa.exc.OperationalError("SELECT 1", {}, ConnectionError("the server closed the connection"))
        return begin(self, uuid, operation, site)

    monkeypatch.setattr(Steps, "begin", interrupted)
    assert orchestrator.settled(orchestrator.order()).status == Status.CREATE_COMPLETE
    assert next(away, None) is None


def test_an_operation_that_breaks_off_is_given_an_end(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "fail", mistake)
        uuid = orchestrator.order()
        found = orchestrator.settled(uuid)
    assert found.status == Status.CREATE_FAILED
    assert "the operation has broken off" in str(found.status_reason)
    orchestrator.ask_for(uuid, orders.delete)
    assert orchestrator.settled(uuid).status == Status.DELETE_COMPLETE


def test_steps_of_what_is_long_done_are_forgotten(orchestrator: Orchestrator) -> None:
    orchestrator.add("first")
    uuid = orchestrator.order()
    orchestrator.settled(uuid)
    identifiers = [f"{uuid}:1"]
    wait_for(lambda: orchestrator.client.list_workflows(workflow_ids=identifiers)[0].status == "SUCCESS", "it ends")
    forget(timedelta(days=1))
    assert len(orchestrator.client.list_workflows(workflow_ids=identifiers)) == 1
    time.sleep(0.01)  # behind its end
    forget(timedelta())
    assert orchestrator.client.list_workflows(workflow_ids=identifiers) == []
    assert orchestrator.get(uuid).status == Status.CREATE_COMPLETE


def test_an_error_of_ours_ends_the_operation_too(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    orchestrator.add("first")
    monkeypatch.setattr(Steps, "begin", mistake)
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
    deployment = new()
    with Session(orchestrator.engine) as session:
        orders.create(orchestrator.client, session, deployment)
        uuid = deployment.uuid
        session.rollback()
    with pytest.raises(LookupError, match=uuid):
        orchestrator.get(uuid)
    assert orchestrator.client.list_workflows(workflow_ids=[f"{uuid}:1"]) == []
