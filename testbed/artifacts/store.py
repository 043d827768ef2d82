"""The artefact store: objects named by their content, and a view of them that is served to nodes.

Layout under the root::

    objects/sha256/HEX               every file once, complete or absent
    mirror/NAME/VERSION/FILE         symbolic links to objects, and SHA256SUMS: what is served
    records/NAME.json                what was built from which inputs
    locks/NAME.lock                  held while an artefact is checked, built or published
    work/NAME.PID/                   scratch of a build; removed by the next one
    downloads/                       partial downloads, continued by the next run
    logs/NAME.log                    output of the last build

Every step writes aside and renames, so that a process killed at any moment leaves nothing but
scratch, which the next run removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed import files
from testbed.artifacts.declaration import Declaration
from testbed.errors import CHECK_FAILED, DeepError
from testbed.paths import cache_dir

SUMS = "SHA256SUMS"
LOCK_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Entry:
    """One stored file; ``size`` in bytes, ``mtime_ns`` as it was when the content was last hashed."""

    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Record:
    """What the store holds of one artefact; ``fingerprint`` identifies the inputs it was made from."""

    name: str
    version: str
    source: str
    fingerprint: str
    seconds: float
    files: dict[str, Entry]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


@dataclass(frozen=True)
class Problem:
    """A stored file that is not what it should be."""

    artifact: str
    file: str
    found: str
    needed: str


class Store:
    """The store below ``root`` (default: the user's cache folder)."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir() / "artifacts"

    @property
    def mirror(self) -> Path:
        """The folder to serve."""
        return self.root / "mirror"

    def object_path(self, sha256: str) -> Path:
        """Where the content with this hash is or would be."""
        return self.root / "objects" / "sha256" / sha256

    def log_path(self, name: str) -> Path:
        """The log of the last build of an artefact."""
        return self.root / "logs" / f"{name}.log"

    def file(self, name: str, file: str) -> Path:
        """The stored content of one file of an artefact; ``DeepError`` when it is absent."""
        record = self.record(name)
        if record is None or file not in record.files:
            raise DeepError(f"{name}/{file} is not in the store", next_step=f"run 'deep artifacts build {name}'")
        return self.object_path(record.files[file].sha256)

    # Locking

    @contextlib.contextmanager
    def lock(self, name: str, wait_seconds: float = 0, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the artefact ``name`` alone; ``DeepError`` naming the holder after ``wait_seconds``.

        ``waiting`` is called once with a sentence for the user if another process has it.
        """
        path = self.root / "locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as handle:
            self._acquire(handle.fileno(), path, name, wait_seconds, waiting)
            handle.seek(0)
            handle.truncate()
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            # The kernel drops the lock with the process, so a killed build never leaves one behind.
            yield

    def _acquire(
        self, handle: int, path: Path, name: str, wait_seconds: float, waiting: Callable[[str], None] | None
    ) -> None:
        deadline = time.monotonic() + wait_seconds
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as failure:
                if failure.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            holder = path.read_text(encoding="utf-8").strip() or "unknown"
            if time.monotonic() >= deadline:
                raise DeepError(
                    f"artefact {name} is being worked on by another process",
                    found=f"process {holder}",
                    needed="a free lock",
                    next_step=f"wait for process {holder}, or end it, and run the same command again",
                )
            if waiting and not told:
                waiting(f"waiting for process {holder}, which works on {name}")
                told = True
            time.sleep(LOCK_POLL_SECONDS)

    # Records

    def record(self, name: str) -> Record | None:
        """What is stored of ``name``; None when nothing is, or when the record is unreadable."""
        try:
            data: dict[str, Any] = json.loads((self.root / "records" / f"{name}.json").read_text(encoding="utf-8"))
            data["files"] = {file: Entry(**entry) for file, entry in data["files"].items()}
            return Record(**data)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def records(self) -> list[Record]:
        """Every readable record, by name."""
        names = sorted(path.stem for path in (self.root / "records").glob("*.json"))
        return [record for record in map(self.record, names) if record is not None]

    def save(self, record: Record) -> None:
        """Write a record, atomically."""
        files.write_json(self.root / "records" / f"{record.name}.json", asdict(record))

    # Content

    def add(self, path: Path) -> Entry:
        """Move the file ``path`` (on the same file system) into the store."""
        digest = files.sha256_of(path)
        path.chmod(0o644)
        files.sync_file(path)
        target = self.object_path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        files.sync_directory(target.parent)
        return self._entry(digest, target)

    @staticmethod
    def _entry(digest: str, path: Path) -> Entry:
        facts = path.stat()
        return Entry(sha256=digest, size=facts.st_size, mtime_ns=facts.st_mtime_ns)

    def check(self, record: Record, *, rehash: bool) -> list[Problem]:
        """Files of ``record`` that are missing or damaged.

        Without ``rehash`` a file whose size and time are as recorded is trusted; any other is hashed.
        """
        problems = []
        for name, entry in record.files.items():
            path = self.object_path(entry.sha256)
            found = self._damage(path, entry, rehash)
            if found:
                problems.append(Problem(record.name, name, found, f"{entry.sha256} ({entry.size} bytes)"))
        return problems

    @staticmethod
    def _damage(path: Path, entry: Entry, rehash: bool) -> str | None:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return "no file"
        if facts.st_size != entry.size:
            return f"{facts.st_size} bytes"
        if not rehash and facts.st_mtime_ns == entry.mtime_ns:
            return None
        digest = files.sha256_of(path)
        return None if digest == entry.sha256 else digest

    def check_view(self, record: Record) -> list[Problem]:
        """Links and SHA256SUMS of the served view that do not agree with ``record``."""
        folder = self.view(record)
        problems = []
        for name, entry in record.files.items():
            link = folder / name
            target = str(link.readlink()) if link.is_symlink() else "no link"
            if target != self._link_target(entry.sha256):
                problems.append(Problem(record.name, name, target, self._link_target(entry.sha256)))
        sums = folder / SUMS
        wanted = self._sums(record)
        if not sums.is_file() or sums.read_text(encoding="utf-8") != wanted:
            problems.append(Problem(record.name, SUMS, "missing or different", "the recorded hashes"))
        return problems

    # The view

    def view(self, record: Record) -> Path:
        """The served folder of an artefact."""
        return self.mirror / record.name / record.version

    @staticmethod
    def _link_target(sha256: str) -> str:
        return f"../../../objects/sha256/{sha256}"

    @staticmethod
    def _sums(record: Record) -> str:
        return files.checksum_lines({name: entry.sha256 for name, entry in record.files.items()})

    def publish(self, record: Record) -> bool:
        """Bring the served view in line with ``record``; True when something had to change."""
        folder = self.view(record)
        folder.mkdir(parents=True, exist_ok=True)
        changed = False
        for name, entry in record.files.items():
            changed |= files.link_atomic(folder / name, self._link_target(entry.sha256))
        for path in folder.iterdir():
            if path.name != SUMS and path.name not in record.files:
                path.unlink()
                changed = True
        sums = self._sums(record)
        if not (folder / SUMS).is_file() or (folder / SUMS).read_text(encoding="utf-8") != sums:
            files.write_atomic(folder / SUMS, sums.encode())
            changed = True
        return changed

    def commit(
        self, declaration: Declaration, source: str, fingerprint: str, built: dict[str, Path], seconds: float
    ) -> Record:
        """Take over the files ``built`` ({name: path}), record them and serve them."""
        entries = {name: self.add(path) for name, path in sorted(built.items())}
        record = Record(declaration.name, declaration.version, source, fingerprint, round(seconds, 2), entries)
        self.save(record)
        self.publish(record)
        return record

    # Scratch

    @contextlib.contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """An empty scratch folder for a build of ``name``; call it with the lock held."""
        parent = self.root / "work"
        for left in parent.glob(f"{name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = parent / f"{name}.{os.getpid()}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def failed_check(problems: list[Problem]) -> DeepError:
    """The error for files that did not pass ``check``."""
    first = problems[0]
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return DeepError(
        f"{first.artifact}/{first.file}{more}: not what was stored",
        found=first.found,
        needed=first.needed,
        next_step="run 'deep artifacts build --rehash' to rebuild what is damaged",
        exit_code=CHECK_FAILED,
    )
