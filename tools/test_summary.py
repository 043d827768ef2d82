"""Add up the JUnit reports of a run and close with one line that counts tests."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree  # nosec B405 # reads what pytest wrote


def totals(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of one report; a missing one counts as one failure."""
    if not report.exists():
        print(f"no report: {report}", file=sys.stderr)
        return 0, 1, 0
    passed = failed = skipped = 0
    for suite in ElementTree.parse(report).iter("testsuite"):  # nosec B314 # pytest wrote it
        tests, bad, left_out = (int(suite.get(key, "0")) for key in ("tests", "failures", "skipped"))
        bad += int(suite.get("errors", "0"))
        passed += tests - bad - left_out
        failed += bad
        skipped += left_out
    return passed, failed, skipped


def main() -> int:
    """Print the totals of the reports named; exit status 1 when a test failed or a report holds no passed one."""
    counts = [totals(Path(name)) for name in sys.argv[1:]]
    passed, failed, skipped = (sum(column) for column in zip(*counts, strict=True))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if not failed and all(count[0] for count in counts) else 1


if __name__ == "__main__":
    sys.exit(main())
