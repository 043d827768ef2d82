"""Three workers share the work over one PostgreSQL, and go on with that of one that never comes back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from dbos import DBOSClient, EnqueueOptions
from sqlalchemy.orm import Session

from deep_orchestrator import orders, store
from deep_orchestrator.store import Deployment, Status
from deep_orchestrator.workflows import NAME, QUEUE, TIDYING, Deployer
from tests.services.crashing_worker import BROKEN, SITES, SOUND, new, program, wait_for

NAMES = ("one", "two", "three")
# So that nobody seems silent who is only slow: six of them.
HEARTBEAT = timedelta(seconds=1)


@pytest.fixture
def url(postgresql: dict[str, str]) -> str:
    return f"postgresql+psycopg://postgres@/postgres?host={quote(postgresql['PGHOST'])}"


@contextmanager
def working(name: str, url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(**program("work", url, folder, name, HEARTBEAT.total_seconds())) as worker:
        try:
            wait_for((folder / f"{name}.up").exists, f"worker {name} works")
            yield worker
        finally:
            worker.kill()


@pytest.fixture
def workers(url: str, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(working(name, url, tmp_path)) for name in NAMES}


def test_the_work_is_shared_and_that_of_the_dead_goes_on(
    url: str, workers: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    engine = store.engine(url)
    client = DBOSClient(system_database_engine=engine)

    def order() -> str:
        deployment = new()
        with Session(engine) as session, session.begin():
            orders.create(client, session, deployment)
            return deployment.uuid

    def tidy() -> None:
        options: EnqueueOptions = {
            "queue_name": TIDYING, "workflow_name": Deployer.tidy.__qualname__, "class_name": Deployer.__name__,
            "instance_name": NAME,
        }  # fmt: skip
        client.enqueue(options, removed, SOUND, 60.0)

    def executors(status: str, queue: str = QUEUE) -> dict[str, str | None]:
        found = client.list_workflows(status=status, queue_name=queue, load_input=False, load_output=False)
        return {workflow.workflow_id: workflow.executor_id for workflow in found}

    def of_two(queue: str) -> set[str]:
        return {identifier for identifier, executor in executors("PENDING", queue).items() if executor == "two"}

    removed = order()
    wait_for(lambda: set(NAMES) <= set(executors("SUCCESS").values()), "all have worked", meanwhile=order, pause=0.1)
    held = tmp_path / SOUND / "held"
    held.touch()
    for queue, action in ((QUEUE, order), (TIDYING, tidy)):
        wait_for(partial(of_two, queue), f"two works on {queue}", meanwhile=action, pause=0.1)
    begun = {queue: of_two(queue) for queue in (QUEUE, TIDYING)}
    workers["two"].kill()
    workers["two"].wait()

    def taken_over() -> bool:
        return all(begun[queue] <= executors("PENDING", queue).keys() - of_two(queue) for queue in begun)

    wait_for(taken_over, "everything of it is taken over")
    held.unlink()
    wait_for(lambda: not executors("PENDING", TIDYING), "everything is tidied")

    def unsettled() -> int:
        with Session(engine) as session:
            found = session.scalars(sa.select(Deployment).where(Deployment.status != Status.CREATE_COMPLETE))
            return len(found.all())

    wait_for(lambda: unsettled() == 0, "every deployment is made")
    with Session(engine) as session:
        running = [one for one in session.scalars(sa.select(Deployment)) if one.uuid != removed]
        expected = sorted(str(one.attempts[-1].infrastructure) for one in running)
        assert "two" not in {worker.executor for worker in session.scalars(sa.select(store.Worker))}
    there = {site: sorted(path.stem for path in (tmp_path / site).glob("*.json")) for site in SITES}
    assert there == {BROKEN: [], SOUND: expected}
    engine.dispose()
