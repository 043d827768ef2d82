"""Software bills of materials (CycloneDX), byte for byte the same for the same requirement file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sqa import tools
from testbed.errors import DeepError
from testbed.files import write_atomic

TOOL = "cyclonedx-bom"
PROGRAM = "cyclonedx-py"
ARGUMENTS = ("requirements", "--output-reproducible", "--output-format=JSON", "--spec-version=1.6")


def components(text: str) -> set[tuple[str, str]]:
    """Name and version of everything that a bill lists; raises ``ValueError`` for a text that is no bill."""
    bill = json.loads(text)
    if not isinstance(bill, dict) or bill.get("bomFormat") != "CycloneDX":
        raise ValueError("not a bill of CycloneDX")
    return {(one["name"], one.get("version", "")) for one in bill.get("components", ())}


def write(requirements: Path, target: Path) -> int:
    """Write the bill of what a requirement file pins, for a release; returns how many components it lists.

    Raises ``DeepError`` where none can be made.
    """
    tool = tools.tool(TOOL)
    tools.install(tool)
    done = subprocess.run(
        [str(tool.programs / PROGRAM), *ARGUMENTS, requirements.name], cwd=requirements.parent, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    try:
        listed = components(done.stdout)
    except ValueError as broken:
        raise DeepError(
            f"no bill of materials of {requirements}", found=f"{broken}: {done.stderr.strip()[-300:]}",
            needed="a requirement file with pinned versions", next_step="correct the file",
        ) from None  # fmt: skip
    write_atomic(target, done.stdout)
    return len(listed)
