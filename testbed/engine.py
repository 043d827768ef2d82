"""Docker Engine: found running, or started, and stopped again if it was started here.

An engine of ours is known by its own pid file, which it writes itself, so that a command killed at any moment leaves no
engine that a later ``down`` does not find.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from testbed import process
from testbed.errors import DeepError
from testbed.files import write_json
from testbed.host import default_mtu, machine_name
from testbed.paths import run_dir
from testbed.run import run, tail

START_TIMEOUT = 60.0
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
SYSTEMD_BOOTED = Path("/run/systemd/system")
FILTERS = ("iptables", "ip6tables")
TABLES = ("filter", "nat")
# What names of chains and interfaces tell to be the engine's own: networks of testbeds went with them.
MARKS = ("DOCKER", "docker0")


def client() -> docker.DockerClient:
    """A client of the running engine; raises ``DeepError`` when none answers."""
    try:
        connection = docker.from_env(timeout=120)
        connection.ping()
    except DockerException as unreachable:
        raise DeepError(
            "Docker Engine does not answer",
            host=machine_name(),
            found=str(unreachable).splitlines()[0],
            needed="a running Docker Engine",
            next_step="run 'make testbed' as root, which installs and starts it, or: sudo systemctl start docker",
        ) from unreachable
    return connection


def answers() -> bool:
    """Whether an engine runs."""
    try:
        client()
    except DeepError:
        return False
    return True


@contextmanager
def in_use() -> Iterator[docker.DockerClient]:
    """A client of an engine that is started where none runs, and that no other command stops meanwhile."""
    with _lock_file("docker-engine.users") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield ensure_running()


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
            "Docker Engine is not installed",
            host=machine_name(),
            found="no program dockerd",
            needed="Docker Engine 20.10 or newer",
            next_step="run 'make install' as root, which installs docker.io",
        )
    if SYSTEMD_BOOTED.is_dir():
        run(["systemctl", "start", "docker"])
        return client()
    with _lock_file("docker-engine.lock") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        return _start_detached(program)


def stop_if_ours() -> bool:
    """Stop an engine that :func:`ensure_running` started and that nobody uses any more; undo what it set.

    An earlier call that was cut short is finished. Returns whether there was anything to do.
    """
    if not _before().is_file():
        return False
    with _lock_file("docker-engine.users") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        engine = _ours()
        if engine is not None and client().containers.list():
            return False
        if engine is not None:
            engine.stop()
        if engine is not None or not answers():
            _put_back(json.loads(_before().read_text(encoding="utf-8")))
        _before().unlink()
        return True


def _start_detached(program: str) -> docker.DockerClient:
    engine = _ours()
    log = run_dir() / "docker-engine.log"
    if engine is None:
        if not _before().is_file():
            write_json(_before(), _network_settings())
        engine = process.start([program, f"--mtu={default_mtu()}", f"--pidfile={_pid_file()}"], log)
    deadline = time.monotonic() + START_TIMEOUT
    while engine.alive and time.monotonic() < deadline:
        if answers():
            return client()
        time.sleep(0.2)
    raise DeepError(
        f"Docker Engine did not start:\n{tail(log)}",
        host=machine_name(),
        needed=f"an answer within {START_TIMEOUT:.0f} s",
        next_step=f"read the whole log: {log}",
    )


def _ours() -> process.Process | None:
    """The engine that was started here, if it runs."""
    try:
        pid = int(_pid_file().read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    return process.of(pid) if f"--pidfile={_pid_file()}" in process.command(pid) else None


def _network_settings() -> dict[str, Any]:
    """What a start of the engine changes and its end leaves: forwarding, and the policy for what is forwarded."""
    return {
        "ip_forward": IP_FORWARD.read_text(encoding="ascii").strip(),
        "forward_policy": {program: _policy(program) for program in FILTERS if shutil.which(program)},
    }


def _policy(program: str) -> str:
    lines = run([f"{program}-save", "-t", "filter"], check=False).stdout.splitlines()
    return next((line.split()[1] for line in lines if line.startswith(":FORWARD ")), "ACCEPT")


def _put_back(before: dict[str, Any]) -> None:
    """Remove the engine's bridge and its own rules, and no rule of anybody else; set what it set back."""
    run(["ip", "link", "delete", "docker0"], check=False)
    for program, policy in before["forward_policy"].items():
        for table in TABLES:
            rules = run([f"{program}-save", "-t", table], check=False).stdout
            if any(mark in rules for mark in MARKS):
                run([f"{program}-restore", "--table", table], stdin=without_engine(rules))
        run([program, "--policy", "FORWARD", policy], check=False)
    IP_FORWARD.write_text(before["ip_forward"], encoding="ascii")


def without_engine(rules: str) -> str:
    """The output of iptables-save without the chains and rules that Docker Engine made."""
    kept = [line for line in rules.splitlines() if not any(mark in line for mark in MARKS)]
    return "\n".join(kept) + "\n"


@contextmanager
def _lock_file(name: str) -> Iterator[Any]:
    run_dir().mkdir(parents=True, mode=0o700, exist_ok=True)
    with (run_dir() / name).open("a", encoding="utf-8") as file:
        yield file


def _pid_file() -> Path:
    return run_dir() / "docker-engine.pid"


def _before() -> Path:
    return run_dir() / "docker-engine.before.json"
