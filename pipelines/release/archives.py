"""Archives that are the same bytes whenever, wherever and by whomever they are made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
LISTING = "FILES.json"


def mode_of(mode: int, folder: bool = False) -> int:
    """The mode that a file is given in place of what somebody's umask has made of it."""
    return 0o755 if folder or mode & 0o100 else 0o644


def settle(folder: Path, epoch: int) -> None:
    """Give everything below a folder, and it itself, the usual modes and one time (seconds since 1970)."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        if not path.is_symlink():
            path.chmod(mode_of(path.stat().st_mode, path.is_dir()))
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def tar(folder: Path, target: Path, epoch: int) -> None:
    """Put what is below a folder into a tar archive, sorted, without owners, with one time."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            member = archive.gettarinfo(path, arcname=str(path.relative_to(folder)))
            if member.islnk():  # the same bytes, whether the disk holds them once or twice
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
            _settled(member, epoch)
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)


def repack(path: Path, epoch: int) -> None:
    """Make a tar.gz anew: sorted, without owners, with one time in place of that of the build."""
    contents = _contents(path)
    _write(path, [contents[name] for name in sorted(contents)], epoch)


def repack_collection(path: Path, epoch: int) -> None:
    """Make a collection's archive anew.

    ansible-galaxy lists files as the disk does, and names the hash of that list: the list is sorted, the hash redone.
    """
    contents = _contents(path)
    listing = json.loads(contents[LISTING][1] or b"")
    manifest = json.loads(contents[MANIFEST][1] or b"")
    listing["files"].sort(key=lambda entry: str(entry["name"]))
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(_json(listing)).hexdigest()
    first = [(contents[MANIFEST][0], _json(manifest)), (contents[LISTING][0], _json(listing))]
    _write(path, first + [contents[name] for name in sorted(contents) if name not in (MANIFEST, LISTING)], epoch)


def _contents(path: Path) -> dict[str, tuple[tarfile.TarInfo, bytes | None]]:
    """Members by name, read in the order of the archive: to go back in it is to unpack it anew."""
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            found[member.name] = (member, file.read() if file else None)
    return found


def _json(data: Mapping[str, Any]) -> bytes:
    """As ansible-galaxy writes it."""
    return json.dumps(data, indent=True).encode()


def _write(path: Path, contents: Sequence[tuple[tarfile.TarInfo, bytes | None]], epoch: int) -> None:
    with _compressed(path, epoch) as archive:
        for member, content in contents:
            _settled(member, epoch)
            if content is None:
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@contextmanager
def _compressed(path: Path, epoch: int) -> Iterator[tarfile.TarFile]:
    """A tar.gz to write, whose header says neither its name nor when it was written."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
    ):
        yield archive


def _settled(member: tarfile.TarInfo, epoch: int) -> None:
    member.pax_headers = {}
    member.mtime = epoch
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o777 if member.issym() else mode_of(member.mode, member.isdir())
