"""Files that are either complete or absent: hashing, atomic writing, free space."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from testbed.errors import DeepError

BLOCK = 1 << 20
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def human(size: float) -> str:
    """A number of bytes as a person reads it, with one decimal: ``1536`` -> ``1.5 KiB``."""
    for unit in UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == UNITS[0] else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {UNITS[-1]}"


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user may still write where ``path`` is, or will be once it is created."""
    while not path.exists():
        path = path.parent
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


ELSEWHERE = "free space there, or put the cache elsewhere with DEEP_CACHE_DIR"


def require_space(path: Path, needed: int, purpose: str, next_step: str = ELSEWHERE) -> None:
    """Raise ``DeepError`` when fewer than ``needed`` bytes are free where ``path`` is."""
    found = free_bytes(path)
    if found < needed:
        raise DeepError(
            f"not enough space on the disk of {path} for {purpose}",
            host=platform.node(),
            found=f"{found} bytes ({human(found)})",
            needed=f"{needed} bytes ({human(needed)})",
            next_step=next_step,
        )


@contextlib.contextmanager
def disk_full_explained(
    path: Path, purpose: str, next_step: str = f"{ELSEWHERE}, and run the command again"
) -> Iterator[None]:
    """Turn "no space left on device" into a ``DeepError`` that says where and for what."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DeepError(
            f"the disk of {path} became full while writing {purpose}",
            host=platform.node(),
            found=f"{free_bytes(path)} bytes free",
            needed="more free space",
            next_step=next_step,
        ) from failure


@contextlib.contextmanager
def exclusive(path: Path, what: str, next_step: str) -> Iterator[TextIO]:
    """Hold the lock file ``path`` alone; raises ``DeepError`` naming the holder's process where it is taken.

    The kernel frees the lock when this process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, what, next_step) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file


def _locked(path: Path, what: str, next_step: str) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise DeepError(
                f"another command is working on {what}",
                found=f"process {owner or 'unknown'}",
                needed="one command at a time",
                next_step=next_step,
            ) from None
        # The command before may have removed the file between the two calls.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()


def sync_directory(path: Path) -> None:
    """Make a rename inside ``path`` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the content of ``path`` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Put ``content`` into ``path`` in one step; returns whether that changed anything.

    A reader sees the old file or the new one, never a part. The content is on disk before the name appears, and
    ``mode`` holds from the first byte on.
    """
    wanted = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == wanted and path.stat().st_mode & 0o7777 == mode:
        return False
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as sink:
            os.fchmod(sink.fileno(), mode)
            sink.write(wanted)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return True


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as JSON, atomically."""
    write_atomic(path, json.dumps(data, indent=2, sort_keys=True) + "\n")


def link_atomic(link: Path, target: str) -> bool:
    """Make ``link`` a symbolic link to ``target``; True when it had to be changed."""
    if link.is_symlink() and str(link.readlink()) == target:
        return False
    temporary = link.with_name(f".tmp-{os.getpid()}-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    return True


def checksum_lines(sums: dict[str, str]) -> str:
    """``{file name: hex}`` in the format of ``sha256sum``, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def parse_checksums(text: str, name: str) -> str | None:
    """The SHA-256 of ``name`` in a checksum file: ``HEX  NAME`` lines, or one bare ``HEX``."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 1 and len(words[0]) == 64:
            return words[0].lower()
        if len(words) == 2 and words[1].lstrip("*").rsplit("/", 1)[-1] == name:
            return words[0].lower()
    return None
