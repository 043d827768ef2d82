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
    suites = ET.Element("testsuites", name=f"quality of {clean(document['repository'])}")
    if not document["partial"]:
        suite(suites, "criteria", document["created"], [_criterion(one) for one in document["criteria"]])
    suite(suites, "checks", document["created"], [_check(one, document["accepted"]) for one in document["checks"]])
    suite(suites, "gate", document["created"], [_gate(document["obstacles"])])
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def suite(parent: ET.Element, name: str, created: str, cases: Sequence[ET.Element]) -> None:
    """Add a suite of cases that was made at ``created`` (ISO 8601), with how many of each kind there are."""
    added = ET.SubElement(parent, "testsuite", name=name, timestamp=created, tests=str(len(cases)))
    for kind, tag in KINDS.items():
        added.set(kind, str(sum(case.find(tag) is not None for case in cases)))
    added.extend(cases)


KINDS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def _gate(obstacles: Sequence[str]) -> ET.Element:
    """Whether the tree is let through: also what no criterion and no check says, such as a waiver that has expired."""
    case = ET.Element("testcase", classname="gate", name="the tree is let through")
    if obstacles:
        ET.SubElement(case, "failure", message=f"{len(obstacles)} obstacles").text = clean("\n".join(obstacles))
    return case


def _criterion(one: Mapping[str, Any]) -> ET.Element:
    case = ET.Element("testcase", classname="criteria", name=f"{one['id']} {one['title']}")
    why = f"{one['level']}, {one['means']}: {one['why']}" + (f" (waiver {one['waiver']})" if one["waiver"] else "")
    if one["verdict"] == "pass":
        return case
    binding = one["level"] in BINDING and not one["waiver"]
    tag = {"fail": "failure", "inconclusive": "error"}.get(one["verdict"]) if binding else None
    ET.SubElement(case, tag or "skipped", message=clean(f"{one['verdict']}: {why}"))
    return case


def _check(one: Mapping[str, Any], accepted: Mapping[str, str]) -> ET.Element:
    case = ET.Element("testcase", classname="checks", name=one["check"])
    reasons = "; ".join(one["reasons"])
    if one["verdict"] == "fail":
        left = [finding for finding in one["findings"] if finding["fingerprint"] not in accepted]
        lines = [f"{_place(each)}: {each['rule']}: {each['message']}" for each in left]
        ET.SubElement(case, "failure", message=f"{len(left)} findings").text = clean("\n".join(lines))
    elif one["verdict"] == "inconclusive":
        ET.SubElement(case, "error", message=clean(reasons))
    elif one["verdict"] == "not_applicable":
        ET.SubElement(case, "skipped", message=clean(reasons))
    return case


def _place(finding: Mapping[str, Any]) -> str:
    return f"{finding['path']}:{finding['line']}" if finding["line"] else finding["path"] or "whole tree"


def clean(text: str) -> str:
    """The text without what XML cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)
