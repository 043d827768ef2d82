"""ShellCheck: mistakes in shell scripts, those without an ending included."""

from __future__ import annotations

from sqa import scripts
from sqa.check import Canary, Check, InconclusiveError, Look, Report

UNREADABLE_CONFIGURATION = 1134
LEVELS = {"error": "error", "warning": "warning", "info": "note", "style": "note"}


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
    selects=scripts.is_shell,
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
