"""Measure the quality gate over this repository: what docs/performance.md says of it.

On a clone of the checkout, with every tool installed and no result remembered: the whole gate, its checks one after the
other, the gate again, the gate after one file has changed, and the same tools by pre-commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from benchmarks.memory import MIB
from benchmarks.testbed import BIN, ROOT, command, conclude, machine, parser, reached, table
from sqa import gate, imports, interpreter, tools
from sqa.registry import Registered
from testbed.paths import cache_dir

PART = "sqa"
# A file of which others import nothing, one that many import (a remark in it says nothing to them), and one of a role.
CHANGED = {
    "a test": ("tests/unit/test_errors.py", "\n# changed\n"),
    "a module that many import": ("testbed/errors.py", "\n# changed\n"),
    "the code of a module that many import": ("testbed/errors.py", "\nCHANGED = 1\n"),
    "a task file": ("roles/common/tasks/main.yml", "\n# changed\n"),
}
# What pre-commit is given: the tools that look at files by name, as its users run them.
BY_FILES = {
    "ruff": ("ruff", "check", "--no-cache"),
    "yamllint": ("yamllint",),
    "shellcheck": ("shellcheck",),
    "bandit": ("bandit", "--quiet", "--configfile", "pyproject.toml"),
    "pylint": ("pylint", "--jobs", "1"),
}
COLD, WARM, ONE_FILE, PRE_COMMIT, SECONDS = 0.65, 0.05, 0.2, 1.0, 1.5


@dataclass(frozen=True)
class Found:
    """Seconds, and the most memory of all processes together in MiB."""

    cold: float
    single: dict[str, float]
    warm: float
    changed: dict[str, float]
    ours_by_files: float
    pre_commit: float
    memory: float


@contextmanager
def clone() -> Iterator[Path]:
    """A clone of the checkout with its environment, and an empty cache beside it that has the tools."""
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "main", Path(folder) / "cache"
        command("git", "clone", "--quiet", str(ROOT), str(root))
        (root / ".venv").symlink_to(ROOT / ".venv")
        (cache / "sqa").mkdir(parents=True)
        (cache / "sqa" / "tools").symlink_to(cache_dir() / "sqa" / "tools")
        os.environ["DEEP_CACHE_DIR"] = str(cache)
        yield root


def forget() -> None:
    """Forget every result and what the tools have kept for themselves."""
    for name in ("results.db*", "scratch"):
        for path in (cache_dir() / "sqa").glob(name):
            command("rm", "-rf", str(path))


def run(root: Path, *arguments: str, verdicts: dict[str, str] | None = None) -> float:
    """Seconds that ``deep sqa run`` takes as a user calls it.

    ``verdicts``: of each check by an earlier run; a run that comes to others has not done the same work.
    """
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [BIN / "deep", "sqa", "run", "--json", "--root", root, *arguments],
        env=environment, capture_output=True, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    if done.returncode not in (0, 1):
        raise SystemExit(f"deep sqa run failed:\n{done.stderr.decode()}")
    found = {one["check"]: one["verdict"] for one in json.loads(done.stdout)["checks"]}
    if verdicts is not None:
        differing = [name for name, verdict in found.items() if verdicts.setdefault(name, verdict) != verdict]
        if differing:
            raise SystemExit(f"another verdict than before: {', '.join(differing)}")
    return seconds


def alone(root: Path, checks: Sequence[Registered]) -> dict[str, float]:
    """Seconds that each check takes when it has the machine for itself, one process at a time."""
    taken = {}
    for one in checks:
        forget()
        repo = gate.repository(root)
        began = time.monotonic()
        gate.run(repo, checks=[one.check.name], jobs=1)
        taken[one.check.name] = time.monotonic() - began
    return taken


def after_changes(root: Path, verdicts: dict[str, str]) -> dict[str, float]:
    """Seconds of a run after each change alone, everything else being known."""
    taken = {}
    for what, (name, text) in CHANGED.items():
        path = root / name
        before = path.read_text(encoding="utf-8")
        path.write_text(before + text, encoding="utf-8")
        taken[what] = run(root, verdicts=verdicts)
        path.write_text(before, encoding="utf-8")
    return taken


def imported(repo: gate.Repository) -> list[str]:
    """The folders in which the suite lets pylint look for modules: one that finds none of them does less work."""
    folders = [repo.root / name for name in imports.of(repo.tree).roots]
    packages = interpreter.packages(repo.root, repo.settings.checks["pylint"])
    return [str(one) for one in (*folders, packages) if one]


def by_pre_commit(root: Path) -> float:
    """Seconds of pre-commit over all files with the tools of ``BY_FILES``, in the versions of the suite."""
    repo = gate.repository(root)
    hooks = []
    for name, (program, *arguments) in BY_FILES.items():
        tool = repo.checks[name].tool
        if tool is None:
            raise SystemExit(f"{name} has no tool")
        selected = repo.checks[name].check.selected(repo.tree, repo.settings.checks.get(name, {}).get("exclude", ()))
        if name == "pylint":
            arguments.append(f"--init-hook=import sys; sys.path += {imported(repo)}")
        pattern = "^(" + "|".join(one.replace(".", r"\.").replace("+", r"\+") for one in selected) + ")$"
        hooks.append({
            "id": name, "name": name, "language": "system", "entry": str(tool.programs / program), "args": arguments,
            "files": pattern,
        })  # fmt: skip
    config = root.parent / "pre-commit.yaml"
    config.write_text(yaml.safe_dump({"repos": [{"repo": "local", "hooks": hooks}]}), encoding="utf-8")
    began = time.monotonic()
    done = subprocess.run(
        [BIN / "pre-commit", "run", "--all-files", "--config", config], cwd=root, capture_output=True, check=False
    )
    seconds = time.monotonic() - began
    if sum(line.endswith((b"Passed", b"Failed")) for line in done.stdout.splitlines()) != len(hooks):
        raise SystemExit(f"pre-commit did not run every tool:\n{os.fsdecode(done.stdout)[-2000:]}")
    return seconds


class Memory:
    """The most memory that this process and all below it have had together, by PSS every quarter of a second."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, sum(map(pss, descendants(os.getpid()))) / MIB)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found[1:]


