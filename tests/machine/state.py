"""What testbeds change on a machine: ``python -m tests.machine.state FILE`` writes it down, for a look afterwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TypedDict

from testbed import limits, process, testbed


class State(TypedDict):
    """Control groups, links, artefact servers and testbeds by name; kernel settings by key."""

    groups: list[str]
    links: list[str]
    servers: list[str]
    testbeds: list[str]
    settings: dict[str, str]


def now() -> State:
    """The state of this machine."""
    running = [process.command(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")]
    return {
        "groups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/deep-*")),
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "servers": sorted(" ".join(words) for words in running if "testbed.artifacts.serve" in words),
        "testbeds": sorted(testbed.everywhere()),
        "settings": {key: _read(limits.SYSCTL / key) for key in (*limits.NEEDED, *limits.WRITTEN_BY_NODES)},
    }


def left(before: State, after: State) -> dict[str, object]:
    """What there is ``after`` that was not there ``before``; settings count where no testbed was or is there."""
    found: dict[str, object] = {
        "groups": sorted(set(after["groups"]) - set(before["groups"])),
        "links": sorted(set(after["links"]) - set(before["links"])),
        "servers": sorted(set(after["servers"]) - set(before["servers"])),
        "testbeds": sorted(set(after["testbeds"]) - set(before["testbeds"])),
    }
    if not before["testbeds"] and not after["testbeds"]:
        settings = after["settings"].items()
        found["settings"] = {key: value for key, value in settings if value != before["settings"].get(key)}
    return {what: new for what, new in found.items() if new}


def _read(setting: Path) -> str:
    return setting.read_text(encoding="ascii") if setting.is_file() else ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(now(), indent=2), encoding="utf-8")
