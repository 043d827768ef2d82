"""What the suite says: findings, the work behind them, and the verdict of a check."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a check or a criterion comes to; only ``PASS`` says that something was looked at and is as it should be."""

    PASS = "pass"  # nosec B105 # a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not_applicable"


NO_FILE = "no file of its kind"
SEVERITIES = ("note", "warning", "error")


@dataclass(frozen=True, order=True)
class Finding:
    """One defect: where it is, the tool's rule and the tool's words.

    ``path`` is relative to the repository's root with ``/``, empty for what concerns the whole of it; ``line`` counts
    from 1, 0 where there is none. ``fingerprint`` stays the same when the line moves: see ``fingerprinted``.
    """

    path: str
    line: int
    check: str
    rule: str
    message: str
    severity: str = "error"
    fingerprint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return dict(vars(self))


def fingerprinted(findings: Iterable[Finding], line_of: Callable[[str, int], str]) -> list[Finding]:
    """The findings in order, each with its fingerprint.

    It is SHA-256 of check, rule, path, the line's text, and how many of the same come before it in the file.
    ``line_of(path, line)`` gives a line's text; blanks around and inside it do not count. A finding without a line is
    known by its message.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    made = []
    for one in sorted(findings):
        text = " ".join(line_of(one.path, one.line).split()) if one.line else one.message
        key = (one.check, one.rule, one.path, text)
        seen[key] += 1
        digest = hashlib.sha256("\0".join((*key, str(seen[key]))).encode("utf-8", "surrogateescape")).hexdigest()
        made.append(replace(one, fingerprint=digest[:32]))
    return made


@dataclass(frozen=True)
class Outcome:  # pylint: disable=too-many-instance-attributes # each is a part of the proof
    """What one check came to, with the proof that it worked.

    ``examined``: files that the tool itself has looked at, of ``selected`` ones that it was asked to look at.
    ``work``: what else was counted (rules, dependencies, date of the data). ``reasons``: why it is inconclusive or not
    applicable. ``rules``: criteria that the check judges one by one, empty where it is judged as a whole. ``criteria``:
    those that it judges beside the ones that name it. ``unit``: what is selected and examined, where that is not files.
    ``seconds`` and ``cached`` are of this run alone; reports that are compared leave them out.
    """

    check: str
    verdict: Verdict
    tool: str = ""
    title: str = ""
    findings: tuple[Finding, ...] = ()
    selected: int = 0
    examined: int = 0
    work: Mapping[str, str | int] = field(default_factory=dict)
    rules: frozenset[str] = frozenset()
    criteria: tuple[str, ...] = ()
    unit: str = "files"
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    cached: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The outcome as a JSON object, without what differs from run to run."""
        return {
            "check": self.check,
            "verdict": self.verdict.value,
            "tool": self.tool,
            "title": self.title,
            "selected": self.selected,
            "examined": self.examined,
            "unit": self.unit,
            "work": dict(sorted(self.work.items())),
            "rules": sorted(self.rules),
            "reasons": list(self.reasons),
            "findings": [one.as_dict() for one in self.findings],
        }
