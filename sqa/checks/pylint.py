"""pylint: likely mistakes of Python and code that is hard to follow, by the repository's own configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from sqa import imports, interpreter, pylint_run, scripts
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.tree import Tree


def inspect(look: Look) -> Report:
    """Examine the files one by one; what several share is the check ``duplicates``.

    Raises ``InconclusiveError`` for a script for which pylint takes the module beside it.
    """
    report = pylint_run.examine(look, f"--disable={pylint_run.CROSS_FILE}")
    for name in sorted(set(look.files) - set(report.examined)):
        for module in _namesakes(look.tree, name):
            raise InconclusiveError(
                f"{name}: pylint looks at {module} instead of it; rename one of them, or exclude {name} in sqa.yml"
            )
    return report


def _related(tree: Tree, name: str) -> Iterable[str]:
    return {*imports.closure(tree, name), *_namesakes(tree, name)}


def _namesakes(tree: Tree, name: str) -> list[str]:
    """The modules that pylint takes for a script without an ending."""
    if PurePosixPath(name).suffix:
        return []
    return [other for other in (f"{name}.py", f"{name}.pyi") if other in tree.files]


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
    related=_related,
    regards=imports.code_of,
    environment=interpreter.installed,
    takes=interpreter.TAKES,
    belongings=pylint_run.BELONGINGS,
    split=True,
    seconds=150,
)
