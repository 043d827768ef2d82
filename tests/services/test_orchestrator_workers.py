"""Three workers share the work over one PostgreSQL, and go on with that of one that never comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.orm import Session

from deep_orchestrator import orders, store
from deep_orchestrator.store import Deployment, Status
from tests.services.crashing_worker import BROKEN, SITES, SOUND, new

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("one", "two", "three")
# So that nobody seems silent who is only slow: six of them.
HEARTBEAT = timedelta(seconds=1)
PATIENCE = 60


def wait_for(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def url(postgresql: dict[str, str]) -> str:
    return f"postgresql+psycopg://postgres@/postgres?host={quote(postgresql['PGHOST'])}"


def start(name: str, url: str, folder: Path) -> subprocess.Popen[bytes]:
    seconds = str(HEARTBEAT.total_seconds())
    command = [sys.executable, "-m", "tests.services.crashing_worker", "work", url, str(folder), name, seconds]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path}
    started = subprocess.Popen(command, cwd=ROOT, env=environment)
    wait_for((folder / f"{name}.up").exists, f"worker {name} works")
    return started


@pytest.fixture
def workers(url: str, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    found: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in NAMES:
            found[name] = start(name, url, tmp_path)
        yield found
    finally:
        for worker in found.values():
            worker.kill()
            worker.wait()


def test_the_work_is_shared_and_that_of_the_dead_goes_on(
    url: str, workers: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    engine = store.engine(url)
    client = DBOSClient(system_database_engine=engine)

    def order() -> None:
        with Session(engine) as session, session.begin():
            orders.create(client, session, new())

    def executors(status: str) -> dict[str, str | None]:
        found = client.list_workflows(status=status, load_input=False, load_output=False)
        return {workflow.workflow_id: workflow.executor_id for workflow in found}

    def order_until(status: str, wanted: set[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not wanted <= set(executors(status).values()):
            assert time.monotonic() < deadline
            order()
            time.sleep(0.1)

    order_until("SUCCESS", set(NAMES))
    held = tmp_path / SOUND / "held"
    held.touch()
    order_until("PENDING", {"two"})
    begun = {identifier for identifier, executor in executors("PENDING").items() if executor == "two"}
    workers["two"].kill()
    workers["two"].wait()
    wait_for(lambda: begun <= {one for one, by in executors("PENDING").items() if by in {"one", "three"}}, "taken over")
    held.unlink()

    def unsettled() -> int:
        with Session(engine) as session:
            found = session.scalars(sa.select(Deployment).where(Deployment.status != Status.CREATE_COMPLETE))
            return len(found.all())

    wait_for(lambda: unsettled() == 0, "every deployment is made")
    with Session(engine) as session:
        expected = sorted(str(one.attempts[-1].infrastructure) for one in session.scalars(sa.select(Deployment)))
        assert "two" not in {worker.executor for worker in session.scalars(sa.select(store.Worker))}
    there = {site: sorted(path.stem for path in (tmp_path / site).glob("*.json")) for site in SITES}
    assert there == {BROKEN: [], SOUND: expected}
    engine.dispose()
