"""JUnit XML as CI servers read it: a suite of the criteria and a suite of the checks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # nosec B405 # it writes, and reads nothing
from collections.abc import Mapping, Sequence
from typing import Any

from sqa.standard import BINDING

# What XML 1.0 cannot hold, escaped or not.
FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(document: Mapping[str, Any]) -> str:
    """A MUST that is not met is a failure, or an error where nobody could look; other unmet ones are skipped."""
    suites = ET.Element("testsuites", name=f"quality of {_clean(document['repository'])}")
    if not document["partial"]:
        _suite(suites, "criteria", document["created"], [_criterion(one) for one in document["criteria"]])
    _suite(suites, "checks", document["created"], [_check(one, document["accepted"]) for one in document["checks"]])
    _suite(suites, "gate", document["created"], [_gate(document["obstacles"])])
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(parent: ET.Element, name: str, created: str, cases: Sequence[ET.Element]) -> None:
    suite = ET.SubElement(parent, "testsuite", name=name, timestamp=created, tests=str(len(cases)))
    for kind, tag in KINDS.items():
        suite.set(kind, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)


KINDS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def _gate(obstacles: Sequence[str]) -> ET.Element:
    """Whether the tree is let through: also what no criterion and no check says, such as a waiver that has expired."""
    case = ET.Element("testcase", classname="gate", name="the tree is let through")
    if obstacles:
        ET.SubElement(case, "failure", message=f"{len(obstacles)} obstacles").text = _clean("\n".join(obstacles))
    return case


def _criterion(one: Mapping[str, Any]) -> ET.Element:
    case = ET.Element("testcase", classname="criteria", name=f"{one['id']} {one['title']}")
    why = f"{one['level']}, {one['means']}: {one['why']}" + (f" (waiver {one['waiver']})" if one["waiver"] else "")
    if one["verdict"] == "pass":
        return case
    binding = one["level"] in BINDING and not one["waiver"]
    tag = {"fail": "failure", "inconclusive": "error"}.get(one["verdict"]) if binding else None
    ET.SubElement(case, tag or "skipped", message=_clean(f"{one['verdict']}: {why}"))
    return case


def _check(one: Mapping[str, Any], accepted: Mapping[str, str]) -> ET.Element:
    case = ET.Element("testcase", classname="checks", name=one["check"])
    reasons = "; ".join(one["reasons"])
    if one["verdict"] == "fail":
        left = [finding for finding in one["findings"] if finding["fingerprint"] not in accepted]
        lines = [f"{_place(each)}: {each['rule']}: {each['message']}" for each in left]
        ET.SubElement(case, "failure", message=f"{len(left)} findings").text = _clean("\n".join(lines))
    elif one["verdict"] == "inconclusive":
        ET.SubElement(case, "error", message=_clean(reasons))
    elif one["verdict"] == "not_applicable":
        ET.SubElement(case, "skipped", message=_clean(reasons))
    return case


def _place(finding: Mapping[str, Any]) -> str:
    return f"{finding['path']}:{finding['line']}" if finding["line"] else finding["path"] or "whole tree"


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
