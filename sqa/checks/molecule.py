"""Scenarios of Molecule: that each of them was run on this tree and passed, by the JUnit report of the run."""

from __future__ import annotations

import re

from sqa import junit
from sqa.check import Canary, Check, Look, Report
from sqa.evidence import DEPLOYED
from sqa.options import Options, taken
from sqa.scenarios import scenarios, untested


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``reports``: files of JUnit's XML. ``select``: a regular expression on names of tests. ``without``: scenarios that
    only help others.
    """

    reports: tuple[str, ...] = ("reports/molecule.xml",)
    select: str = ""
    without: tuple[str, ...] = ()


def inspect(look: Look) -> Report:
    """Look for a test of each scenario; a failed or a missing one is a finding."""
    own = taken(look, Taken)
    cases = junit.evident(look, own.reports, own.select)
    ran = [one.name for one in cases if one.state != "skipped"]
    shown = [
        name
        for name in scenarios(look.files)
        if any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", one) for one in ran)
    ]
    return junit.reported(look, cases, untested(look, own.without, shown))


def _report(inner: str) -> str:
    return f'<testsuite><testcase classname="molecule" name="web">{inner}</testcase></testsuite>\n'


SCENARIO = {"molecule/web/molecule.yml": "---\n"}
CHECK = Check(
    name="molecule",
    title="Scenarios of Molecule passed",
    inspect=inspect,
    files=DEPLOYED,
    canary=Canary(
        "failed",
        bad={**SCENARIO, "reports/molecule.xml": _report('<failure message="converge"/>')},
        good={**SCENARIO, "reports/molecule.xml": _report("")},
    ),
    of_repository=True,
    seconds=1,
)