def pss(pid: int) -> int:
    """The proportional share of memory of a process in bytes, 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def measure() -> Found:
    """Measure everything, on a machine that has nothing else to do."""
    with clone() as root:
        repo = gate.repository(root)
        checks = [repo.checks[name] for name in gate.wanted(repo)]
        for one in checks:
            if one.tool:
                tools.install(one.tool)
        single = alone(root, checks)
        verdicts: dict[str, str] = {}
        forget()
        with Memory() as memory:
            cold = run(root, verdicts=verdicts)
        warm = min(run(root, verdicts=verdicts) for _ in range(3))
        changed = after_changes(root, verdicts)
        forget()
        ours = run(root, *(f"--check={name}" for name in BY_FILES), verdicts=verdicts)
        return Found(cold, single, warm, changed, ours, by_pre_commit(root), memory.peak)


def render(found: Found, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    one_by_one = sum(found.single.values())
    ratios = [
        ("cold run against its checks one after the other", found.cold / one_by_one, COLD),
        ("run again against cold", found.warm / found.cold, WARM),
        *((f"{what} has changed, against cold", taken / found.cold, ONE_FILE) for what, taken in found.changed.items()),
        (f"{', '.join(BY_FILES)}: against pre-commit", found.ours_by_files / found.pre_commit, PRE_COMMIT),
    ]
    rows = [(what, f"{value:.2f}x", f"{bound}x", reached(value, bound)) for what, value, bound in ratios]
    rows.append(("run again, seconds", f"{found.warm:.1f}", str(SECONDS), reached(found.warm, SECONDS)))
    longest = sorted(found.single.items(), key=lambda one: -one[1])
    head = f"Measured on {datetime.now(UTC).date().isoformat()} in {minutes:.0f} minutes: {machine()}."
    return "\n".join([
        head,
        *table(("ratio", "measured", "bound", ""), rows),
        *table(
            ("what", "measured"),
            [
                ("cold run, seconds", f"{found.cold:.1f}"),
                ("checks one after the other, seconds", f"{one_by_one:.1f}"),
                ("the same tools by pre-commit, seconds", f"{found.pre_commit:.1f}"),
                ("memory of all processes at the peak of a cold run, MiB", f"{found.memory:.0f}"),
            ],
        ),
        *table(("check by itself", "seconds"), [(name, f"{taken:.1f}") for name, taken in longest if taken >= 1]),
    ])  # fmt: skip


def main() -> None:
    """Measure, and write it into the page when told to."""
    conclude(PART, measure, render, write=parser(__doc__).parse_args().write)


if __name__ == "__main__":
    main()
