# Copyright: deep-testbed maintainers
# Apache License 2.0 (see LICENSE)
"""Bring the files of one artefact onto a node: verified by content, complete or absent, linked into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from typing import IO, Any, BinaryIO

BLOCK = 1 << 20
STATE = ".origin.json"
TRANSFERS = 2
FOLDER_MODE = 0o755
PYTHON = "/usr/bin/python3"


class ArtifactError(Exception):
    """A message for the user: what, what was found, what is needed."""


def sha256_of(path: str) -> str | None:
    """Hexadecimal SHA-256 of a file; None when there is none."""
    try:
        with open(path, "rb") as source:
            return _hash_stream(source)
    except FileNotFoundError:
        return None


def _hash_stream(source: IO[bytes], sink: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    while True:
        block = source.read(BLOCK)
        if not block:
            return digest.hexdigest()
        digest.update(block)
        if sink:
            sink.write(block)


def parse_checksums(text: str) -> dict[str, str]:
    """``{file name: hex}`` of a checksum file; a bare hash is found under the empty name."""
    sums = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 1 and len(words[0]) == 64:
            sums[""] = words[0].lower()
        elif len(words) == 2:
            sums[words[1].lstrip("*").rsplit("/", 1)[-1]] = words[0].lower()
    return sums


class Installer:
    """Installs what a specification of the lookup ``artifact`` names.

    ``fetch(url)`` returns a binary stream; with ``check`` nothing is written. After ``run`` the
    attributes ``downloaded`` and ``placed`` list file names and destinations that changed.
    """

    def __init__(self, spec: dict[str, Any], fetch: Callable[[str], BinaryIO], check: bool = False) -> None:
        self.spec = spec
        self.fetch = fetch
        self.check = check
        self.folder: str = spec["directory"]
        self.downloaded: list[str] = []
        self.placed: list[str] = []
        self._sums: dict[str, dict[str, str]] = {}
        self._origin: dict[str, dict[str, str]] = {}

    @property
    def changed(self) -> bool:
        """Whether anything was, or with ``check`` would be, written."""
        return bool(self.downloaded or self.placed)

    def run(self) -> None:
        """Download what is missing or different, then put every file into its place."""
        self._origin = self._read_origin()
        if not self.check:
            os.makedirs(self.folder, mode=0o755, exist_ok=True)
            self._remove_remains()
        archives: dict[str, str] = {}
        try:
            for entry in self.spec["files"]:
                self._bring(entry, archives)
        finally:
            for path in archives.values():
                os.unlink(path)
        for entry in self.spec["files"]:
            if entry.get("dest"):
                self._place(entry)
            if entry.get("unpack"):
                self._unpack(entry)

    # Content

    def _bring(self, entry: dict[str, Any], archives: dict[str, str]) -> None:
        path = os.path.join(self.folder, entry["name"])
        needed = self._needed(entry)
        if entry.get("member"):
            self._bring_member(entry, path, needed, archives)
            return
        if sha256_of(path) == needed:
            self._set_mode(path, entry)
            return
        self.downloaded.append(entry["name"])
        if not self.check:
            os.rename(self._download(entry["src"], needed, entry["name"], entry["mode"]), path)

    def _bring_member(self, entry: dict[str, Any], path: str, archive_hash: str, archives: dict[str, str]) -> None:
        """Files inside an archive are known by the archive they came from and the hash they had then."""
        known = self._origin.get(entry["name"], {})
        if known.get("archive") == archive_hash and sha256_of(path) == known.get("sha256"):
            self._set_mode(path, entry)
            return
        self.downloaded.append(entry["name"])
        if self.check:
            return
        if entry["src"] not in archives:
            archives[entry["src"]] = self._download(entry["src"], archive_hash, entry["name"], "0600")
        found = self._extract(archives[entry["src"]], entry, path)
        self._origin[entry["name"]] = {"archive": archive_hash, "sha256": found}
        self._write_origin()

    def _needed(self, entry: dict[str, Any]) -> str:
        if entry.get("sha256"):
            return str(entry["sha256"])
        url = entry.get("checksum_url") or self.spec.get("checksums_url")
        if not url:
            raise ArtifactError(f"{self.spec['name']}: {entry['name']} has neither a hash nor a checksum_url")
        if url not in self._sums:
            with self.fetch(url) as source:
                self._sums[url] = parse_checksums(source.read().decode("utf-8", "replace"))
        sums = self._sums[url]
        base = entry["src"].rsplit("/", 1)[-1]
        found = sums.get(base) or sums.get("")
        if not found:
            raise ArtifactError(f"{self.spec['name']}: no hash of {base} in {url} (needed: a line 'SHA256  {base}')")
        return found

    def _download(self, url: str, needed: str, name: str, mode: str) -> str:
        """Fetch to a temporary file and return its path; what arrives damaged is fetched once more."""
        found = ""
        for _ in range(TRANSFERS):
            temporary, found = self._transfer(url, needed, mode)
            if temporary:
                return temporary
        raise ArtifactError(
            f"{self.spec['name']}: the download of {name} is damaged or was exchanged: "
            f"found sha256 {found}, needed {needed}, from {url}"
        )

    def _transfer(self, url: str, needed: str, mode: str) -> tuple[str | None, str]:
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as sink, self.fetch(url) as source:
                found = _hash_stream(source, sink)
                self._finish(sink, mode)
        except BaseException:
            os.unlink(temporary)
            raise
        if found == needed:
            return temporary, found
        os.unlink(temporary)
        return None, found

    def _extract(self, archive: str, entry: dict[str, Any], path: str) -> str:
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as sink, tarfile.open(archive) as content:
                source = _member(content, entry["member"])
                if source is None:
                    raise ArtifactError(f"{self.spec['name']}: {entry['src']} has no member {entry['member']}")
                found = _hash_stream(source, sink)
                self._finish(sink, entry["mode"])
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return found

    @staticmethod
    def _finish(sink: IO[bytes], mode: str) -> None:
        sink.flush()
        os.fchmod(sink.fileno(), int(mode, 8))
        os.fsync(sink.fileno())

    def _set_mode(self, path: str, entry: dict[str, Any]) -> None:
        wanted = int(entry["mode"], 8)
        if os.stat(path).st_mode & 0o7777 == wanted:
            return
        self.placed.append(path)
        if not self.check:
            os.chmod(path, wanted)

    # Places

    def _place(self, entry: dict[str, Any]) -> None:
        path, dest = os.path.join(self.folder, entry["name"]), entry["dest"]
        if os.path.isdir(dest) and not os.path.islink(dest):
            raise ArtifactError(
                f"{self.spec['name']}: {dest} is a directory, needed: a place for the file {entry['name']}"
            )
        if self._in_place(entry, path, dest):
            return
        self.placed.append(dest)
        if self.check:
            return
        os.makedirs(os.path.dirname(dest), mode=0o755, exist_ok=True)
        temporary = os.path.join(os.path.dirname(dest), f".tmp-{os.getpid()}-{os.path.basename(dest)}")
        try:
            if entry.get("copy"):
                shutil.copyfile(path, temporary)
                os.chmod(temporary, int(entry["mode"], 8))
            else:
                os.symlink(path, temporary)
            os.rename(temporary, dest)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)

    def _in_place(self, entry: dict[str, Any], path: str, dest: str) -> bool:
        if not entry.get("copy"):
            return os.path.islink(dest) and os.readlink(dest) == path
        if os.path.islink(dest) or entry["name"] in self.downloaded:
            return False
        return sha256_of(dest) == sha256_of(path) and os.stat(dest).st_mode & 0o7777 == int(entry["mode"], 8)

    # Archives

    def _unpack(self, entry: dict[str, Any]) -> None:
        """A folder is known by the archive that it came from. It is exchanged as a whole."""
        target, archive = os.path.join(self.folder, entry["unpack"]), self._needed(entry)
        if self._origin.get(entry["unpack"], {}).get("archive") == archive and os.path.isdir(target):
            return
        self.placed.append(target)
        if self.check:
            return
        temporary = tempfile.mkdtemp(dir=self.folder, prefix=".tmp-")
        with tarfile.open(os.path.join(self.folder, entry["name"])) as content:
            _extract_all(content, temporary)
        os.chmod(temporary, FOLDER_MODE)
        _compile(temporary)
        # Killed in between, the next run finds no folder of this archive and does it again.
        self._origin[entry["unpack"]] = {"archive": archive}
        if os.path.lexists(target):
            os.rename(target, tempfile.mkdtemp(dir=self.folder, prefix=".tmp-"))
        os.rename(temporary, target)
        self._write_origin()
        self._remove_remains()

    # What is known of earlier runs

    def _read_origin(self) -> dict[str, dict[str, str]]:
        try:
            with open(os.path.join(self.folder, STATE), encoding="utf-8") as source:
                known = json.load(source)
        except (FileNotFoundError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write_origin(self) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".tmp-")
        with os.fdopen(handle, "w", encoding="utf-8") as sink:
            json.dump(self._origin, sink, sort_keys=True)
        os.rename(temporary, os.path.join(self.folder, STATE))

    def _remove_remains(self) -> None:
        """A run that was killed leaves temporary files; they are never used."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name.startswith(".tmp-"):
                (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)


def _member(content: tarfile.TarFile, name: str) -> IO[bytes] | None:
    try:
        return content.extractfile(name)
    except KeyError:
        return None


def _extract_all(content: tarfile.TarFile, folder: str) -> None:
    """Files and folders of an archive; one that names places elsewhere is refused."""
    # Python 3.14 changes modes without being told, older ones know no filter.
    known: Any = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
    for member in content:
        if os.path.isabs(member.name) or ".." in member.name.split("/") or not (member.isreg() or member.isdir()):
            raise ArtifactError(f"{member.name}: a link, or a place outside the archive's folder (needed: plain files)")
        content.extract(member, folder, **known)


def _compile(folder: str) -> None:
    """Bytecode for a program of Python: what runs it cannot write there, and would compile at every start."""
    if not os.path.isfile(os.path.join(folder, "__main__.py")):
        return
    # Not every file has to be one that this Python understands: some packages bring templates.
    subprocess.run(
        [PYTHON, "-IS", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", folder],
        stdout=subprocess.DEVNULL,
        check=False,
    )
