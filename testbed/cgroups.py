"""Roots for the kubelets of nodes that share the host's control groups (version 1 only).

With version 1 every node sees the host's tree, and two kubelets with the same root remove each other's pods. Each
node gets a root of its own, ``/deep-TESTBED/NODE``, in every hierarchy.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")
REMOVE_TRIES = 40


def root_of(testbed: str, node: str) -> str:
    """The kubelet's root of a node, as seen in every hierarchy."""
    return f"/deep-{testbed}/{node}"


def create(testbed: str, node: str, hierarchies: Iterable[Path]) -> None:
    """Make the node's root in each of ``hierarchies``; a root that exists is completed."""
    for hierarchy in hierarchies:
        folder = hierarchy
        for part in root_of(testbed, node).strip("/").split("/"):
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(parent, folder)


def remove(testbed: str, hierarchies: Iterable[Path]) -> list[Path]:
    """Remove the roots of a testbed's nodes with everything below; returns what still holds a process."""
    return _remove(hierarchies, f"deep-{testbed}")


def remove_container(container_id: str, hierarchies: Iterable[Path]) -> list[Path]:
    """Remove what the systemd of a removed container left; returns what still holds a process."""
    return _remove(hierarchies, f"docker/{container_id}")


def _remove(hierarchies: Iterable[Path], name: str) -> list[Path]:
    left = [hierarchy / name for hierarchy in hierarchies if (hierarchy / name).is_dir()]
    for attempt in range(REMOVE_TRIES):
        left = [folder for folder in left if not _remove_tree(folder)]
        if not left:
            break
        # The kernel needs a moment to account for processes that have just ended.
        time.sleep(0.05 * min(attempt + 1, 4))
    return left


def _inherit_cpuset(parent: Path, folder: Path) -> None:
    """A new cpuset is empty, and no process can enter it before it has processors and memory nodes."""
    for name in CPUSET_FILES:
        own = folder / name
        if own.is_file() and not own.read_text(encoding="ascii").strip():
            own.write_text((parent / name).read_text(encoding="ascii"), encoding="ascii")


def _remove_tree(folder: Path) -> bool:
    """Remove control groups leaf first (their files are the kernel's); whether all are gone."""
    try:
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                _remove_tree(child)
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
