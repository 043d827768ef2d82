"""What is in an archive: members of tar, zip, deb and rpm, without the programs of a distribution."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import DeepError

AR = b"!<arch>\n"
AR_HEADER = 60
RPM = b"\xed\xab\xee\xdb"
RPM_LEAD = 96
RPM_HEADER = b"\x8e\xad\xe8\x01"
# Tags of a header that are read here, and types of values, by rpm's own numbers.
RPM_TAGS = {
    1000: "name", 1001: "version", 1002: "release", 1004: "summary", 1006: "build_time", 1007: "build_host",
    1014: "licence", 1022: "architecture", 1037: "file_flags", 5046: "recommends",
}  # fmt: skip
RPM_INT32, RPM_STRING, RPM_STRINGS, RPM_TRANSLATED = 4, 6, 8, 9
CPIO = b"070701"
CPIO_HEADER = 110
CPIO_END = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """One member: its permissions and type as stat(2) has them, time in seconds since 1970, content and link."""

    mode: int
    mtime: int
    content: bytes
    link: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What can be compared and shown."""
        return {
            "mode": f"{self.mode:o}", "time": str(self.mtime), "size": str(len(self.content)), "link": self.link,
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }  # fmt: skip


def of(path: Path) -> dict[str, Member] | None:
    """Members by name, in the order of the archive; those within a deb's archives too; nothing for another file."""
    with path.open("rb") as file:
        head = file.read(len(AR))
    if head.startswith(AR):
        return deb(path)
    if head.startswith(RPM):
        return _cpio(rpm(path)[1])
    if zipfile.is_zipfile(path):
        return _zip(path)
    if tarfile.is_tarfile(path):
        return _tar(path.read_bytes())
    return None


def deb(path: Path) -> dict[str, Member]:
    """Members of a deb: control.tar.gz/control, data.tar.gz/usr/..."""
    data, found, at = path.read_bytes(), {}, len(AR)
    while at + AR_HEADER <= len(data):
        header = data[at : at + AR_HEADER]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        content = data[at + AR_HEADER : at + AR_HEADER + size]
        found[name] = Member(int(header[40:48], 8), int(header[16:28]), content)
        if ".tar" in name:
            found |= {f"{name}/{inner.removeprefix('./')}": one for inner, one in _tar(content).items()}
        at += AR_HEADER + size + size % 2
    return found


def rpm(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header (by the names of ``RPM_TAGS``) and unpacked payload of an rpm; raises ``DeepError`` for another file."""
    data = rpm_parts(path)[1]
    return dict(_tags(data)), gzip.decompress(data[_header_end(data, 0) :])


def rpm_parts(path: Path) -> tuple[bytes, bytes]:
    """What of an rpm a signature changes, and what is signed: its header with the payload."""
    data = path.read_bytes()
    if not data.startswith(RPM):
        raise DeepError("not an rpm", found=str(path))
    end = _header_end(data, RPM_LEAD)
    end += -end % 8
    return data[:end], data[end:]


def rpm_files(path: Path) -> dict[str, Member]:
    """Files of an rpm by their path below /."""
    return _cpio(rpm(path)[1])


def _header_end(data: bytes, start: int) -> int:
    magic, count, size = struct.unpack_from(">4s4xII", data, start)
    if magic != RPM_HEADER:
        raise DeepError("not a header of rpm", found=magic.hex())
    return int(start + 16 + count * 16 + size)


def _tags(data: bytes) -> Iterator[tuple[str, Any]]:
    count = struct.unpack_from(">8xI", data)[0]
    store = 16 + count * 16
    for number in range(count):
        tag, kind, offset, many = struct.unpack_from(">IIII", data, 16 + number * 16)
        if tag in RPM_TAGS:
            yield RPM_TAGS[tag], _value(data, store + offset, kind, many)


def _value(data: bytes, at: int, kind: int, many: int) -> Any:
    if kind in (RPM_STRING, RPM_STRINGS, RPM_TRANSLATED):
        texts = []
        for _ in range(many):
            end = data.index(b"\0", at)
            texts.append(data[at:end].decode())
            at = end + 1
        return texts if kind == RPM_STRINGS else texts[0]
    return list(struct.unpack_from(f">{many}{'I' if kind == RPM_INT32 else 'H'}", data, at))


def _cpio(data: bytes) -> dict[str, Member]:
    """Members of a cpio archive (newc)."""
    found, at = {}, 0
    while data[at : at + 6] == CPIO:
        fields = [int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        mode, mtime, size, name_size = fields[1], fields[5], fields[6], fields[11]
        name = data[at + CPIO_HEADER : at + CPIO_HEADER + name_size - 1].decode()
        body = at + CPIO_HEADER + name_size
        body += -body % 4
        if name == CPIO_END:
            break
        found[name.removeprefix(".")] = Member(mode, mtime, data[body : body + size])
        at = body + size
        at += -at % 4
    return found


def _tar(data: bytes) -> dict[str, Member]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            one.name: Member(one.mode, int(one.mtime), _content(archive, one), one.linkname)
            for one in archive.getmembers()
        }


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def _zip(path: Path) -> dict[str, Member]:
    with zipfile.ZipFile(path) as archive:
        return {
            one.filename: Member(one.external_attr >> 16, _seconds(one.date_time), archive.read(one))
            for one in archive.infolist()
        }


def _seconds(date: tuple[int, ...]) -> int:
    """A zip has a date without a zone: it is compared only."""
    year, month, day, hour, minute, second = date
    return ((((year * 12 + month) * 31 + day) * 24 + hour) * 60 + minute) * 60 + second
