"""pylint: likely mistakes of Python and code that is hard to follow, by the repository's own configuration."""

from __future__ import annotations

from sqa import imports, interpreter, pylint_run, scripts
from sqa.check import Canary, Check, Look, Report


def inspect(look: Look) -> Report:
    """Examine the files one by one; what several share is the check ``duplicates``."""
    return pylint_run.examine(look, f"--disable={pylint_run.CROSS_FILE}")


CHECK = Check(
    name="pylint",
    title="Likely mistakes of Python and code that is hard to follow",
    inspect=inspect,
    files=("*.py",),
    selects=scripts.is_python,
    canary=Canary(
        "unreachable",
        bad={"bad.py": '"""Sample."""\n\n\ndef one() -> int:\n    """One."""\n    return 1\n    print(2)\n'},
        good={"good.py": '"""Nothing to see."""\n'},
    ),
    tool="pylint",
    configuration=pylint_run.CONFIGURATION,
    scope="file",
    related=imports.closure,
    regards=imports.code_of,
    environment=interpreter.installed,
    takes=interpreter.TAKES,
    belongings=pylint_run.BELONGINGS,
    split=True,
    seconds=150,
)
