"""The repositories of a state: one of apt or yum for each platform, with three suites each.

    PLATFORM/pool/SUITE/*.deb   PLATFORM/dists/SUITE/{Release,InRelease,Release.gpg,main/binary-ARCH/Packages*}
    PLATFORM/SUITE/*.rpm        PLATFORM/SUITE/repodata/{repomd.xml,repomd.xml.asc,...}

Packages and indices are the same bytes in every stage. What says of which stage and time they are, and is signed, is
each state's own: apt keeps the newer of two Release files, so one put back as it was would be passed over in silence.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from pathlib import Path

from pipelines.release.candidate import FILES
from pipelines.release.openpgp import Keyring
from pipelines.release.programs import call
from pipelines.release.state import SUITES, Package, State

ARCHITECTURES = ("amd64", "arm64")
KEY = "key.asc"
RELEASE, INLINE, DETACHED = "Release", "InRelease", "Release.gpg"
REPOMD, REPOMD_SIGNATURE = "repomd.xml", "repomd.xml.asc"
# What is signed anew in every state.
SEALS = frozenset({RELEASE, INLINE, DETACHED, REPOMD_SIGNATURE, KEY, "state.json"})


def place(package: Package) -> str:
    """Where a package lies in a state."""
    return f"{package.platform}/{'pool/' if package.kind == 'deb' else ''}{package.suite}/{package.file}"


def build(folder: Path, state: State, candidates: Path, like: Path | None, keyring: Keyring) -> None:
    """Fill the folder of ``state`` with its packages, its indices and their signatures.

    ``like`` is a state of the same packages that was looked through, whose indices are taken as they are.
    """
    for one in state.packages:
        path = folder / place(one)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(candidates / one.version / FILES / one.file)
    if like is not None:
        _linked(like, folder)
    else:
        for platform, kind in state.repositories:
            if kind == "deb":
                _index_apt(folder / platform)
            else:
                _index_yum(folder / platform, state.time)
    _seal(folder, state, keyring)


def _linked(like: Path, folder: Path) -> None:
    """Link every index of another state."""
    for data in [*like.glob("*/dists"), *like.glob("*/*/repodata")]:
        for path in data.rglob("*"):
            if path.is_file() and path.name not in SEALS:
                target = folder / path.relative_to(like)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(path)


def _index_apt(repository: Path) -> None:
    for suite in SUITES:
        (repository / "pool" / suite).mkdir(parents=True, exist_ok=True)
        for architecture in ARCHITECTURES:
            made = call("apt-ftparchive", "--arch", architecture, "packages", f"pool/{suite}", cwd=repository).stdout
            # In the order of their names, whatever that of the file system is.
            stanzas = sorted(filter(None, made.strip().split(b"\n\n")))
            content = b"".join(stanza + b"\n\n" for stanza in stanzas)
            folder = repository / "dists" / suite / "main" / f"binary-{architecture}"
            folder.mkdir(parents=True)
            (folder / "Packages").write_bytes(content)
            (folder / "Packages.gz").write_bytes(gzip.compress(content, mtime=0))


def _index_yum(repository: Path, at: int) -> None:
    for suite in SUITES:
        (repository / suite).mkdir(parents=True, exist_ok=True)
        call(
            "createrepo_c", "--quiet", "--no-database", "--workers", "1", "--compatibility", "--revision", str(at),
            "--set-timestamp-to-revision", repository / suite,
        )  # fmt: skip


def _seal(folder: Path, state: State, keyring: Keyring) -> None:
    """Sign what says what there is."""
    (folder / KEY).write_bytes(keyring.public(state.key))
    for platform, kind in state.repositories:
        for suite in SUITES:
            if kind == "deb":
                dist = folder / platform / "dists" / suite
                said = release_file(dist, state, suite)
                (dist / RELEASE).write_bytes(said)
                (dist / INLINE).write_bytes(keyring.clear(said, state.key, state.time))
                (dist / DETACHED).write_bytes(keyring.detached(said, state.key, state.time))
                # Web servers tell by it, to the second, whether apt has to fetch it again.
                for name in (RELEASE, INLINE, DETACHED):
                    os.utime(dist / name, (state.time,) * 2)
            else:
                data = folder / platform / suite / "repodata"
                signature = keyring.detached((data / REPOMD).read_bytes(), state.key, state.time)
                (data / REPOMD_SIGNATURE).write_bytes(signature)


def key_shown(folder: Path) -> bytes:
    """The key that users of a state are given; nothing where there is none."""
    path = folder / KEY
    return path.read_bytes() if path.is_file() else b""


def release_file(dist: Path, state: State, suite: str) -> bytes:
    """The file Release of a suite. The suite of the repository is apt's codename, and the stage apt's suite."""
    head = {
        "Origin": "DEEP",
        "Label": state.line,
        "Suite": state.stage,
        "Codename": suite,
        "Date": time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(state.time)),
        "Architectures": " ".join(ARCHITECTURES),
        "Components": "main",
        "Description": f"{state.line} {state.version}, {suite} of {state.stage}",
    }
    lines = [f"{name}: {value}" for name, value in head.items()]
    lines.append("SHA256:")
    for path in indices(dist):
        content = path.read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content):>8} {path.relative_to(dist)}")
    return "\n".join([*lines, ""]).encode()


def indices(dist: Path) -> list[Path]:
    """The indices of a suite that its Release names."""
    return sorted(path for path in dist.rglob("*") if path.is_file() and path.name not in SEALS)
