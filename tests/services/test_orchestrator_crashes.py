"""The orchestrator is killed at any moment: nothing is lost, nothing is made twice, nothing is left at a site."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.store import Deployment, Outcome, Status
from tests.services.crashing_worker import BROKEN, SITES, SOUND

ROOT = Path(__file__).resolve().parents[2]
KILLS = 60
LONGEST = 600
SETTLED = {Status.CREATE_COMPLETE, Status.UPDATE_COMPLETE, Status.DELETE_COMPLETE}


def run_and_kill(url: str, folder: Path, kills: int, seed: int) -> None:
    command = [sys.executable, "-m", "tests.services.crashing_worker", "kill", url, str(folder), str(kills), str(seed)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    print("seed", seed)  # shown where the test fails
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=LONGEST)


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orchestrator.sqlite"
    run_and_kill(url, tmp_path, KILLS, seed=random.randrange(10**6))  # nosec B311

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
        lines = (tmp_path / site / "journal").read_text(encoding="utf-8").splitlines()
        made = [line for line in lines if line.startswith("create") and line.endswith("has happened")]
        assert len(made) == len(set(made))
