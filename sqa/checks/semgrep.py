"""Semgrep: what other tools do not look for, and exceptions without a reason, by the rules of ``sqa/rules``."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sqa import scripts
from sqa.check import Canary, Check, InconclusiveError, Look, Report

RULES = Path(__file__).resolve().parent.parent / "rules"
FILES = tuple(sorted(RULES.glob("*.yml")))
ID = re.compile(r"^  - id: (\S+)$", re.M)
LEVELS = {"ERROR": "error", "WARNING": "warning", "INFO": "note"}


KNOWN = (".py", ".yml", ".yaml", ".sh", ".bash")  # endings by which Semgrep knows a language


def inspect(look: Look) -> Report:
    """Apply every rule to the files of its language; a file that it does not scan or parse is no pass."""
    with _named(look) as names:
        return _scanned(look, names)


@contextmanager
def _named(look: Look) -> Iterator[dict[str, str]]:
    """By the file that Semgrep is given: the one that it is, of a script a copy with the ending of its language."""
    scripts_of = [name for name in look.files if PurePosixPath(name).suffix not in KNOWN]
    with tempfile.TemporaryDirectory(dir=look.scratch) as folder:
        names = {name: name for name in look.files if name not in scripts_of}
        for number, name in enumerate(scripts_of):
            copy = f"{folder}/{number}{'.py' if scripts.is_python(look.tree, name) else '.sh'}"
            shutil.copyfile(look.root / name, copy)
            names[copy] = name
        yield names


def _scanned(look: Look, names: dict[str, str]) -> Report:
    said = look.run(
        "semgrep", "scan", "--json", "--config", str(RULES), "--no-rewrite-rule-ids", "--metrics=off",
        "--disable-version-check", "--no-git-ignore", "--max-target-bytes=0", "--jobs=1", "--", *names,
        SEMGREP_ENABLE_VERSION_CHECK="0",
    ).json()  # fmt: skip
    if said["errors"]:
        first = said["errors"][0]
        path = names.get(first.get("path", ""), first.get("path", ""))
        where = f"{path}: " if path else ""
        raise InconclusiveError(f"Semgrep could not read everything; {where}{_own(first['message'], names)[:300]}")
    scanned = [names[name] for name in said["paths"]["scanned"] if name in names]
    missing = sorted(set(look.files) - set(scanned))
    if missing:
        raise InconclusiveError(f"Semgrep left out {len(missing)} files, the first {missing[0]}; exclude it in sqa.yml")
    return Report(
        [
            look.finding(
                names[one["path"]], one["start"]["line"], one["check_id"].rpartition(".")[2], one["extra"]["message"],
                LEVELS[one["extra"]["severity"]],
            )
            for one in said["results"]
        ],
        scanned,
        {"rules": sum(len(ID.findall(path.read_text("utf-8"))) for path in FILES)},
    )  # fmt: skip


def _own(text: str, names: dict[str, str]) -> str:
    """A text without the names of copies."""
    for given, name in names.items():
        text = text.replace(given, name)
    return text


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
