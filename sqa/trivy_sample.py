"""An image archive, a bill of materials and a database of Trivy's, made by hand and as small as can be.

With them the check of images shows offline that it finds what it should, and asks of each database whether it knows
what everybody knows.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

Entries = Mapping[str, "str | Entries"]

VULNERABLE = ("jinja2", "2.10")
CORRECTED = ("jinja2", "2.10.1")
VULNERABILITY = "CVE-2019-10906"
DATA_OF = "2020-01-01"

# A file of bbolt's: pages of 4 KiB; two of them say where the root is (meta), one lists free pages, one holds all else.
PAGE = 4096
META, FREELIST, LEAF = 0x04, 0x10, 0x02
BUCKET = 1
MAGIC, FORMAT = 0xED0CDAED, 2
ROOT, FREE, PAGES = 3, 2, 4


def write_image(
    path: Path, package: tuple[str, str], *, installed: str | None = None, more: Mapping[str, str] | None = None
) -> None:
    """An archive as ``docker save`` writes it, of one layer with what pip leaves of a Python package.

    ``installed``: another place for it. ``more``: further files, name to text.
    """
    name, version = package
    place = installed or f"usr/lib/python3/dist-packages/{name}-{version}.dist-info/METADATA"
    files = {place: f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", **(more or {})}
    layer = _tar({name: text.encode() for name, text in files.items()})
    layers = ["sha256:" + hashlib.sha256(layer).hexdigest()]
    settings = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": layers}, "config": {}}
    manifest = [{"Config": "config.json", "RepoTags": [f"{path.stem}:latest"], "Layers": ["layer.tar"]}]
    path.write_bytes(
        _tar({
            "manifest.json": json.dumps(manifest).encode(),
            "config.json": json.dumps(settings).encode(),
            "layer.tar": layer,
        })
    )  # fmt: skip


def write_materials(path: Path, system: Mapping[str, str], kind: str, packages: Sequence[str]) -> None:
    """A bill of materials (CycloneDX) with version 0 of packages on a ``system``, as Trivy describes one.

    ``kind``: how URLs of its packages begin, such as ``pkg:deb/debian``.
    """
    parts: list[dict[str, str]] = [
        {"type": "operating-system", "name": system["Family"], "version": system["Name"]},
        *({"type": "library", "name": one, "version": "0", "purl": f"{kind}/{one}@0?arch=x86_64"} for one in packages),
    ]
    numbered = [{"bom-ref": str(number), **part} for number, part in enumerate(parts)]
    path.write_text(
        json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": numbered}), "utf-8"
    )


def write_database(folder: Path, *, knows: bool = True, data_of: str = DATA_OF, systems: Sequence[str] = ()) -> None:
    """A cache folder of Trivy's with the database; one that ``knows`` nothing holds no vulnerability.

    ``systems``: distributions with their releases, such as ``debian 12``, of each of which it knows a flaw in openssl.
    """
    source = "pip::GitHub Security Advisory pip"
    versions = {"PatchedVersions": [CORRECTED[1]], "VulnerableVersions": [f"<{CORRECTED[1]}"]}
    told = {"Title": "Leaves the sandbox through str.format_map", "Severity": "HIGH"}
    (folder / "db").mkdir(parents=True, exist_ok=True)
    (folder / "db" / "trivy.db").write_bytes(
        _bolt({
            "data-source": {source: json.dumps({"ID": "ghsa", "Name": source.removeprefix("pip::")})},
            source: {VULNERABLE[0]: {VULNERABILITY: json.dumps(versions)}} if knows else {},
            "vulnerability": {VULNERABILITY: json.dumps(told)} if knows else {},
            **{system: {"openssl": {VULNERABILITY: json.dumps({"FixedVersion": "3.0.9-1"})}} for system in systems},
        })
    )  # fmt: skip
    times = dict.fromkeys(("UpdatedAt", "NextUpdate", "DownloadedAt"), f"{data_of}T00:00:00Z")
    (folder / "db" / "metadata.json").write_text(json.dumps({"Version": 2, **times}), encoding="utf-8")


def _tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _bolt(entries: Entries) -> bytes:
    pages = [_meta(0), _meta(1), _page(FREE, FREELIST, 0), _leaf(ROOT, entries)]
    return b"".join(page.ljust(PAGE, b"\0") for page in pages)


def _meta(number: int) -> bytes:
    """Which of the two counts is decided by the last number before the checksum, that of the transaction."""
    fields = struct.pack("<IIIIQQQQQ", MAGIC, FORMAT, PAGE, 0, ROOT, 0, FREE, PAGES, number)
    return _page(number, META, 0, fields + struct.pack("<Q", _fnv1a(fields)))


def _leaf(number: int, entries: Entries) -> bytes:
    """A page of sorted keys; a bucket in it is a value that begins with 16 bytes of zeros, then a page of its own."""
    table, data = b"", b""
    for place, (key, value) in enumerate(sorted(entries.items())):
        stored = value.encode() if isinstance(value, str) else bytes(16) + _leaf(0, value)
        start = 16 * (len(entries) - place) + len(data)
        table += struct.pack("<IIII", 0 if isinstance(value, str) else BUCKET, start, len(key.encode()), len(stored))
        data += key.encode() + stored
    return _page(number, LEAF, len(entries), table + data)


def _page(number: int, kind: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<QHHI", number, kind, count, 0) + content


def _fnv1a(content: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value
