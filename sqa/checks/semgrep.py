"""Semgrep: what other tools do not look for, and exceptions without a reason, by the rules of ``sqa/rules``."""

from __future__ import annotations

import re
from pathlib import Path

from sqa import scripts
from sqa.check import Canary, Check, InconclusiveError, Look, Report

RULES = Path(__file__).resolve().parent.parent / "rules"
FILES = tuple(sorted(RULES.glob("*.yml")))
ID = re.compile(r"^  - id: (\S+)$", re.M)
LEVELS = {"ERROR": "error", "WARNING": "warning", "INFO": "note"}


def inspect(look: Look) -> Report:
    """Apply every rule to the files of its language; a file that it does not scan or parse is no pass."""
    said = look.run(
        "semgrep", "scan", "--json", "--config", str(RULES), "--no-rewrite-rule-ids", "--metrics=off",
        "--disable-version-check", "--no-git-ignore", "--max-target-bytes=0", "--jobs=1", "--", *look.files,
        SEMGREP_ENABLE_VERSION_CHECK="0",
    ).json()  # fmt: skip
    if said["errors"]:
        first = said["errors"][0]
        where = f"{first.get('path', '')}: " if first.get("path") else ""
        raise InconclusiveError(f"Semgrep could not read everything; {where}{first['message'][:300]}")
    scanned = said["paths"]["scanned"]
    missing = sorted(set(look.files) - set(scanned))
    if missing:
        raise InconclusiveError(f"Semgrep left out {len(missing)} files, the first {missing[0]}; exclude it in sqa.yml")
    return Report(
        [
            look.finding(
                one["path"], one["start"]["line"], one["check_id"].rpartition(".")[2], one["extra"]["message"],
                LEVELS[one["extra"]["severity"]],
            )
            for one in said["results"]
        ],
        scanned,
        {"rules": sum(len(ID.findall(path.read_text("utf-8"))) for path in FILES)},
    )  # fmt: skip


CHECK = Check(
    name="semgrep",
    title="Insecure habits, and exceptions without a reason",
    inspect=inspect,
    files=("*.py", "*.yml", "*.yaml", "*.sh", "*.bash"),
    selects=scripts.is_either,
    canary=Canary(
        "temporary-name",
        bad={"bad.py": "import tempfile\n\nname = tempfile." + "mktemp()\n"},
        good={"good.py": "import tempfile\n\nname = tempfile.mkstemp()\n", "good.yml": "---\na: 1\n"},
    ),
    tool="semgrep",
    belongings=FILES,
    takes={},
    scope="file",
    split=True,
    seconds=25,
)
