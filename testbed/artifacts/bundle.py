"""A directory that holds every artefact of a site: for places without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import files
from testbed.artifacts.declaration import Declaration
from testbed.artifacts.store import SUMS, Problem, Record, Store
from testbed.errors import DeepError

README = "README.md"
SUMS_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>\S.*)")
TEXT = """# Artefacts of a DEEP site

For a site without a network:

    mirror/NAME/VERSION/    the files and their {sums}: the layout that roles expect of a mirror
    artifacts/              the declarations: versions, licences, origin
    {sums}              hashes of every file here

Check it after each copy: `deep artifacts verify --bundle DIRECTORY`, or `sha256sum --check {sums}`.

Use it in the site's `group_vars`, in one of two ways:

    artifact_sources: [mirror, package]
    artifact_checksums: /mnt/bundle/mirror          # this folder on the control machine: what nodes hold files against
    artifact_mirror: file:///mnt/bundle/mirror      # the same path on every node (NFS, a disk)
    artifact_mirror: http://DEPLOYMENT-HOST:8080    # after the command below, on that host

    deep artifacts serve --folder DIRECTORY/mirror --bind IP --port 8080

Not in it, because they can neither be built nor verified where bundles are made; docs/site-admin.md says what to do:

{lacking}
- packages of the distribution and of NVIDIA's repositories: the site's own package mirror has them

| artefact | version | licence | size |
|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Bundle:
    """What was written: ``size`` in bytes, ``copied`` files that are new, ``lacking`` what a site needs besides."""

    directory: str
    artifacts: int
    size: int
    copied: int
    lacking: list[str]


def write(
    directory: Path, ordered: list[Declaration], declarations_dir: Path, store: Store, lacking: Sequence[str] = ()
) -> Bundle:
    """Write the artefacts ``ordered`` into ``directory``; files that are already right are kept.

    ``lacking`` is what a site needs besides, in words. Every file is verified after it was copied. Raises ``DeepError``
    for an artefact that is not in the store, a directory that holds something else, and a full disk.
    """
    records = [_stored(item, store) for item in ordered]
    _refuse_foreign(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files.require_space(directory, _missing_bytes(directory, records), "the bundle")
    sums: dict[str, str] = {}
    copied = 0
    with files.disk_full_explained(directory, "the bundle"):
        # Without its list of hashes an interrupted bundle fails verification, as it should.
        (directory / SUMS).unlink(missing_ok=True)
        for record, item in zip(records, ordered, strict=True):
            copied += _copy_record(directory, record, store, sums)
            _place(directory, f"artifacts/{item.name}.yml", (declarations_dir / f"{item.name}.yml").read_bytes(), sums)
        _place(directory, README, _readme(ordered, records, lacking).encode(), sums)
        _remove_others(directory, set(sums))
        files.write_atomic(directory / SUMS, files.checksum_lines(sums).encode())
    return Bundle(str(directory), len(records), sum(record.size for record in records), copied, list(lacking))


def _stored(item: Declaration, store: Store) -> Record:
    record = store.record(item.name)
    if record is None or record.version != item.version:
        raise DeepError(
            f"artefact {item.name} is not in the store",
            found=record.version if record else "nothing",
            needed=item.version,
            next_step=f"run 'deep artifacts build {item.name}'",
        )
    return record


def _refuse_foreign(directory: Path) -> None:
    if (
        directory.exists()
        and (not directory.is_dir() or any(directory.iterdir()))
        and not (directory / "mirror").is_dir()
    ):
        raise DeepError(
            f"{directory} holds something else",
            needed="an empty or new directory, or an earlier bundle",
            next_step="choose another directory",
        )


def _missing_bytes(directory: Path, records: list[Record]) -> int:
    total = 0
    for record in records:
        for name, entry in record.files.items():
            path = directory / "mirror" / record.name / record.version / name
            total += 0 if path.is_file() and path.stat().st_size == entry.size else entry.size
    return total


def _copy_record(directory: Path, record: Record, store: Store, sums: dict[str, str]) -> int:
    copied = 0
    place = f"mirror/{record.name}/{record.version}"
    for name, entry in record.files.items():
        target = directory / place / name
        sums[f"{place}/{name}"] = entry.sha256
        if target.is_file() and files.sha256_of(target) == entry.sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".tmp-{name}")
        shutil.copyfile(store.object_path(entry.sha256), partial)
        found = files.sha256_of(partial)
        if found != entry.sha256:
            partial.unlink()
            raise DeepError(
                f"{record.name}/{name}: the stored file is damaged",
                found=found,
                needed=entry.sha256,
                next_step="run 'deep artifacts build --rehash'",
            )
        partial.replace(target)
        copied += 1
    inner = files.checksum_lines({name: entry.sha256 for name, entry in record.files.items()})
    _place(directory, f"{place}/{SUMS}", inner.encode(), sums)
    return copied


def _place(directory: Path, name: str, content: bytes, sums: dict[str, str]) -> None:
    files.write_atomic(directory / name, content)
    sums[name] = files.sha256_of(directory / name)


def _remove_others(directory: Path, kept: set[str]) -> None:
    """Older versions and remains of an interrupted run do not belong to the bundle."""
    for path in _files_below(directory):
        if str(path.relative_to(directory)) not in kept:
            path.unlink()


def _files_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() or path.is_symlink())


def _readme(ordered: list[Declaration], records: list[Record], lacking: Sequence[str]) -> str:
    rows = [
        f"| {item.name} | {item.version} | {item.licence} | {files.human(record.size)} |"
        for item, record in zip(ordered, records, strict=True)
    ]
    return TEXT.format(sums=SUMS, rows="\n".join(rows), lacking="\n".join(f"- {item}" for item in lacking))


def verify(directory: Path) -> list[Problem]:
    """Files of a bundle that are missing, damaged or not listed."""
    listing = directory / SUMS
    if not listing.is_file():
        raise DeepError(
            f"{directory} is no complete bundle",
            found=f"no {SUMS}",
            needed=f"{SUMS}",
            next_step=f"run 'deep artifacts bundle {directory}'",
        )
    problems: list[Problem] = []
    listed: dict[str, str] = {}
    for number, line in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = SUMS_LINE.fullmatch(line)
        if match:
            listed[match["name"]] = match["digest"]
        else:
            problems.append(Problem("bundle", SUMS, f"'{line}' in line {number}", "a line 'SHA256  NAME'"))
    for name, needed in listed.items():
        path = directory / name
        found = files.sha256_of(path) if path.is_file() else "no file"
        if found != needed:
            problems.append(Problem("bundle", name, found, needed))
    extra = {str(path.relative_to(directory)) for path in _files_below(directory)} - set(listed) - {SUMS}
    return problems + [Problem("bundle", name, "not listed", f"a line in {SUMS}") for name in sorted(extra)]
