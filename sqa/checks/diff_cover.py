"""Coverage of what a change adds: of the lines that differ from the base, how many a test runs."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sqa import measured
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.checks.coverage import CODE
from sqa.model import Finding
from sqa.options import Options, taken

# A checkout of a single commit knows no branch; there the last commit is the change.
BASES = ("origin/HEAD", "origin/main", "origin/master", "main", "master", "HEAD~1")
HUNK = re.compile(r"^@@ -\d+(?:,(?P<removed>\d+))? \+(?P<first>\d+)(?:,(?P<added>\d+))? @@")
DIFF = ("diff", "--unified=0", "--no-color", "--no-ext-diff", "--no-renames", "--no-prefix")
LINES_NAMED = 20  # of a file; the rest is counted


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``report``: Cobertura's XML or LCOV's file. ``base``: the branch or commit that a change is compared with.
    ``minimum``: of the changed lines, per cent.
    """

    report: str = "reports/coverage.xml"
    base: str = ""
    minimum: float = 70


def inspect(look: Look) -> Report:
    """Hold the lines that were changed against the report. No changed line is no defect, and is said."""
    own = taken(look, Taken)
    found = measured.read(look, own.report)
    start = _start(look, own.base)
    changed = _changed(look, start)
    lines = {
        name: [number for number in sorted(numbers) if number in found.files.get(name, {})]
        for name, numbers in changed.items()
    }
    missed = {name: [one for one in numbers if not found.files[name][one]] for name, numbers in lines.items()}
    total = sum(map(len, lines.values()))
    covered = total - sum(map(len, missed.values()))
    findings = [
        look.finding(name, None, "not-measured", "has changed lines, and the report does not have it")
        for name in measured.unmeasured(look, found)
        if changed.get(name)
    ]
    short = measured.below(look, "too-low", "changed lines", (covered, total), own.minimum)
    findings += [*short, *(_missed(look, missed) if short else ())]
    work: dict[str, str | int] = {
        "changed lines covered": covered,
        "changed lines of code": total,
        "files changed": len(changed),
    }
    return Report(findings, found.files, work)


def _missed(look: Look, missed: Mapping[str, list[int]]) -> list[Finding]:
    return [
        look.finding(name, number, "not-covered", "a changed line that no test runs")
        for name, numbers in missed.items()
        for number in numbers[:LINES_NAMED]
    ]


def _start(look: Look, base: str) -> str:
    """Where this branch left its base."""
    if not look.tree.versioned:
        raise InconclusiveError("nothing to compare with (found: no .git, needed: a clone made by git)")
    for name in [base] if base else BASES:
        start = look.tree.git("merge-base", name, "HEAD", check=False).strip()
        if start:
            return start
    raise InconclusiveError(
        f"no common history with {base or ' or '.join(BASES)}; next: git fetch --unshallow origin, or name "
        "another in sqa.yml: checks: diff-cover: base"
    )


def _changed(look: Look, start: str) -> dict[str, set[int]]:
    """The lines of each file looked at that are not as they were at ``start``; of a new file all of them."""
    said = look.tree.git(*DIFF, start, "--")
    changed: dict[str, set[int]] = defaultdict(set)
    name, inside = "", 0  # inside: lines of a hunk that are still to come
    for line in said.splitlines():
        if inside and line[:1] in "+-":
            inside -= 1
        elif line.startswith("+++ "):
            name = line.removeprefix("+++ ").rstrip("\t")
        elif hunk := HUNK.match(line):
            removed, added = (int(hunk[part] or 1) for part in ("removed", "added"))
            changed[name] |= set(range(int(hunk["first"]), int(hunk["first"]) + added))
            inside = removed + added
    new = set(look.tree.git("ls-files", "-z", "--others", "--exclude-standard").split("\0"))
    for one in new & set(look.files):
        changed[one] = set(range(1, look.text(one).count("\n") + 2))
    return {one: changed[one] for one in look.files if changed.get(one)}


def _make_change(root: Path) -> None:
    """The file BASE as code.py in the first commit; what the sample has is the change."""
    sample = (root / "code.py").read_text(encoding="utf-8")
    identity = ("-c", "user.name=one", "-c", "user.email=one@sample.test", "-c", "init.defaultBranch=main")
    (root / "code.py").write_text("FIRST = 1\n", encoding="utf-8")
    for arguments in (("init", "--quiet"), ("add", "code.py"), ("commit", "--quiet", "--message=Begin")):
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)
    (root / "code.py").write_text(sample, encoding="utf-8")
    (root / "reports/coverage.xml").touch()


def _report(hits: int) -> str:
    return f"SF:code.py\nDA:1,1\nDA:2,{hits}\nend_of_record\n"


SAMPLE = {"code.py": "FIRST = 1\nSECOND = 2\n"}
CHECK = Check(
    name="diff-cover",
    title="Coverage of changed lines",
    inspect=inspect,
    files=CODE,
    canary=Canary(
        "too-low",
        bad={**SAMPLE, "reports/coverage.xml": _report(0)},
        good={**SAMPLE, "reports/coverage.xml": _report(1)},
        prepare=_make_change,
    ),
    of_repository=True,
    seconds=1,
)
