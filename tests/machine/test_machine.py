"""The machine after all live tests: while testbeds are raised side by side, none of them can look at it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.machine.state import left, now

# Written by `make live` before the first test.
BEFORE = Path(__file__).resolve().parents[2] / "reports" / "machine.json"


def test_the_machine_is_as_it_was() -> None:
    """No control group, link, server, testbed or setting is left of any test."""
    assert BEFORE.is_file(), f"nobody has looked before the tests (needed {BEFORE}). Next: run all of them: make live"
    assert left(json.loads(BEFORE.read_text(encoding="utf-8")), now()) == {}
