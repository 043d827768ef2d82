"""Kernel settings of the host that nodes share: raised while a testbed is up, put back when the last one is gone.

A node is a container, so what it writes to vm.*, kernel.* or fs.* it writes to the host. The values found before
the first testbed are kept in ``run_dir()``, one record for the whole machine, and restored by the last ``down``.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testbed.files import write_atomic
from testbed.paths import run_dir

SYSCTL = Path("/proc/sys")
# Each node's systemd, kubelet and containerd watch files: an idle node holds 8 instances, a Kubernetes node 16.
NEEDED = {
    "fs/inotify/max_user_instances": 8192,
    "fs/inotify/max_user_watches": 524288,
    "fs/inotify/max_queued_events": 16384,
    "kernel/keys/maxkeys": 2000,
    "kernel/pid_max": 131072,
    "vm/max_map_count": 262144,
}
# A kubelet sets these on every start.
WRITTEN_BY_NODES = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "vm/swappiness",
    "fs/file-max",
    "fs/nr_open",
)


@dataclass
class Record:
    """Values found (``originals``), values set by us (``raised``) and the testbeds that need them."""

    originals: dict[str, int] = field(default_factory=dict)
    raised: dict[str, int] = field(default_factory=dict)
    testbeds: list[str] = field(default_factory=list)


def acquire(testbed: str, sysctl: Path = SYSCTL) -> None:
    """Raise what is lower than nodes need, on behalf of ``testbed``; what is high enough is left alone."""
    with _record() as record:
        for key in (*NEEDED, *WRITTEN_BY_NODES):
            value = _read(sysctl / key)
            if value is not None:
                record.originals.setdefault(key, value)
        if testbed not in record.testbeds:
            record.testbeds.append(testbed)
        record.raised |= {key: value for key, value in NEEDED.items() if key in record.originals}
        # Written down before the first change: a kill between the two loses nothing.
        _save(record)
        for key, value in record.raised.items():
            if (_read(sysctl / key) or 0) < value:
                (sysctl / key).write_text(str(value), encoding="ascii")


def release(testbed: str, sysctl: Path = SYSCTL) -> bool:
    """``testbed`` is gone: put everything back if it was the last; returns whether it was.

    A limit that someone else has changed in the meantime is left as it is.
    """
    with _record() as record:
        record.testbeds = [name for name in record.testbeds if name != testbed]
        if record.testbeds:
            _save(record)
            return False
        for key, original in record.originals.items():
            now = _read(sysctl / key)
            if now is not None and now != original and now == record.raised.get(key, now):
                (sysctl / key).write_text(str(original), encoding="ascii")
        _file().unlink(missing_ok=True)
        return True


def _file() -> Path:
    return run_dir() / "host-limits.json"


@contextmanager
def _record() -> Iterator[Record]:
    run_dir().mkdir(parents=True, exist_ok=True)
    with (run_dir() / "host-limits.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = _file()
        yield Record(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else Record()


def _save(record: Record) -> None:
    write_atomic(_file(), json.dumps(asdict(record), indent=2))


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
