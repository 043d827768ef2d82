"""The Debian archive that this host itself uses, for building root file systems of any suite.

The address of the archive is never written in the project: it is read from the host's own apt when
it is needed, so that a mirror, a proxy or a snapshot chosen by the host's admin is honoured.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import DeepError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OVERRIDE = "DEEP_DEBIAN_ARCHIVE"
PROXY_OPTION = re.compile(r'^(Acquire::https?::Proxy(?:::[^ ]+)?) "(?P<value>[^"]+)";$')


@dataclass(frozen=True)
class Archive:
    """Base addresses of the Debian archive; ``security`` is None where the host uses none."""

    main: str
    security: str | None


def host_apt_sources(suite: str, *, environment: Mapping[str, str] | None = None) -> list[str]:
    """One-line apt sources of Debian ``suite`` (``bookworm``, ``trixie``), component main.

    Addresses come from ``$DEEP_DEBIAN_ARCHIVE`` ("MAIN [SECURITY]") or from the host's apt. Raises
    ``DeepError`` where neither knows a Debian archive.
    """
    archive = _from_environment(environment if environment is not None else os.environ) or _from_apt(_index_targets())
    option = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
    lines = [f"deb {option}{archive.main} {name} main" for name in (suite, f"{suite}-updates")]
    if archive.security:
        lines.append(f"deb {option}{archive.security} {suite}-security main")
    return lines


def host_apt_options() -> list[str]:
    """Proxy settings of the host's apt, as ``Name "value";`` lines (empty without a proxy)."""
    if shutil.which("apt-config") is None:
        return []
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if PROXY_OPTION.match(line)]


def _from_environment(environment: Mapping[str, str]) -> Archive | None:
    addresses = environment.get(OVERRIDE, "").split()
    if not addresses:
        return None
    return Archive(main=addresses[0], security=addresses[1] if len(addresses) > 1 else None)


def _index_targets() -> str:
    if shutil.which("apt-get") is None:
        raise _no_archive("no apt-get")
    done = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages"], capture_output=True, text=True, check=False
    )
    return done.stdout


def _from_apt(targets: str) -> Archive:
    main = security = None
    for entry in _stanzas(targets.splitlines()):
        if entry.get("Origin") != "Debian" or entry.get("Component") != "main":
            continue
        address = entry["Repo-URI"].rstrip("/")
        if entry.get("Label") == "Debian-Security":
            security = security or address
        else:
            main = main or address
    if main is None:
        raise _no_archive("none in the lists of the host's apt")
    return Archive(main=main, security=security)


def _stanzas(lines: Iterable[str]) -> Iterable[dict[str, str]]:
    entry: dict[str, str] = {}
    for line in [*lines, ""]:
        if not line.strip():
            if entry:
                yield entry
            entry = {}
            continue
        key, _, value = line.partition(":")
        entry[key] = value.strip()


def _no_archive(found: str) -> DeepError:
    return DeepError(
        "no Debian archive known on this machine",
        host=platform.node(),
        found=found,
        needed="an apt source with Origin Debian, component main",
        next_step=f"run 'apt-get update' on a Debian host, or set {OVERRIDE}='http://YOUR-ARCHIVE/debian [http://YOUR-ARCHIVE/debian-security]'",
    )
