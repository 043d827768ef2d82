"""The acceptance suite: that it ran against a deployment of this tree and passed, by the report that it wrote."""

from __future__ import annotations

from sqa import junit
from sqa.check import Canary, Check, Look, Report
from sqa.evidence import DEPLOYED
from sqa.options import Options, taken


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``reports``: files of JUnit's XML, or verdicts (``.json``) of the acceptance suite. ``select``: a regular expression
    on names of tests.
    """

    reports: tuple[str, ...] = ("reports/acceptance.xml",)
    select: str = ""


def inspect(look: Look) -> Report:
    """Each test that failed is a finding."""
    own = taken(look, Taken)
    return junit.reported(look, junit.evident(look, own.reports, own.select))


def _report(*inner: str) -> str:
    cases = "".join(
        f'<testcase classname="site" name="test{number}">{one}</testcase>' for number, one in enumerate(inner)
    )
    return f"<testsuites><testsuite>{cases}</testsuite></testsuites>\n"


SKIPPED = '<skipped message="no GPU"/>'
CHECK = Check(
    name="acceptance",
    title="Acceptance tests of a deployment passed",
    inspect=inspect,
    files=DEPLOYED,
    canary=Canary(
        "failed",
        bad={
            "site.yml": "---\n",
            "reports/acceptance.xml": _report("", SKIPPED, '<failure message="no answer"/>', "<error>gone</error>"),
        },
        good={"site.yml": "---\n", "reports/acceptance.xml": _report("", SKIPPED)},
        says=("site.test2: no answer", "site.test3: gone"),
    ),
    of_repository=True,
    seconds=1,
)
