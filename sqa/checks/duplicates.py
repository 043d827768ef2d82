"""pylint's similarities and import cycles: what only several files of Python together show."""

from __future__ import annotations

from sqa import pylint_run
from sqa.check import Canary, Check, Look, Report

BLOCK = "".join(f"    total += {number} * value\n" for number in range(12))
TWIN = f'"""Sample."""\n\n\ndef summed(value: int) -> int:\n    """Sum."""\n    total = 0\n{BLOCK}    return total\n'


def inspect(look: Look) -> Report:
    """Examine all files together."""
    return pylint_run.examine(look, "--disable=all", f"--enable={pylint_run.CROSS_FILE},{pylint_run.USABLE}")


CHECK = Check(
    name="duplicates",
    title="No code twice and no circle of imports",
    inspect=inspect,
    files=("*.py",),
    canary=Canary("duplicate-code", bad={"one.py": TWIN, "two.py": TWIN}, good={"one.py": TWIN}),
    tool="pylint",
    configuration=pylint_run.CONFIGURATION,
    takes={},
    belongings=pylint_run.BELONGINGS,
    criteria=("QC.Rev03.3", "QC.Sty01", "QC.Sty01.1", "QC.Sty03"),
    seconds=40,
)
