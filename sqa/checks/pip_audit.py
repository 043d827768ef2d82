"""pip-audit: known vulnerabilities of pinned Python packages.

It ends with 0 also where the service knew none of the packages. So each has to have been looked up, and beside them one
that is known to be vulnerable, which the service has to know as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqa import requirements
from sqa.check import Canary, Check, InconclusiveError, Look, Report

Pin = tuple[str, str]
PROBE: Pin = ("jinja2", "2.10")
# Of what pip-audit says when it is cut short, only the kind of the error is the same each time.
ERROR = re.compile(r"^(?:\w+\.)*(?P<kind>\w*(?:Error|Exception|Timeout))\b", re.MULTILINE)
NEXT = "let it reach a service that has advisories (osv_url in sqa.yml names one)"


def inspect(look: Look) -> Report:
    """Look up every pin of the files; raises ``InconclusiveError`` where that did not succeed for each of them."""
    wanted = [one for name in look.files for one in requirements.read(look.root, name)]
    findings = [
        look.finding(one.path, one.line, "not-pinned", f"{one.name}: nobody knows which version it is; pin it with ==")
        for one in wanted
        if not one.version
    ]
    pins = {(one.name, one.version) for one in wanted if one.version}
    answers = _answers(look, pins) if pins else {}
    findings += [
        look.finding(one.path, one.line, flaw["id"], _message(one, flaw))
        for one in wanted
        if one.version
        for flaw in answers[one.name, one.version]
    ]
    return Report(findings, look.files, {"packages looked up": len(pins)})


def _message(one: requirements.Wanted, flaw: dict[str, Any]) -> str:
    also = f" ({', '.join(sorted(flaw['aliases']))})" if flaw.get("aliases") else ""
    fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
    return f"{one.pin} has a known vulnerability{also}; corrected in {fixed}"


def _answers(look: Look, pins: set[Pin]) -> dict[Pin, list[dict[str, Any]]]:
    """The known vulnerabilities of each package; a name stands once in a file, so its other versions go into others."""
    rounds: list[dict[str, str]] = []
    for name, version in sorted({*pins, PROBE}):
        place = next((one for one in rounds if name not in one), None)
        if place is None:
            rounds.append(place := {})
        place[name] = version
    said = [answer for number, one in enumerate(rounds) for answer in _audited(look, number, one)]
    known = {(one["name"], one["version"]): one["vulns"] for one in said if "skip_reason" not in one}
    missing = sorted(pins - known.keys())
    if missing:
        some = ", ".join("==".join(one) for one in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InconclusiveError(
            f"{len(pins) - len(missing)} of {len(pins)} packages were looked up, the service does not know {some}; "
            f"next: {NEXT}"
        )
    if not known.get(PROBE):
        raise InconclusiveError(
            f"the service knows no vulnerability of {'=='.join(PROBE)}, which has some; next: {NEXT}"
        )
    return known


def _audited(look: Look, number: int, pins: dict[str, str]) -> Iterable[dict[str, Any]]:
    listed = look.scratch / f"{look.root.name}.{number}.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
    service = look.settings.get("osv_url")
    try:
        said = look.run(
            "pip-audit", "--requirement", str(listed), "--no-deps", "--disable-pip", "--format=json", "--desc=off",
            "--aliases=on", "--progress-spinner=off", f"--cache-dir={look.scratch / 'http'}",
            *(("--vulnerability-service=osv", f"--osv-url={service}") if service else ()),
            statuses=(0, 1),
        )  # fmt: skip
    finally:
        Path(listed).unlink()
    if not said.stdout.strip():
        kinds = [one["kind"] for one in ERROR.finditer(said.stderr)]
        raise InconclusiveError(
            f"0 of {len(pins)} packages were looked up, pip-audit gave up ({kinds[-1] if kinds else 'no reason'}); "
            f"next: {NEXT}"
        )
    dependencies: list[dict[str, Any]] = said.json()["dependencies"]
    return dependencies


CHECK = Check(
    name="pip-audit",
    title="Known vulnerabilities of Python packages",
    inspect=inspect,
    files=requirements.FILES,
    canary=Canary(
        # What the service knows is proven in every run, by PROBE.
        "not-pinned",
        bad={"requirements.txt": "requests>=2\n"},
        good={"requirements.txt": "# none\n"},
    ),
    tool="pip-audit",
    network=True,
    takes={"osv_url": str},
    seconds=30,
)
