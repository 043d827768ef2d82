"""The molecule scenarios, run as a developer runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOLECULE = Path(sys.executable).with_name("molecule")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

pytestmark = pytest.mark.live


def _failure(text: str) -> str:
    """The log from the first failed task on, or its end."""
    return text[text.find("fatal: [") - 400 :][:4000] if "fatal: [" in text else text[-4000:]


@pytest.mark.parametrize("scenario", ["gpu", "iam", "kubernetes", "paas"])
def test_scenario(scenario: str) -> None:
    """Converges, converges again without a change or a restart, is clean in check mode and verifies."""
    log = ROOT / "reports" / f"molecule-{scenario}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as sink:
        status = subprocess.run(
            [MOLECULE, "test", "--scenario-name", scenario],
            cwd=ROOT,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{MOLECULE.parent}:{os.environ['PATH']}"},
            check=False,
        ).returncode
    text = ESCAPES.sub("", log.read_text(encoding="utf-8"))
    assert status == 0, f"molecule ended with {status}, see {log}:\n{_failure(text)}"
    check = text.split(f"{scenario} ➜ check: Executing")[-1].split(f"{scenario} ➜ check: Executed")[0]
    changed = re.findall(r"^\s*│ (\S+)\s+: ok=\d+\s+changed=(\d+)", check, re.MULTILINE)
    assert changed, "the check run printed no recap"
    assert [host for host, count in changed if count != "0"] == []
