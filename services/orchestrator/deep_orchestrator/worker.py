"""A process that works on deployments. Several, on several machines, share the work if the database is PostgreSQL."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import sqlalchemy as sa
from dbos import DBOS
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.store import Deployment, Status, Worker
from deep_orchestrator.workflows import QUEUE, TELLING, TIDYING, Deployer

APPLICATION = "orchestrator"
# Never another one: DBOS goes on only with what was begun under the same. What changes the order of the steps has to go
# through DBOS.patch.
VERSION = "1"
# Deployments that one worker works on at a time, most of which wait for their sites: each has a thread.
CONCURRENCY = 200
HEARTBEAT = timedelta(seconds=5)
# Heartbeats missed until others take the work over; it has to be longer than any pause of a process that lives.
MISSED = 6
# How long the steps of what is done are kept.
KEPT = timedelta(days=30)
# Workflows that ended without a result, which only a defect of ours does.
BROKEN_OFF = ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
LOG = logging.getLogger(__name__)


@contextmanager
def working(
    engine: sa.Engine,
    executor: str,
    deployer: Callable[[], Deployer],
    *,
    poll: float = 1,
    heartbeat: timedelta = HEARTBEAT,
    chore: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Work on deployments until the block ends.

    ``executor``: the name of this process, nobody else's, and the same after it was started again. ``deployer`` is
    called once DBOS is there. ``poll``: seconds between two looks for work. ``chore``: what else to do again and again.
    """
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_engine": engine,
            "executor_id": executor,
            "application_version": VERSION,
            "log_level": "WARNING",
        }
    )
    with ExitStack() as stack:
        stack.callback(DBOS.destroy)
        store.Base.metadata.create_all(engine)
        deployer()
        # A connection of its own, so that a worker that is busy does not seem dead.
        own = store.engine(engine.url.render_as_string(hide_password=False))
        stack.callback(own.dispose)
        beat(own, executor)
        DBOS.launch()
        DBOS.register_queue(QUEUE, partition_concurrency=1, worker_concurrency=CONCURRENCY, polling_interval_sec=poll)
        for queue in (TIDYING, TELLING):
            DBOS.register_queue(queue, worker_concurrency=CONCURRENCY, polling_interval_sec=poll)
        stack.enter_context(_repeating(lambda: beat(own, executor), heartbeat))
        stack.enter_context(_repeating(lambda: care(engine, heartbeat * MISSED), heartbeat))
        stack.enter_context(_repeating(chore, heartbeat))
        yield


@contextmanager
def _repeating(action: Callable[[], None], interval: timedelta) -> Iterator[None]:
    """Do something in a thread again and again, whatever happens to it, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(interval.total_seconds()):
            try:
                action()
            except Exception:  # pylint: disable=broad-exception-caught  # the next time may be better
                LOG.warning("To be done again", exc_info=True)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(interval.total_seconds())


def beat(engine: sa.Engine, executor: str) -> None:
    """Note that a worker lives, by the clock of the database: those of several machines differ."""
    seen = sa.update(Worker).where(Worker.executor == executor).values(seen=sa.func.now())
    with engine.begin() as connection:
        if connection.execute(seen).rowcount == 0:
            connection.execute(sa.insert(Worker).values(executor=executor, seen=sa.func.now()))


def care(engine: sa.Engine, silence: timedelta) -> None:
    """What one of the workers has to do for all."""
    if engine.dialect.name == "postgresql":
        take_over(engine, silence)
    settle_broken(engine)
    forget(KEPT)


def take_over(engine: sa.Engine, silence: timedelta) -> None:
    """Put the work of workers that have been silent so long back into its queues.

    The row of each is locked meanwhile, so that of several workers one does it. Only with PostgreSQL: in one file of
    SQLite there is one worker, which goes on with its own work when it starts again.
    """
    silent = sa.select(Worker).where(Worker.seen < sa.func.now() - silence).with_for_update(skip_locked=True)
    with Session(engine) as session, session.begin():
        for worker in session.scalars(silent):
            for queue in (QUEUE, TIDYING, TELLING):
                begun = DBOS.list_workflows(
                    status="PENDING", executor_id=worker.executor, queue_name=queue, load_input=False, load_output=False
                )
                DBOS.resume_workflows([workflow.workflow_id for workflow in begun], queue_name=queue)
                LOG.warning(
                    "%s is silent: %d workflows of its queue %s go on elsewhere", worker.executor, len(begun), queue
                )
            session.delete(worker)


def settle_broken(engine: sa.Engine) -> None:
    """Give deployments an end whose workflow has broken off, so that they can be deleted."""
    with Session(engine) as session:
        in_progress = [status for status in Status if status.in_progress]
        found = session.scalars(sa.select(Deployment).where(Deployment.status.in_(in_progress))).all()
    working_on = {f"{one.uuid}:{one.operation}": one for one in found}
    if not working_on:
        return
    for broken in DBOS.list_workflows(workflow_ids=list(working_on), status=BROKEN_OFF, load_input=False):
        one = working_on[broken.workflow_id]
        with Session(engine) as session, session.begin():
            failed = Status(one.status.replace("IN_PROGRESS", "FAILED"))
            reason = f"the operation has broken off: {broken.error or broken.status}"
            store.settle(session, one.uuid, one.operation, failed, reason=reason)


def forget(kept: timedelta) -> None:
    """Remove the steps of what has long been done; the deployments themselves stay."""
    done = DBOS.list_workflows(
        status=["SUCCESS", *BROKEN_OFF],
        completed_before=(store.now() - kept).isoformat(),
        limit=100,
        load_input=False,
        load_output=False,
    )
    DBOS.delete_workflows([workflow.workflow_id for workflow in done])
