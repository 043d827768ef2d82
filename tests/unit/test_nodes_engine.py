"""Docker Engine of ours: started once, found again after a kill, stopped by the last user, nothing of others undone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import engine, process
from testbed.errors import DeepError

# Writes its pid file as dockerd does, then runs until it is told to end.
PROGRAM = """\
import os, sys, time
path = next(word for word in sys.argv if word.startswith("--pidfile=")).partition("=")[2]
time.sleep(0.2)
open(path, "w").write(str(os.getpid()))
time.sleep(600)
"""
RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:VPN - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j ACCEPT
-A FORWARD -i tun0 -j VPN
-A DOCKER-USER -j RETURN
COMMIT
"""


@dataclass
class Machine:
    """A machine on which the engine is a script: its containers, what was called, what was restored, forwarding."""

    run_dir: Path
    containers: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)

    @property
    def forward(self) -> Path:
        """The file that stands for the kernel's setting."""
        return self.run_dir / "ip_forward"

    @property
    def program(self) -> Path:
        """The script that stands for dockerd."""
        return self.run_dir / "dockerd"

    def client(self) -> Any:
        """What the engine's client tells, if the engine runs."""
        if engine._ours() is None:
            raise DeepError("Docker Engine does not answer")
        return SimpleNamespace(containers=SimpleNamespace(list=lambda: self.containers))

    def run(self, argv: list[str], *, stdin: str = "", **_: Any) -> Any:
        """Note a call of a network program; it answers with the rules."""
        self.calls.append(argv)
        if stdin:
            self.restored.append(stdin)
        return SimpleNamespace(stdout=RULES if argv[0].endswith("-save") and argv[2] == "filter" else "")


@pytest.fixture
def machine(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine(run_dir)
    found.forward.write_text("0\n", encoding="ascii")
    found.program.write_text(f"#!{sys.executable}\n{PROGRAM}", encoding="utf-8")
    found.program.chmod(0o755)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(engine, "SYSTEMD_BOOTED", run_dir / "none")
    monkeypatch.setattr(engine, "IP_FORWARD", found.forward)
    monkeypatch.setattr(engine, "client", found.client)
    monkeypatch.setattr(engine, "run", found.run)
    monkeypatch.setattr(shutil, "which", lambda name, **_: str(found.program) if name == "dockerd" else name)
    yield found
    if left := engine._ours():
        left.stop()


def test_two_commands_that_find_none_start_one(machine: Machine) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: engine.ensure_running(), range(2)))
    started = [words for words in map(process.command, _pids()) if str(machine.program) in words]
    assert len(started) == 1


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def test_it_is_stopped_and_what_it_set_is_put_back(machine: Machine) -> None:
    engine.ensure_running()
    running = engine._ours()
    machine.forward.write_text("1\n", encoding="ascii")
    assert engine.stop_if_ours()
    assert running is not None
    assert not running.alive
    assert machine.forward.read_text(encoding="ascii") == "0"
    assert ["iptables", "--policy", "FORWARD", "DROP"] in machine.calls
    assert not engine.stop_if_ours()


def test_rules_of_others_stay() -> None:
    kept = engine.without_engine(RULES).splitlines()
    assert kept == [
        "*filter", ":INPUT ACCEPT [0:0]", ":FORWARD DROP [0:0]", ":VPN - [0:0]", "-A FORWARD -i tun0 -j VPN", "COMMIT",
    ]  # fmt: skip


def test_an_engine_in_use_runs_on(machine: Machine) -> None:
    with engine.in_use():
        assert not engine.stop_if_ours()
    machine.containers.append("somebody's")
    assert not engine.stop_if_ours()
    machine.containers.clear()
    assert engine.stop_if_ours()


def test_a_stop_that_was_cut_short_is_finished(machine: Machine) -> None:
    engine.ensure_running()
    running = engine._ours()
    assert running is not None
    running.stop()
    machine.forward.write_text("1\n", encoding="ascii")
    assert engine.stop_if_ours()
    assert machine.forward.read_text(encoding="ascii") == "0"
    assert machine.restored
    assert not (machine.run_dir / "docker-engine.before.json").exists()


def test_the_rules_of_an_engine_that_is_not_ours_are_left_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.run_dir / "docker-engine.before.json").write_text(
        json.dumps({"ip_forward": "0", "forward_policy": {"iptables": "ACCEPT"}}), encoding="utf-8"
    )
    monkeypatch.setattr(engine, "client", object)
    engine.stop_if_ours()
    assert machine.calls == []


def test_another_process_with_the_recorded_id_is_not_ours(machine: Machine) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (machine.run_dir / "docker-engine.pid").write_text(str(other.pid), encoding="ascii")
        assert engine._ours() is None
        other.kill()
