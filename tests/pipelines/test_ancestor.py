"""The servers of these tests: what they are, and that they keep to themselves."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import httpx

from tests.pipelines.ancestor import EclipseHudson, Hudson
from tests.pipelines.conftest import BOTH

PROTOCOLS = ("tcp", "tcp6", "udp", "udp6")
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as the kernel writes it in both


def addresses(process: int) -> list[str]:
    """Those that a process has sockets of."""
    folder = Path(f"/proc/{process}")
    held = set()
    for one in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.add(str(one.readlink()))
    lines = [line.split() for name in PROTOCOLS for line in (folder / "net" / name).read_text().splitlines()[1:]]
    return [fields[1].partition(":")[0] for fields in lines if f"socket:[{fields[9]}]" in held]


@BOTH
def test_it_has_sockets_on_loopback_only(ancestor: Hudson) -> None:
    assert ancestor.running is not None
    found = set(addresses(ancestor.running.pid))
    assert found
    assert found <= LOOPBACK


@BOTH
def test_it_is_what_it_is_taken_for(ancestor: Hudson) -> None:
    answer = httpx.get(f"{ancestor.url}/login")
    assert ancestor.version in answer.text
    assert "X-Jenkins" not in answer.headers


def test_the_later_one_asks_nobody_for_plug_ins(eclipse_hudson: EclipseHudson) -> None:
    known = json.loads((eclipse_hudson.home / "updates/default.json").read_text())
    assert known == json.loads((eclipse_hudson.folder / "update-center.json").read_text())
    assert "update center" not in (eclipse_hudson.folder / "log").read_text()
