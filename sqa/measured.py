"""Reports of coverage, Cobertura's XML or LCOV's, mapped onto the files of the repository."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqa import evidence
from sqa.check import InconclusiveError, Look
from sqa.model import Finding


@dataclass(frozen=True)
class Measured:
    """Per file of the repository: how often each of its lines ran, by the line's number. ``foreign``: other files."""

    files: Mapping[str, Mapping[int, int]]
    foreign: int

    def share(self, names: Iterable[str]) -> tuple[int, int]:
        """How many lines of some files ran, and of how many."""
        hits = [count for name in names for count in self.files.get(name, {}).values()]
        return sum(count > 0 for count in hits), len(hits)


def read(look: Look, name: str) -> Measured:
    """The report ``name``; raises ``InconclusiveError`` where it is none, older than a file, or of another tree."""
    found = evidence.find(look, name)
    text = evidence.read_text(found)
    if text.lstrip().startswith("<"):
        raw, found = _cobertura(found)
    else:
        raw = _lcov(found, text)
    known = set(look.files)
    mine: dict[str, dict[int, int]] = defaultdict(dict)
    foreign = 0
    for candidates, lines in raw:
        matching = {one for one in map(_relative(look), candidates) if one in known}
        if len(matching) > 1:
            raise InconclusiveError(
                f"{name}: an entry can be each of {', '.join(sorted(matching))}; "
                "next: measure with one source, the root"
            )
        path = next(iter(matching), "")
        if not path:
            foreign += 1
        else:
            own = mine[path]  # also of a file without a line that can run
            own.update({number: max(hits, own.get(number, 0)) for number, hits in lines.items()})
    if not any(mine.values()):
        raise InconclusiveError(
            f"{name} covers none of the {len(known)} files looked at (found: {len(raw)} others); "
            "next: measure this tree, or correct exclude"
        )
    found.require_newer(look, mine)
    return Measured(dict(mine), foreign)


def percent(covered: int, total: int) -> float:
    """As a percentage, cut after one digit so that what is too low never looks high enough."""
    return covered * 1000 // total / 10 if total else 100.0


def below(look: Look, rule: str, what: str, share: tuple[int, int], minimum: float) -> list[Finding]:
    """A finding where a share is lower than it has to be."""
    covered, total = share
    if total and covered * 100 < minimum * total:
        said = f"{what}: {covered} of {total} lines ran, {percent(covered, total)} %, needed: {minimum:g} %"
        return [look.finding("", None, rule, said)]
    return []


def unmeasured(look: Look, measured: Measured) -> list[str]:
    """Files in a language that the report knows, and that it does not have."""
    languages = {PurePosixPath(name).suffix for name in measured.files}
    return [name for name in look.files if PurePosixPath(name).suffix in languages and name not in measured.files]


Raw = list[tuple[tuple[str, ...], dict[int, int]]]


def _cobertura(found: evidence.Evidence) -> tuple[Raw, evidence.Evidence]:
    """Its entries, and the report with the time that it says itself, which a copy of the file keeps."""
    root = evidence.read_xml(found)
    if root.tag != "coverage":
        raise InconclusiveError(f"{found.name} is no report of coverage (found: <{root.tag}>, needed: <coverage>)")
    sources = [(one.text or "").strip() for one in root.iter("source")]
    raw: Raw = []
    try:
        for one in root.iter("class"):
            name = one.attrib["filename"]
            lines = {int(line.attrib["number"]): int(line.attrib["hits"]) for line in one.iterfind("lines/line")}
            raw.append(((*(posixpath.join(source, name) for source in sources), name), lines))
    except (KeyError, ValueError) as broken:
        raise InconclusiveError(
            f"{found.name}: a class or a line is not as Cobertura writes it: {broken!r}"
        ) from broken
    return raw, found.since(evidence.moment(root.get("timestamp")))


def _lcov(found: evidence.Evidence, text: str) -> Raw:
    raw: Raw = []
    try:
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key == "SF":
                raw.append(((value.strip(),), {}))
            elif key == "DA":
                number, hits = value.split(",")[:2]
                raw[-1][1][int(number)] = int(hits)
    except (IndexError, ValueError) as broken:
        raise InconclusiveError(f"{found.name} is neither Cobertura's XML nor LCOV's format: {broken!r}") from broken
    return raw


def _relative(look: Look) -> Callable[[str], str]:
    roots = (f"{look.root}/", f"{look.root.resolve()}/")

    def relative(name: str) -> str:
        plain = posixpath.normpath(name.replace("\\", "/"))
        return next((plain.removeprefix(root) for root in roots if plain.startswith(root)), plain)

    return relative
