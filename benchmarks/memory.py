"""The memory of a testbed's nodes, as the kernel accounts for it: their containers and the pods that run in them."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from testbed import cgroups
from testbed.network import LABEL as TESTBED_LABEL

MIB = 1024 * 1024
# Where Docker Engine puts a container, by its cgroup driver: cgroupfs or systemd.
CONTAINER_GROUPS = ("docker/{}", "system.slice/docker-{}.scope")


class MemoryPeak:
    """Samples the working set of a testbed, twice a second, while its context lasts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._peak: Future[int]

    def __enter__(self) -> MemoryPeak:
        self._peak = self._pool.submit(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._pool.shutdown()

    def _watch(self) -> int:
        peak = 0
        while True:
            # None are listed until the engine runs and the nodes do.
            if found := containers(self._name):
                peak = max(peak, working_set(self._name, found))
            if self._left.wait(0.5):
                return peak

    def mib(self) -> float:
        """The peak, after the context; raises what went wrong in it."""
        return self._peak.result() / MIB


def containers(name: str) -> list[str]:
    """The running containers of a testbed."""
    listing = ["docker", "ps", "--quiet", "--no-trunc", "--filter", f"label={TESTBED_LABEL}={name}"]
    return subprocess.run(listing, check=False, capture_output=True, text=True).stdout.split()


def working_set(name: str, ids: list[str], root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of a testbed that the kernel cannot simply drop: usage less inactive file pages (as kubelet counts).

    With control groups version 2 pods are inside the group of their node's container. With version 1 the kubelets of a
    testbed have a group beside them, see :mod:`testbed.cgroups`.
    """
    if (root / "memory").is_dir():
        base, usage, inactive = root / "memory", "memory.usage_in_bytes", "total_inactive_file"
        groups = [base / cgroups.root_of(name, "").strip("/")]
    else:
        base, usage, inactive, groups = root, "memory.current", "inactive_file", []
    groups += [_container_group(base, container) for container in ids]
    return sum(int((group / usage).read_text(encoding="ascii")) - _statistic(group, inactive) for group in groups)


def _container_group(base: Path, container: str) -> Path:
    places = [base / place.format(container) for place in CONTAINER_GROUPS]
    for place in places:
        if place.is_dir():
            return place
    raise RuntimeError(f"container {container} has none of the control groups {', '.join(map(str, places))}")


def _statistic(group: Path, name: str) -> int:
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))
