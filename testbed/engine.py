"""Docker Engine: found running, or started, and stopped again if it was started here."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from testbed import process
from testbed.errors import DeepError
from testbed.host import default_mtu
from testbed.paths import state_root
from testbed.run import run, tail

START_TIMEOUT = 60.0
# Set in the environment, it keeps an engine that was started here running after the last testbed.
KEEP = "DEEP_KEEP_ENGINE"
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
SYSTEMD_BOOTED = Path("/run/systemd/system")


def client() -> docker.DockerClient:
    """A client of the running engine; raises ``DeepError`` when none answers."""
    try:
        connection = docker.from_env(timeout=120)
        connection.ping()
    except DockerException as unreachable:
        raise DeepError(
            "Docker Engine does not answer",
            found=str(unreachable).splitlines()[0],
            needed="a running Docker Engine",
            next_step="run 'make testbed' as root, which installs and starts it, or: sudo systemctl start docker",
        ) from unreachable
    return connection


def ensure_running() -> docker.DockerClient:
    """Return a client, after starting the engine where none runs and this user may start it."""
    try:
        return client()
    except DeepError:
        if os.environ.get("DOCKER_HOST") or os.geteuid() != 0:
            raise
    program = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise DeepError(
            "Docker Engine is not installed", next_step="run 'make install' as root, which installs docker.io"
        )
    if SYSTEMD_BOOTED.is_dir():
        run(["systemctl", "start", "docker"])
        return client()
    return _start_detached(program)


def stop_if_ours() -> bool:
    """Stop an engine that :func:`ensure_running` started and that runs no container any more; undo what it set."""
    engine = process.load(_record())
    if engine is None or os.environ.get(KEEP) or client().containers.list():
        return False
    engine.stop()
    run(["ip", "link", "delete", "docker0"], check=False)
    before = json.loads(_before().read_text(encoding="utf-8"))
    run(["iptables-restore"], stdin=before["iptables"])
    IP_FORWARD.write_text(before["ip_forward"], encoding="ascii")
    _record().unlink()
    _before().unlink()
    return True


def _start_detached(program: str) -> docker.DockerClient:
    _before().parent.mkdir(parents=True, exist_ok=True)
    rules = "".join(run(["iptables-save", "-t", table]).stdout for table in ("filter", "nat"))
    _before().write_text(
        json.dumps({"iptables": rules, "ip_forward": IP_FORWARD.read_text(encoding="ascii")}), encoding="utf-8"
    )
    log = state_root() / "docker-engine.log"
    engine = process.start([program, f"--mtu={default_mtu()}"], log)
    engine.save(_record())
    deadline = time.monotonic() + START_TIMEOUT
    while engine.alive and time.monotonic() < deadline:
        try:
            return client()
        except DeepError:
            time.sleep(0.2)
    raise DeepError(f"Docker Engine did not start:\n{tail(log)}", next_step=f"read the whole log: {log}")


def _record() -> Path:
    return state_root() / "docker-engine.json"


def _before() -> Path:
    return state_root() / "docker-engine.before.json"
