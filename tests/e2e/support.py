"""The command line as its users call it, on a testbed of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from testbed.paths import state_dir

ROOT = Path(__file__).resolve().parents[2]
DEEP = Path(sys.executable).with_name("deep")
NAME = "e2e"


def run_deep(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``deep`` in the checkout and expect the exit status ``status``."""
    done = subprocess.run([DEEP, *arguments], cwd=ROOT, check=False, text=True, capture_output=True)
    assert done.returncode == status, (
        f"deep {' '.join(arguments)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done


def deep_json(*arguments: str, status: int = 0) -> Any:
    """The JSON object that ``deep ... --json`` prints."""
    return json.loads(run_deep(*arguments, "--json", status=status).stdout)


def host_snapshot() -> dict[str, object]:
    """Limits, control groups, links and processes that belong to a testbed."""
    groups = sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/deep-{NAME}"))
    limits = {path.name: path.read_text(encoding="ascii") for path in Path("/proc/sys/fs/inotify").iterdir()}
    servers = [
        pid.name for pid in Path("/proc").iterdir() if pid.name.isdigit() and f"/{NAME}/".encode() in _command_line(pid)
    ]
    return {"groups": groups, "limits": limits, "servers": servers, "state": state_dir(NAME).exists()}


def _command_line(pid: Path) -> bytes:
    try:
        return (pid / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
