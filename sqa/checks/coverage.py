"""Coverage of unit tests: how many lines of the code that is delivered ran, by the report of the last run.

Each rule is called like the criterion that it judges.
"""

from __future__ import annotations

from pydantic import Field

from sqa import junit, measured
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.contents import Contents
from sqa.measured import Measured
from sqa.model import Finding
from sqa.options import Options, taken
from sqa.tree import select

# What is delivered and can be measured; what is left out beside tests stands in sqa.yml: exclude.
CODE = (
    "*.py", "*.js", "*.ts", "*.go", "*.java", "*.kt", "*.c", "*.cc", "*.cpp", "*.rs", "*.rb", "!**/test/**",
    "!**/tests/**", "!test_*.py", "!conftest.py", "!*_test.go", "!/setup.py", "!/noxfile.py", "!/docs/**",
)  # fmt: skip
# Whether the tests passed, whether all of them ran, whether they run for each change.
OF_TESTS = ("QC.Wor01", "QC.Har03", "QC.Har04")


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``report``: Cobertura's XML or LCOV's file. ``tests``: JUnit reports of the same run. ``minimum``: of all lines that
    are delivered, per cent. ``critical``: pattern of files to their own minimum, which is higher.
    """

    report: str = "reports/coverage.xml"
    tests: tuple[str, ...] = ("reports/unit.xml",)
    minimum: float = 70
    critical: dict[str, float] = Field(default_factory=dict)


def inspect(look: Look) -> Report:
    """Hold the report against the thresholds."""
    own = taken(look, Taken)
    found = measured.read(look, own.report)
    cases = _cases(look, own.tests)
    total = found.share(found.files)
    findings = [
        *measured.below(look, "QC.Uni01", "the whole", total, own.minimum),
        *_left_out(look, found),
        *_critical(look, found, own),
        *_tests(look, cases),
        *_automatic(look),
    ]
    # Where nothing is named as critical, nothing was looked at for it.
    rules = {"QC.Uni01", "QC.Uni01.2", "QC.Uni04", *OF_TESTS, *(("QC.Uni01.1",) if own.critical else ())}
    work: dict[str, str | int] = {
        "lines covered": total[0], "lines": total[1], "per cent": str(measured.percent(*total)),
        "critical parts": len(own.critical),
        "measured files of no interest here": found.foreign, **junit.counted(cases),
    }  # fmt: skip
    return Report(findings, found.files, work, rules)


def _left_out(look: Look, found: Measured) -> list[Finding]:
    missing = measured.unmeasured(look, found)
    findings = [
        look.finding(name, None, "QC.Uni01.2", "is delivered and not measured; measure it, or exclude it in sqa.yml")
        for name in missing
    ]
    if missing:
        said = f"the share is not of all delivered code: {len(missing)} files are not measured, such as {missing[0]}"
        findings.append(look.finding("", None, "QC.Uni01", said))
    return findings


def _critical(look: Look, found: Measured, own: Taken) -> list[Finding]:
    findings = []
    for pattern, minimum in own.critical.items():
        names = select(look.files, [pattern])
        if not names or not any(name in found.files for name in names):
            raise InconclusiveError(f"sqa.yml: checks: coverage: critical: {pattern} is no file that was measured")
        if minimum <= own.minimum:
            said = f"{pattern}: its minimum of {minimum:g} % is not above the general one of {own.minimum:g} %"
            findings.append(look.finding("", None, "QC.Uni01.1", said))
        findings += measured.below(look, "QC.Uni01.1", pattern, found.share(names), minimum)
    return findings


def _cases(look: Look, names: tuple[str, ...]) -> list[junit.Case]:
    present = [name for name in names if (look.root / name).is_file()]
    return junit.evident(look, names) if present else []


def _tests(look: Look, cases: list[junit.Case]) -> list[Finding]:
    """Coverage alone does not say that a test passed."""
    if not cases:
        return [look.finding("", None, rule, "no JUnit report says how the tests ended") for rule in OF_TESTS]
    failed = [one for one in cases if one.state == "failed"]
    silent = [one for one in cases if one.state == "skipped" and not one.reason]
    findings = [look.finding("", None, rule, f"{one.name}: {one.reason}") for rule in OF_TESTS for one in failed]
    return findings + [look.finding("", None, "QC.Har03", f"{one.name} is skipped without a reason") for one in silent]


def _automatic(look: Look) -> list[Finding]:
    pipeline = Contents(look).pipeline_of(look.tree.files)
    if "cov" in pipeline:
        return []
    said = "no pipeline (with the make, tox or nox that it calls) measures coverage: it takes a person"
    return [look.finding("", None, "QC.Uni04", said)]


def _report(hits: int) -> str:
    lines = "".join(f'<line number="{number}" hits="{hits}"/>' for number in range(1, 11))
    return (
        '<coverage><sources><source>.</source></sources><packages><package><classes><class filename="code.py"><lines>'
        f"{lines}</lines></class></classes></package></packages></coverage>\n"
    )


TESTS = '<testsuites><testsuite><testcase classname="tests" name="all"/></testsuite></testsuites>\n'
SAMPLE = {"code.py": "COUNT = 1\n", ".ci/run": "coverage run\n", "reports/unit.xml": TESTS}
CHECK = Check(
    name="coverage",
    title="Coverage of unit tests",
    inspect=inspect,
    files=CODE,
    canary=Canary(
        "QC.Uni01",
        bad={**SAMPLE, "reports/coverage.xml": _report(0)},
        good={**SAMPLE, "reports/coverage.xml": _report(1)},
    ),
    of_repository=True,
    seconds=1,
)
