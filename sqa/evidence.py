"""Reports that other programs wrote about a tree, read so that an old, an empty or a foreign one proves nothing."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree  # nosec B405 # see read_xml

from sqa.check import InconclusiveError, Look

LARGEST = 64 << 20  # bytes
# What a test of a deployment is about: everything but pages, whose change leaves the evidence as good as it was.
DEPLOYED = ("*", "!*.md", "!*.rst", "!/docs/**", "!/changelogs/**", "!/.sqa/**", "!/sqa.yml", "!/reports/**")


@dataclass(frozen=True)
class Evidence:
    """A report: its name in the repository, where it is, and since when nothing may have changed for it to count."""

    name: str
    path: Path
    taken: float

    def require_newer(self, look: Look, files: Iterable[str]) -> None:
        """Raise ``InconclusiveError`` where one of ``files`` was changed since."""
        changed = {name: (look.root / name).stat().st_mtime for name in files}
        newest = max(changed, key=lambda name: (changed[name], name), default="")
        if newest and changed[newest] > self.taken:
            raise InconclusiveError(
                f"{self.name} is older than what it is about (changed since: {newest}); next: run the tests again"
            )

    def since(self, began: float | None) -> Evidence:
        """The same report, of which is known when the work that it reports on began."""
        return self if began is None else Evidence(self.name, self.path, min(self.taken, began))


def find(look: Look, name: str) -> Evidence:
    """The report ``name`` of the repository; raises ``InconclusiveError`` where it is missing, outside or too large."""
    path = (look.root / name).resolve()
    if not path.is_relative_to(look.root.resolve()):
        raise InconclusiveError(
            f"{name} is outside of the repository; next: name a report in it (sqa.yml: checks: {look.check})"
        )
    try:
        found = path.stat()
    except OSError as missing:
        raise InconclusiveError(
            f"no report {name} ({missing.strerror}); next: run the tests that write it, or name another in sqa.yml: "
            f"checks: {look.check}"
        ) from missing
    if found.st_size > LARGEST:
        raise InconclusiveError(f"{name}: {found.st_size} bytes, over the limit of {LARGEST}")
    return Evidence(name, path, found.st_mtime)


def read_text(evidence: Evidence) -> str:
    """The text of a report."""
    return evidence.path.read_text(encoding="utf-8", errors="replace")


def read_xml(evidence: Evidence) -> ElementTree.Element:
    """The root of a report in XML; raises ``InconclusiveError`` where it is none.

    Declarations of entities, with which a small file can grow without end, are refused.
    """
    text = read_text(evidence)
    if "<!ENTITY" in text:
        raise InconclusiveError(f"{evidence.name} declares entities of XML, which no report needs")
    try:
        return ElementTree.fromstring(text)  # nosec B314 # no entity, and no larger than LARGEST
    except ElementTree.ParseError as broken:
        raise InconclusiveError(f"{evidence.name} is no XML ({broken}); next: run the tests again") from broken


def moment(written: str | None) -> float | None:
    """Seconds since 1970 of a time as reports write it (ISO 8601, or milliseconds), nothing where there is none."""
    if not written or written == "0":  # what knows no time writes none, or 0
        return None
    if written.isdecimal():
        return int(written) / (1000 if len(written) > 11 else 1)
    try:
        return datetime.datetime.fromisoformat(written).timestamp()
    except ValueError:
        return None
