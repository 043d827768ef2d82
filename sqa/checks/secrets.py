"""Secrets in files, by Kingfisher: every file, also those that git does not know yet, and nobody is asked over the net.

What is found is told by its place and its kind; the secret itself is never taken over from the tool.
"""

from __future__ import annotations

import json
from typing import Any

from sqa.check import Canary, Check, InconclusiveError, Look, Report

FOUND = (0, 200, 205)  # nothing; secrets; secrets that are in use
LEVELS = {"high": "error", "medium": "error", "low": "warning"}


def inspect(look: Look) -> Report:
    """Search the files; how many of them it has read, Kingfisher counts itself."""
    said = look.run(
        "kingfisher", "scan", "--no-validate", "--no-update-check", "--redact", "--format=json", "--no-dedup",
        "--git-history=none", "--max-file-size=0", "--jobs=1", f"--rule-cache-dir={look.scratch / 'rules'}", ".",
        statuses=FOUND,
    )  # fmt: skip
    report = _report(said.stdout)
    summary = report["metadata"]["summary"]
    state = {one["scan"]["status"] for one in report["audit"]["repositories"]}
    if state != {"completed"} or summary["blobs_scanned"] < len(look.files) or not summary["rules_applied"]:
        raise InconclusiveError(
            f"Kingfisher looked at too little (found: {summary['blobs_scanned']} files, "
            f"{summary['rules_applied']} rules, {', '.join(sorted(state)) or 'no scan'}; "
            f"needed: {len(look.files)} files)"
        )
    findings = [
        look.finding(
            one["finding"]["path"], one["finding"]["line"], one["rule"]["id"],
            f"{one['rule']['name']}: remove it, and renew it where it was valid", LEVELS[one["finding"]["confidence"]],
        )
        for one in report["findings"]
    ]  # fmt: skip
    return Report(findings, look.files, {"rules": summary["rules_applied"]})


def _report(text: str) -> dict[str, Any]:
    """The first of the JSON documents that it writes; nothing of what it holds is ever said."""
    try:
        report: dict[str, Any] = json.JSONDecoder().raw_decode(text.lstrip())[0]
        return report
    except ValueError:
        raise InconclusiveError("no JSON came back from Kingfisher") from None


CHECK = Check(
    name="secrets",
    title="Secrets in files",
    inspect=inspect,
    files=("*",),
    canary=Canary(
        "betterleaks.github-pat",
        bad={"bad.py": 'token = "ghp' + '_R7kQ2mZx9LwT4vNb8YcJ1sHd6FgUe3PaKi5o"\n'},
        good={"good.py": "token = None\n"},
    ),
    tool="kingfisher",
    scope="file",
    takes={},
    seconds=3,
)
