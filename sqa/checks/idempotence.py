"""Idempotence: that a second run of each scenario changed nothing, by Molecule's own log or by a JUnit report."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqa import evidence, junit
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.evidence import DEPLOYED
from sqa.model import Finding
from sqa.options import Options, taken
from sqa.scenarios import untested

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
# As Molecule 25 and newer says it, and as older ones do.
NEW = re.compile(r"(?P<scenario>\S+) ➜ idempotence: Executed: (?P<how>\w+)")
OLD = re.compile(
    r"Running (?P<scenario>\S+) > idempotence$(?:(?!Running \S+ > ).)*?Idempotence (?P<how>completed|test failed)",
    re.MULTILINE | re.DOTALL,
)
GOOD = ("Successful", "completed")


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``logs``: patterns of Molecule's logs. ``reports``: files of JUnit's XML, in which ``select`` (a regular
    expression) takes the tests that converge twice. ``without``: scenarios that only help others.
    """

    logs: tuple[str, ...] = ("reports/molecule*.log",)
    reports: tuple[str, ...] = ()
    select: str = "idempot"
    without: tuple[str, ...] = ()


def inspect(look: Look) -> Report:
    """Read each log and each report; a scenario without a second run is a finding."""
    own = taken(look, Taken)
    results: dict[str, bool] = {}
    for name, good in _logged(look, own.logs):
        results[name] = results.get(name, True) and good
    cases = junit.evident(look, own.reports, own.select) if own.reports else []
    if not results and not cases:
        raise InconclusiveError(
            f"no second run (found: none in {', '.join(own.logs) or 'no log'}, needed: Molecule's step idempotence); "
            "next: molecule test"
        )
    findings: list[Finding] = [
        look.finding("", None, "not-idempotent", f"scenario {name}: the second run changed something")
        for name, good in results.items()
        if not good
    ]
    if results:
        findings += untested(look, own.without, results)
    made = junit.reported(look, cases, findings)
    return Report(made.findings, made.examined, {**made.work, "scenarios run twice": len(results)})


def _logged(look: Look, patterns: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Each scenario that a log shows to have run twice, and whether the second run changed nothing."""
    for name in sorted({str(path.relative_to(look.root)) for pattern in patterns for path in look.root.glob(pattern)}):
        found = evidence.find(look, name)
        text = ESCAPES.sub("", evidence.read_text(found))
        steps = [*NEW.finditer(text), *OLD.finditer(text)]
        if steps:
            found.require_newer(look, look.files)
        yield from ((one["scenario"], one["how"] in GOOD) for one in steps)


def _log(how: str) -> str:
    return f"INFO     web ➜ idempotence: Executing\nINFO     web ➜ idempotence: Executed: {how}\n"


SCENARIO = {"molecule/web/molecule.yml": "---\n"}
CHECK = Check(
    name="idempotence",
    title="A second run changes nothing",
    inspect=inspect,
    files=DEPLOYED,
    canary=Canary(
        "not-idempotent",
        bad={**SCENARIO, "reports/molecule-web.log": _log("Failed")},
        good={**SCENARIO, "reports/molecule-web.log": _log("Successful")},
    ),
    of_repository=True,
    seconds=1,
)
