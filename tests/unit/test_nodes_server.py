"""The artefact server of a testbed: started once, found again, never confused with another process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import process, server
from testbed.artifacts import api
from testbed.errors import DeepError

GATEWAY = "127.0.0.1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """State of a testbed whose server takes a free port of this machine; nothing is left running."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    with socket.socket() as probe:
        probe.bind((GATEWAY, 0))
        monkeypatch.setattr(server, "PORT", probe.getsockname()[1])
    state = tmp_path / "state"
    yield state
    server.stop(state, GATEWAY)


def test_the_server_serves_what_is_in_the_store(folder: Path) -> None:
    file = api.mirror_dir() / "thing" / "1.0" / "thing"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"content")
    assert server.ensure(folder, GATEWAY)
    with urllib.request.urlopen(f"{server.url(GATEWAY)}/thing/1.0/thing", timeout=5) as answer:
        assert answer.read() == b"content"


def test_a_running_server_is_kept(folder: Path) -> None:
    assert server.ensure(folder, GATEWAY)
    pid = server.running(folder)
    assert not server.ensure(folder, GATEWAY)
    assert server.running(folder) == pid


def test_a_server_whose_record_was_never_written_is_found_again(folder: Path) -> None:
    server.ensure(folder, GATEWAY)
    pid = server.running(folder)
    (folder / server.RECORD).unlink()
    assert server.running(folder) is None
    assert not server.ensure(folder, GATEWAY)
    assert server.running(folder) == pid


def test_a_killed_server_is_started_again(folder: Path) -> None:
    server.ensure(folder, GATEWAY)
    pid = server.running(folder)
    assert pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while server.running(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.ensure(folder, GATEWAY)
    assert server.running(folder) not in {None, pid}


def test_stop_ends_it_also_without_a_record_and_again(folder: Path) -> None:
    server.ensure(folder, GATEWAY)
    pid = server.running(folder)
    (folder / server.RECORD).unlink()
    assert server.stop(folder, GATEWAY)
    assert pid is not None
    assert process.of(pid) is None
    assert not server.stop(folder, GATEWAY)


def test_another_process_with_the_recorded_id_is_left_alone(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        folder.mkdir()
        started = process.of(other.pid)
        assert started
        process.Process(other.pid, started.started - 1).save(folder / server.RECORD)
        assert not server.stop(folder, GATEWAY)
        assert other.poll() is None
        other.kill()


def test_a_port_in_use_is_said_with_the_way_to_find_its_owner(folder: Path) -> None:
    with socket.socket() as owner:
        owner.bind((GATEWAY, server.PORT))
        owner.listen()
        with pytest.raises(DeepError, match="port of the artefact server") as refused:
            server.ensure(folder, GATEWAY)
    assert refused.value.found == f"{GATEWAY} port {server.PORT}: Address already in use"
    assert refused.value.next_step
    assert "ss -ltnp" in refused.value.next_step


def test_a_server_that_ends_at_once_shows_its_last_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "serve_command", lambda *_: [sys.executable, "-c", "raise SystemExit('cannot serve')"])
    with pytest.raises(DeepError, match="did not start:\ncannot serve"):
        server.ensure(folder, GATEWAY)
    assert server.running(folder) is None
