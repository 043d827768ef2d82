"""Reports of tests in JUnit's XML, and the verdict that the acceptance suite writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree  # nosec B405 # only its type; sqa.evidence reads

from sqa import evidence
from sqa.check import InconclusiveError, Look, Report
from sqa.model import Finding

State = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, order=True)
class Case:
    """One test: its name with that of its class or file, how it ended, and why it did not pass."""

    name: str
    state: State
    reason: str = ""


def read(look: Look, name: str) -> tuple[evidence.Evidence, list[Case]]:
    """The tests of a report (``.json``: a verdict of the acceptance suite), and since when nothing may have changed.

    Raises ``InconclusiveError`` where it is missing or none.
    """
    found = evidence.find(look, name)
    if name.endswith(".json"):
        return _verdict(found)
    root = evidence.read_xml(found)
    if root.tag not in ("testsuites", "testsuite"):
        raise InconclusiveError(f"{name} is no report of tests (found: <{root.tag}>, needed: <testsuites>)")
    began = [at for suite in root.iter("testsuite") if (at := evidence.moment(suite.get("timestamp"))) is not None]
    return found.since(min(began, default=None)), [_case(one) for one in root.iter("testcase")]


def evident(look: Look, names: Sequence[str], select: str = "") -> list[Case]:
    """The tests of all the reports that ``select`` (a regular expression on the name) takes.

    ``names`` may hold patterns; one that matches nothing adds nothing, as long as there is a report at all. Raises
    ``InconclusiveError`` where a report is missing or older than the newest of the files looked at, or where no test is
    left, or only skipped ones: then nothing was shown.
    """
    cases: list[Case] = []
    for name in _matching(look, names):
        found, its = read(look, name)
        found.require_newer(look, look.tree.matching(evidence.DEPLOYED))
        cases += its
    try:
        wanted = [one for one in cases if re.search(select, one.name)]
    except re.error as wrong:
        raise InconclusiveError(f"sqa.yml: checks: {look.check}: select: no regular expression: {wrong}") from wrong
    if all(one.state == "skipped" for one in wanted):
        skipped = f"{len(wanted)} skipped" if wanted else f"none of {len(cases)} tests that {select!r} selects"
        raise InconclusiveError(
            f"{', '.join(names)}: no test ran (found: {skipped}); next: run them, or correct select"
        )
    return wanted


def _matching(look: Look, names: Sequence[str]) -> list[str]:
    """The reports that are meant; the names themselves where none is there, so that they are said to be missing."""
    found: list[str] = []
    for name in names:
        pattern = "*" in name and not name.startswith("/") and ".." not in name
        found += sorted(str(path.relative_to(look.root)) for path in look.root.glob(name)) if pattern else [name]
    return list(dict.fromkeys(found)) or list(names)


def reported(look: Look, cases: Sequence[Case], more: Iterable[Finding] = ()) -> Report:
    """What the tests say: each failure is a finding, how many ran is the work."""
    failed = [look.finding("", None, "failed", f"{one.name}: {one.reason}") for one in cases if one.state == "failed"]
    return Report([*failed, *more], look.files, counted(cases))


def counted(cases: Sequence[Case]) -> dict[str, str | int]:
    """How many tests ran and how many were skipped."""
    skipped = sum(one.state == "skipped" for one in cases)
    return {"tests run": len(cases) - skipped, "tests skipped": skipped}


def _case(element: ElementTree.Element) -> Case:
    name = ".".join(filter(None, (element.get("classname"), element.get("name")))) or "(without a name)"
    for tag, state in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        said = element.find(tag)
        if said is not None:
            reason = (said.get("message") or (said.text or "").strip()).strip()
            return Case(name, "failed" if state == "failed" else "skipped", reason.partition("\n")[0][:300])
    return Case(name, "passed")


def _verdict(found: evidence.Evidence) -> tuple[evidence.Evidence, list[Case]]:
    """The checks of a verdict; one that was not run counts as failed, and so does a run that was cut short."""
    try:
        data = json.loads(evidence.read_text(found))
        cases = [_checked(one) for one in data["checks"]]
        began, ok = evidence.moment(data["started"]), bool(data["ok"])
    except (ValueError, TypeError, KeyError, AttributeError) as broken:
        raise InconclusiveError(f"{found.name} is no verdict of the acceptance suite: {broken!r}") from broken
    if not ok and not any(one.state == "failed" for one in cases):
        cases.append(Case("the run", "failed", "its verdict is not ok"))
    return found.since(began), cases


def _checked(one: dict[str, Any]) -> Case:
    state: State = "passed" if one["outcome"] == "passed" else "skipped" if one["outcome"] == "skipped" else "failed"
    return Case(str(one["id"]), state, str(one.get("reason") or "").partition("\n")[0][:300])
