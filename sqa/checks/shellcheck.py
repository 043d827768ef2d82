"""ShellCheck: mistakes in shell scripts, those without an ending included."""

from __future__ import annotations

import re
import stat
from pathlib import PurePosixPath

from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.tree import Tree

SHEBANG = re.compile(rb"#!\s*/\S*?(?:/env\s+(?:-S\s+)?(?:/\S*/)?|/)(?:sh|bash|dash|ksh)(?:\s|$)")
UNREADABLE_CONFIGURATION = 1134
LEVELS = {"error": "error", "warning": "warning", "info": "note", "style": "note"}


def is_script(tree: Tree, name: str) -> bool:
    """Whether a file without an ending, or one that can be executed, begins as a script for sh, bash, dash or ksh."""
    path = tree.root / name
    if PurePosixPath(name).suffix and not path.stat().st_mode & stat.S_IXUSR:
        return False
    try:
        with path.open("rb") as source:
            return bool(SHEBANG.match(source.readline(200)))
    except OSError:
        return True  # nobody knows; the runner says why it cannot be read


def inspect(look: Look) -> Report:
    """Examine all scripts together: one that sources another is judged with it. A file left out changes the status."""
    said = look.run("shellcheck", "--format=json1", "--", *look.files, statuses=(0, 1))
    found = said.json()["comments"]
    broken = next((one["message"] for one in found if one["code"] == UNREADABLE_CONFIGURATION), None)
    if broken:
        raise InconclusiveError(broken.replace(f"{look.root}/", ""))
    return Report(
        [
            look.finding(one["file"], one["line"], f"SC{one['code']}", one["message"], LEVELS[one["level"]])
            for one in found
        ],
        look.files,
    )


CHECK = Check(
    name="shellcheck",
    title="Mistakes in shell scripts",
    inspect=inspect,
    files=("*.sh", "*.bash", "*.ksh"),
    selects=is_script,
    canary=Canary(
        "SC2086",
        bad={"bad": "#!/bin/sh\nls $1\n"},
        good={"good": '#!/bin/sh\nls "$1"\n'},
    ),
    tool="shellcheck",
    configuration=(".shellcheckrc", "shellcheckrc"),
    takes={},
    seconds=2,
)
