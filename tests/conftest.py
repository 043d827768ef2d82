"""What every test shares."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import engine
from tools import unpacked_programs


@pytest.fixture(scope="session", autouse=True)
def running_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Docker Engine for live tests: one for all of them, stopped at the end if it was started here."""
    if not any(item.get_closest_marker("live") for item in request.session.items):
        yield
        return
    with engine.in_use():
        yield
    engine.stop_if_ours()


@pytest.fixture(scope="module")
def distribution_programs() -> Iterator[None]:
    """Have programs of the distribution found that ``scripts/bootstrap.sh test`` has unpacked."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in unpacked_programs.environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory, distribution_programs: None) -> Iterator[dict[str, str]]:
    """A PostgreSQL without a network; returns the environment of its clients."""
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("PostgreSQL is not here; on Debian and Ubuntu fetch it: scripts/bootstrap.sh test")
    programs = Path(found).resolve().parent
    folder = tmp_path_factory.mktemp("postgresql")
    # It refuses to run as root, and nobody else may enter root's folders: root goes by another name there.
    as_owner = ["unshare", "--user", "--map-user=daemon", "--map-group=daemon"] if os.geteuid() == 0 else []
    data = folder / "data"
    initdb = [f"{programs}/initdb", f"--pgdata={data}", "--auth=trust", "--username=postgres", "--no-sync"]
    subprocess.run([*as_owner, *initdb], check=True, capture_output=True, cwd="/")
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(data), "PGUSER": "postgres"}
    with subprocess.Popen(
        [*as_owner, f"{programs}/postgres", "-D", str(data), *options], cwd="/", stderr=subprocess.DEVNULL
    ) as running:
        try:
            ready = [f"{programs}/pg_isready", "--quiet", f"--host={data}"]
            deadline = time.monotonic() + 20
            while subprocess.run(ready, check=False).returncode != 0:
                assert time.monotonic() < deadline, "PostgreSQL does not answer"
                time.sleep(0.1)
            yield environment
        finally:
            running.send_signal(signal.SIGINT)  # SIGTERM would wait for clients that are still connected
