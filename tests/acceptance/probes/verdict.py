"""One JSON verdict for a run of the suite: what was checked, what failed, what could not run and why."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

Check = dict[str, Any]


class VerdictRecorder:
    """A pytest plugin that writes ``{ok, site, simulated, started, seconds, checks, failures}``.

    ``ok`` needs at least one passed check, none failed, and an undisturbed run: nothing run is not ok, and what was
    skipped is listed with its reason and counts for nothing.
    """

    def __init__(self, path: Path, site: str, simulated: bool, progress: Path | None = None) -> None:
        self.path = path
        self.site = site
        self.simulated = simulated
        self.progress = progress
        self.checks: dict[str, Check] = {}
        self.started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._total = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember the titles: the first line of each check's docstring."""
        self._total = len(session.items)
        for item in session.items:
            self.checks[item.nodeid] = {
                "id": _identifier(item.nodeid),
                "title": _title(item),
                "check": marker.args[0] if (marker := item.get_closest_marker("check")) else "acceptance",
                "outcome": "not run",
                "seconds": 0.0,
                "reason": "the run ended before",
            }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Merge the three phases of a check: any failure wins, a skip beats a pass."""
        check = self.checks[report.nodeid]
        check["seconds"] = round(check["seconds"] + report.duration, 3)
        if report.failed:
            check.update(outcome="failed", reason=_reason(report))
        elif report.skipped and check["outcome"] != "failed":
            check.update(outcome="skipped", reason=_reason(report))
        elif report.when == "call" and check["outcome"] == "not run":
            check.update(outcome="passed", reason="")
        if report.when == "teardown":
            self._say()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read is a failure, not fewer checks."""
        if report.failed:
            self.checks[report.nodeid] = {
                "id": report.nodeid,
                "title": "the checks can be read",
                "check": "acceptance",
                "outcome": "failed",
                "seconds": 0.0,
                "reason": _reason(report),
            }

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the verdict."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.verdict(int(exitstatus)), indent=2) + "\n", encoding="utf-8")

    def verdict(self, exit_status: int) -> dict[str, Any]:
        """The verdict as a JSON object; ``exit_status`` is pytest's."""
        checks = list(self.checks.values())
        failures = [check for check in checks if check["outcome"] in ("failed", "not run")]
        passed = sum(check["outcome"] == "passed" for check in checks)
        return {
            "ok": exit_status == 0 and passed > 0 and not failures,
            "site": self.site,
            "simulated": self.simulated,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._clock, 2),
            "passed": passed,
            "skipped": sum(check["outcome"] == "skipped" for check in checks),
            "checks": checks,
            "failures": failures,
        }

    def _say(self) -> None:
        if self.progress is None:
            return
        done = sum(check["outcome"] != "not run" for check in self.checks.values())
        failed = sum(check["outcome"] == "failed" for check in self.checks.values())
        self.progress.write_text(f"{done} of {self._total} checks, {failed} failed\n", encoding="utf-8")


def _identifier(nodeid: str) -> str:
    """``tests/acceptance/test_hosts.py::test_units[node1]`` -> ``hosts::units[node1]``."""
    file, _, name = nodeid.partition("::")
    return f"{Path(file).stem.removeprefix('test_')}::{name.removeprefix('test_')}"


def _title(item: pytest.Item) -> str:
    function = getattr(item, "function", None)
    lines = (getattr(function, "__doc__", None) or item.name).strip().splitlines()
    return str(lines[0]).removesuffix(".")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message if crash else report.longrepr)
    return message.strip()[:2000]
