"""Modes that let anybody write: of the files on disk, of those that git has recorded, and those that code sets."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sqa.check import Canary, Check, Look, Report
from sqa.model import Finding
from sqa.tree import Tree

MODE = r"[\"']?(?P<mode>(?:0o?)?[0-7]{3,4}|[ugoa]*[+=-][rwxXst]*(?:,[ugoa]*[+=-][rwxXst]*)*)(?![\w.{])"
IN_YAML = re.compile(rf"\b(?:[a-z_]+_)?mode[\"']?\s*[:=]\s*{MODE}")
IN_SHELL = re.compile(rf"(?:\bchmod(?:\s+-[A-Za-z-]+)*\s+|\binstall\s[^|;&#]*?(?<!\S)-m\s*|--(?:chmod|mode)=){MODE}")
IN_PYTHON = re.compile(r"\b[fl]?chmod\((?:[^#&|]*,)?\s*(?:mode=)?(?P<mode>0o[0-7]+)\s*[,)]")
READ_AS = {
    (".yml", ".yaml", ".j2"): (IN_YAML, IN_SHELL),
    (".sh", ".bash", ".def", ".service", "Dockerfile", "Containerfile", "Makefile"): (IN_SHELL,),
    (".py",): (IN_PYTHON,),
}
TO_OTHERS = re.compile(r"[ugoa]*[oa][ugoa]*[+=][rxXst]*w")


def inspect(look: Look) -> Report:
    """Look at the modes of files and their folders, and read every file that may set one."""
    recorded = _recorded(look.tree)
    found: list[Finding] = []
    folders: dict[str, str] = {}
    read = 0
    for name in look.files:
        mode = stat.S_IMODE((look.root / name).lstat().st_mode)
        if mode & stat.S_IWOTH:
            found.append(look.finding(name, 0, "mode-on-disk", f"Anybody can write it: {mode:04o}; chmod o-w"))
        if recorded.get(name, 0) & stat.S_IWOTH:
            found.append(look.finding(name, 0, "mode-in-git", f"Anybody can write it: {recorded[name]:o}; chmod o-w"))
        folders.setdefault(posixpath.dirname(name), name)
        patterns = _patterns(look.root / name)
        if patterns:
            read += 1
            found += _set(look, name, patterns)
    for folder, first in folders.items():
        mode = stat.S_IMODE((look.root / folder).lstat().st_mode)
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            found.append(look.finding(first, 0, "mode-of-folder", f"Anybody can write to its folder: {mode:04o}"))
    return Report(found, look.files, {"folders": len(folders), "files that may set modes": read})


def _recorded(tree: Tree) -> dict[str, int]:
    """By file: the mode in git's index; nothing where there is no git."""
    if not tree.versioned:
        return {}
    rows = filter(None, tree.git("ls-files", "--stage", "-z").split("\0"))
    return {name: int(about.split(" ")[0], 8) for about, _, name in (row.partition("\t") for row in rows)}


def _modes(tree: Tree, _settings: Mapping[str, Any]) -> str:
    """The modes of all files and folders, on disk and in git's index."""
    folders = {str(folder) for name in tree.files for folder in PurePosixPath(name).parents}
    on_disk = {name: (tree.root / name).lstat().st_mode for name in sorted({*tree.files, *folders})}
    return f"{on_disk} {sorted(_recorded(tree).items())}"


def _patterns(path: Path) -> tuple[re.Pattern[str], ...]:
    """How a file of this name sets modes; a file without an ending may be a script."""
    found = next((patterns for ends, patterns in READ_AS.items() if path.name.endswith(ends)), ())
    if found or "." in path.name.lstrip("."):
        return found
    with path.open("rb") as source:
        return (IN_SHELL,) if source.read(2) == b"#!" else ()


def _set(look: Look, name: str, patterns: tuple[re.Pattern[str], ...]) -> Iterator[Finding]:
    text = look.text(name)
    if not any(word in text for word in ("mode", "chmod", " -m")):
        return
    for number, line in enumerate(text.splitlines(), 1):
        code = re.sub(r"(?:^|\s)#(?!!).*", "", line)
        modes = {one["mode"] for pattern in patterns for one in pattern.finditer(code)}
        for mode in sorted(filter(lets_anybody_write, modes)):
            yield look.finding(name, number, "mode-in-code", f"It lets anybody write: {mode}; give a narrower mode")


def lets_anybody_write(mode: str) -> bool:
    """Whether a mode, in digits or in letters, does; a folder as /tmp, where each removes only their own, does not."""
    digits = mode.removeprefix("0o").lstrip("0") or "0"
    if digits.isdigit():
        value = int(digits, 8)
        return bool(value & stat.S_IWOTH) and not value & stat.S_ISVTX
    return any(TO_OTHERS.match(clause) for clause in mode.split(","))


def _open_up(root: Path) -> None:
    for path in root.glob("bad.txt"):
        path.chmod(path.stat().st_mode | stat.S_IWOTH)


CHECK = Check(
    name="world-writable",
    title="Nothing that anybody can write",
    inspect=inspect,
    files=("*",),
    canary=Canary(
        "mode-on-disk",
        bad={"bad.txt": "open\n", "tasks/main.yml": '- ansible.builtin.file: {path: /x, mode: "06' + '66"}\n'},
        good={"good.txt": "closed\n", "tasks/main.yml": '- ansible.builtin.file: {path: /x, mode: "0644"}\n'},
        prepare=_open_up,
    ),
    of_repository=True,
    environment=_modes,
    takes={},
    seconds=1,
)
