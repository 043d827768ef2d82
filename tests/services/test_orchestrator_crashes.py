"""The orchestrator is killed at any moment: nothing is lost, nothing is made twice, nothing is left at a site."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.store import Deployment, Outcome, Status
from tests.services.crashing_worker import BROKEN, HAPPENED, SITES, SOUND, creations, program

KILLS = 60
LONGEST = 600
SETTLED = {Status.CREATE_COMPLETE, Status.UPDATE_COMPLETE, Status.DELETE_COMPLETE}


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orchestrator.sqlite"
    seed = random.randrange(10**6)  # nosec B311 # no secret
    print("seed", seed)  # shown where the test fails
    subprocess.run(**program("kill", url, tmp_path, KILLS, seed), check=True, timeout=LONGEST)

    there = {site: [path.stem for path in (tmp_path / site).glob("*.json")] for site in SITES}
    with Session(store.engine(url)) as session:
        deployments = session.scalars(sa.select(Deployment)).all()
        assert {one.status for one in deployments} <= SETTLED
        assert {Status.CREATE_COMPLETE, Status.DELETE_COMPLETE} <= {one.status for one in deployments}
        running = [
            attempt.infrastructure
            for one in deployments
            for attempt in one.attempts
            if attempt.outcome == Outcome.COMPLETE
        ]
        assert len(running) == sum(one.status != Status.DELETE_COMPLETE for one in deployments)
    assert there == {BROKEN: [], SOUND: there[SOUND]}
    assert sorted(there[SOUND]) == sorted(map(str, running))
    for site in SITES:
        made = creations(tmp_path, site, HAPPENED)
        assert len(made) == len(set(made))
