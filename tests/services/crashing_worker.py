"""A worker of the orchestrator that is killed at random moments and started again, while orders come in.

    python -m tests.services.crashing_worker kill DATABASE_URL FOLDER KILLS SEED
    python -m tests.services.crashing_worker work DATABASE_URL FOLDER NAME HEARTBEAT

The first ends when every deployment is settled; its workers are forked, so that starting one takes no imports. The
second is one worker, for others to kill.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.orm import Session

from deep_orchestrator import orders, store
from deep_orchestrator.selection import Agreement, Ask, Offer
from deep_orchestrator.sites import Look, NullSite, Site, State
from deep_orchestrator.steps import Limits, Steps
from deep_orchestrator.store import Deployment, Status
from deep_orchestrator.worker import HEARTBEAT, working
from deep_orchestrator.workflows import Deployer

ROOT = Path(__file__).resolve().parents[2]
ORGANISATION = "imaging"
HAPPENED = "has happened"
Action = Callable[[], object]
# The first one is tried first and makes nothing that works.
BROKEN, SOUND = "broken", "sound"
SITES = {BROKEN: 1, SOUND: 2}
LONGEST_LIFE = 0.6
# The others are killed while they start.
WHILE_WORKING = 0.8
MOST_KILLS = 300
PATIENCE = 120


class SlowSite(NullSite):
    """Takes its time before and after it has made or removed something, so that a kill hits it there.

    ``journal`` of it all: a line when something begins, has an effect and ends. While there is a file
    ``held``, nothing gets ready and nothing goes.
    """

    PAUSE = 0.03

    def __init__(self, folder: Path, seconds: float = 0, *, broken: bool = False) -> None:
        super().__init__(folder, seconds, broken=broken)
        self.journal, self.held = folder / "journal", folder / "held"

    @contextmanager
    def _slowly(self, what: str) -> Iterator[None]:
        self._note(f"{what} begins")
        time.sleep(self.PAUSE)
        yield
        self._note(f"{what} {HAPPENED}")
        time.sleep(self.PAUSE)
        self._note(f"{what} ends")

    def _note(self, line: str) -> None:
        with self.journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{line}\n")

    def create(self, deployment: str, template: str, parameters: dict[str, Any]) -> str:
        """Make another one, slowly."""
        with self._slowly(f"create {deployment}"):
            return super().create(deployment, template, parameters)

    def look(self, deployment: str, infrastructure: str) -> Look:
        """Not ready while it is held."""
        return Look(State.PENDING) if self.held.exists() else super().look(deployment, infrastructure)

    def remove(self, deployment: str, infrastructure: str) -> None:
        """Remove it, slowly, unless it is held."""
        with self._slowly("remove"):
            if not self.held.exists():
                super().remove(deployment, infrastructure)


def sites(folder: Path) -> dict[str, Site]:
    """Every site by name."""
    return {name: SlowSite(folder / name, 0.1, broken=name == BROKEN) for name in SITES}


def offers() -> list[Offer]:
    """What every site has."""
    return [
        Offer(site=name, gpus_total=2, gpus_free=2, agreements={ORGANISATION: Agreement(priority=priority)})
        for name, priority in SITES.items()
    ]


def work(url: str, folder: Path, executor: str = "one", heartbeat: timedelta = HEARTBEAT) -> None:
    """Work until killed."""
    engine = store.engine(url)

    def deployer() -> Deployer:
        steps = Steps(engine, sites(folder), offers, lambda one: Ask(organisation=one.organisation, gpus=1), Limits())
        return Deployer(steps, poll=0.05)

    with working(engine, executor, deployer, poll=0.05, heartbeat=heartbeat):
        (folder / f"{executor}.up").touch()
        signal.pause()


def forked(action: Action) -> int:
    """The process id of a child that does something."""
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    return pid


def killed(pid: int) -> None:
    """Kill a child and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_for(
    holds: Action, what: str, *, seconds: float = 240, pause: float = 0.02, meanwhile: Action = lambda: None
) -> None:
    """Wait until something holds; raises AssertionError where that takes longer."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        meanwhile()
        time.sleep(pause)


def order_something(engine: sa.Engine, chance: random.Random) -> None:
    """A new deployment, or that one there is be deleted or changed, whatever is being done with it."""
    client = DBOSClient(system_database_engine=engine)
    with Session(engine) as session, session.begin():
        there = session.scalars(sa.select(Deployment).where(Deployment.status != Status.DELETE_COMPLETE)).all()
        what = chance.choice((orders.create, orders.create, orders.delete, orders.update)) if there else orders.create
        with suppress(orders.ConflictError):
            what(client, session, chance.choice(there) if what is not orders.create else new())


def new(**options: Any) -> Deployment:
    """What a member asks for."""
    asked = {"subject": "1", "username": "member", "organisation": ORGANISATION, "template": "t", "parameters": {}}
    return Deployment(issuer="https://iam.test", **(asked | options))


def program(what: str, *arguments: object) -> dict[str, Any]:
    """How this file is run as a program, for subprocess."""
    return {
        "args": [sys.executable, "-m", "tests.services.crashing_worker", what, *map(str, arguments)],
        "cwd": ROOT,
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    }


def unsettled(engine: sa.Engine) -> int:
    """How many deployments somebody still has to work on."""
    with Session(engine) as session:
        return sum(one.status.in_progress for one in session.scalars(sa.select(Deployment)))


def creations(folder: Path, site: str, point: str) -> list[str]:
    """What was made at a site, as far as such a point: a line with the deployment for each time."""
    journal = folder / site / "journal"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return [line for line in lines if line.startswith("create") and line.endswith(point)]


def interrupted(folder: Path) -> tuple[int, int]:
    """How often the sound site was interrupted before it had made something, and after it, before anybody knew."""
    begun, happened, ended = (len(creations(folder, SOUND, point)) for point in ("begins", HAPPENED, "ends"))
    return begun - happened, happened - ended


def kill(url: str, folder: Path, kills: int, seed: int) -> None:
    """Kill so many workers, and more until some were killed while they made something; then let one finish."""
    chance = random.Random(seed)  # nosec B311 # to be repeated
    engine = store.engine(url)
    up = folder / "one.up"
    first = forked(lambda: work(url, folder))
    wait_for(up.exists, "the first worker", seconds=PATIENCE)
    killed(first)
    for number in range(MOST_KILLS):
        if number >= kills and min(interrupted(folder)) > 0:
            break
        order_something(engine, chance)
        engine.dispose()
        up.unlink(missing_ok=True)
        worker = forked(lambda: work(url, folder))
        if chance.random() < WHILE_WORKING:
            wait_for(up.exists, "a worker", seconds=PATIENCE)
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        killed(worker)
    else:
        raise SystemExit(f"{MOST_KILLS} kills interrupted {interrupted(folder)} creations")
    engine.dispose()
    last = forked(lambda: work(url, folder))
    try:
        wait_for(lambda: unsettled(engine) == 0, "every deployment is settled", seconds=PATIENCE)
    finally:
        killed(last)


if __name__ == "__main__":
    what, database, place, *rest = sys.argv[1:]
    if what == "kill":
        kill(database, Path(place), int(rest[0]), int(rest[1]))
    else:
        work(database, Path(place), rest[0], timedelta(seconds=float(rest[1])))
