"""A process that works on deployments. Several, on several machines, share the work if the database is PostgreSQL."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa
from dbos import DBOS
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.store import Worker
from deep_orchestrator.workflows import QUEUE, TIDYING, Deployer

APPLICATION = "orchestrator"
# Of the order of the steps in workflows.py: with another one, what was begun before is not gone on with.
WORKFLOWS_VERSION = "1"
# Deployments that one worker works on at a time, most of which wait for their sites: each has a thread.
CONCURRENCY = 50
HEARTBEAT = timedelta(seconds=5)
# Heartbeats missed until others take the work over; it has to be longer than any pause of a process that lives.
MISSED = 6
LOG = logging.getLogger(__name__)


@contextmanager
def working(
    engine: sa.Engine,
    executor: str,
    deployer: Callable[[], Deployer],
    *,
    poll: float = 1,
    heartbeat: timedelta = HEARTBEAT,
) -> Iterator[None]:
    """Work on deployments until the block ends.

    ``executor``: the name of this process, nobody else's, and the same after it was started again. ``deployer`` is
    called once DBOS is there. ``poll``: seconds between two looks for work.
    """
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_engine": engine,
            "executor_id": executor,
            "application_version": WORKFLOWS_VERSION,
            "log_level": "WARNING",
        }
    )
    store.Base.metadata.create_all(engine)
    deployer()
    ended = threading.Event()
    _beat(engine, executor)
    DBOS.launch()
    DBOS.register_queue(QUEUE, partition_concurrency=1, worker_concurrency=CONCURRENCY, polling_interval_sec=poll)
    DBOS.register_queue(TIDYING, worker_concurrency=CONCURRENCY, polling_interval_sec=poll)
    # Of its own, so that a worker that is busy does not seem dead.
    connection = store.engine(engine.url.render_as_string(hide_password=False))
    beats = threading.Thread(target=_beats, args=(connection, executor, heartbeat, ended), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        connection.dispose()
        DBOS.destroy()


def _beats(engine: sa.Engine, executor: str, heartbeat: timedelta, ended: threading.Event) -> None:
    while not ended.wait(heartbeat.total_seconds()):
        try:
            _beat(engine, executor)
            if engine.dialect.name == "postgresql":
                take_over(engine, heartbeat * MISSED)
        except sa.exc.SQLAlchemyError:
            LOG.warning("The database does not answer; %s asks again", executor, exc_info=True)


def _beat(engine: sa.Engine, executor: str) -> None:
    """Note that a worker lives."""
    with Session(engine) as session, session.begin():
        session.merge(Worker(executor=executor, seen=store.now()))


def take_over(engine: sa.Engine, silence: timedelta) -> list[str]:
    """Put the work of those that have been silent so long back into the queue; their names.

    The row of each is locked meanwhile, so that of several workers one does it. Only with PostgreSQL: in one file of
    SQLite there is one worker, which goes on with its own work when it starts again.
    """
    gone = []
    silent = sa.select(Worker).where(Worker.seen < store.now() - silence).with_for_update(skip_locked=True)
    with Session(engine) as session, session.begin():
        for worker in session.scalars(silent):
            begun = DBOS.list_workflows(
                status="PENDING", executor_id=worker.executor, load_input=False, load_output=False
            )
            DBOS.resume_workflows([workflow.workflow_id for workflow in begun], queue_name=QUEUE)
            LOG.warning("%s is silent: %d of its deployments are taken over", worker.executor, len(begun))
            gone.append(worker.executor)
            session.delete(worker)
    return gone
