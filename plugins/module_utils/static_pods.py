# SPDX-License-Identifier: Apache-2.0
"""The static pods of a control plane: their processes, and whether they answer."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

MANIFESTS = Path("/etc/kubernetes/manifests")
AUTHORITY = "/etc/kubernetes/pki/ca.crt"
# Names as the kernel cuts them, at 15 characters.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller", "kube-scheduler")
# The uid of a static pod is the sum of its manifest; a pod of the API server has a UUID, with dashes or underscores.
STATIC_POD = re.compile(r"pod[0-9a-f]{32}\b")


def text(path: Path) -> str:
    """The text of a file; empty when it is not there, as that of a process that has ended."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def processes(proc: Path = Path("/proc")) -> dict[int, str]:
    """The component that each process of a static pod on this host is, by process id."""
    found = {int(entry.name): text(entry / "comm") for entry in proc.glob("[0-9]*")}
    return {
        number: name
        for number, name in found.items()
        if name in COMPONENTS and STATIC_POD.search(text(proc / str(number) / "cgroup"))
    }


def manifests(folder: Path = MANIFESTS) -> dict[str, str]:
    """The text of each component's manifest."""
    return {path.stem[:15]: text(path) for path in folder.glob("*.yaml")}


def complaint(name: str, connection: HTTPConnection, path: str) -> str:
    """Why a component is not healthy; empty when it answers that it is."""
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{name} does not answer ({error})"
    finally:
        connection.close()
    return "" if status == 200 else f"{name} is not ready (status {status})"


def faults() -> list[str]:
    """What of the control plane on this host does not run or is not ready."""
    running = processes().values()
    missing = [f"{name} does not run" for name in COMPONENTS if name not in running]
    if missing:
        return missing
    context = ssl.create_default_context(cafile=AUTHORITY)
    # The address is this host's own; the site says which names are in the certificate.
    context.check_hostname = False  # nosemgrep: tls-not-verified # the authority is verified
    answers = (
        complaint("etcd", HTTPConnection("127.0.0.1", 2381, timeout=5), "/health"),
        complaint("kube-apiserver", HTTPSConnection("127.0.0.1", 6443, timeout=10, context=context), "/readyz"),
    )
    return [answer for answer in answers if answer]


def wait(
    ended: Iterable[int],
    seconds: float = 300.0,
    look: Callable[[], list[str]] = faults,
    running: Callable[[], dict[int, str]] = processes,
) -> list[str]:
    """Wait until the processes ``ended`` are gone and all is healthy; returns what is lacking at the end."""
    old = set(ended)
    deadline = time.monotonic() + seconds
    while True:
        lacking = [f"{name} of before still runs" for number, name in running().items() if number in old] or look()
        if not lacking or time.monotonic() > deadline:
            return lacking
        time.sleep(0.5)
