"""The HTTP server that gives nodes their artefacts: a detached process, known by its id and start time."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from testbed import process
from testbed.artifacts import api
from testbed.errors import CHECK_FAILED, DeepError
from testbed.host import machine_name
from testbed.run import tail

PORT = 8480
START_TIMEOUT = 20.0
RELEASE_TIMEOUT = 2.0
RECORD = "server.json"
LOG = "logs/artifacts-server.log"


def url(gateway: str) -> str:
    """Where nodes find the artefacts of a testbed whose host is ``gateway``."""
    return f"http://{gateway}:{PORT}"


def ensure(folder: Path, gateway: str) -> bool:
    """Start the server where it does not run; returns whether it was started. ``folder`` is the testbed's state."""
    command = api.serve_command(gateway, PORT)
    recorded = process.load(folder / RECORD)
    # It may serve the cache of another day, or an address that the network no longer has.
    if recorded is not None and process.command(recorded.pid) != command:
        recorded.stop()
    # Perhaps started by a command that was killed before it could write the record.
    running = process.find(command)
    if running is not None:
        running.save(folder / RECORD)
        return False
    _check_port(gateway)
    api.mirror_dir().mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    server = process.start(command, log)
    server.save(folder / RECORD)
    _wait(server, gateway, log)
    return True


def running(folder: Path) -> int | None:
    """Process id of the server, ``None`` where it does not run."""
    found = process.load(folder / RECORD)
    return found.pid if found else None


def stop(folder: Path, gateway: str) -> bool:
    """Stop the server of a testbed; whether one ran. A process that only has the same id is left alone."""
    server = process.load(folder / RECORD) or (process.find(api.serve_command(gateway, PORT)) if gateway else None)
    if server is not None:
        server.stop()
    (folder / RECORD).unlink(missing_ok=True)
    return server is not None


def _check_port(gateway: str) -> None:
    # A server that was just killed holds it until the last of its threads has ended.
    deadline = time.monotonic() + RELEASE_TIMEOUT
    while (refused := _refusal(gateway)) is not None:
        if time.monotonic() > deadline:
            raise DeepError(
                "the port of the artefact server cannot be used",
                host=machine_name(),
                found=f"{gateway} port {PORT}: {refused.strerror}",
                needed=f"port {PORT} free on {gateway}",
                next_step=f"find its owner with 'ss -ltnp sport = :{PORT}' and stop it",
            )
        time.sleep(0.05)


def _refusal(gateway: str) -> OSError | None:
    """Why the port cannot be listened on; ``None`` where it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((gateway, PORT))
        except OSError as refused:
            return refused
    return None


def _wait(server: process.Process, gateway: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while server.alive and time.monotonic() < deadline:
        try:
            with socket.create_connection((gateway, PORT), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    server.stop()
    raise DeepError(
        f"the artefact server did not start:\n{tail(log)}",
        next_step=f"read the whole log: {log}",
        exit_code=CHECK_FAILED,
    )
