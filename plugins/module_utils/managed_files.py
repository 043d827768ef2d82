# SPDX-License-Identifier: Apache-2.0
"""Files, links and directories as the modules ``files`` and ``service`` manage them."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT_MODES = {"file": 0o644, "directory": 0o755}
SUBOPTIONS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
    "content": {"type": "str"},
    "secret_content": {"type": "str", "no_log": True},
    "wanted": {"type": "bool", "default": True},
    "block": {"type": "str"},
    "replace": {"type": "bool", "default": True},
    "target": {"type": "str"},
    "mode": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}


OPTION: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": SUBOPTIONS,
    "mutually_exclusive": [("content", "secret_content")],
    "required_if": [("state", "link", ("target",))],
}


class FilesError(Exception):
    """A path that could not be brought into its state."""


class Change(NamedTuple):
    """What was (or would be) changed at a path; the texts are empty where they must not be shown."""

    path: str
    before: str
    after: str


def line_ended(text: str) -> str:
    """``text`` with a line break at its end; empty text stays empty."""
    return text if not text or text.endswith("\n") else text + "\n"


def with_block(text: str, name: str, content: str) -> str:
    """``text`` with the lines between the markers of ``name`` replaced; the block is appended when it is missing."""
    begin, end = f"# BEGIN {name}", f"# END {name}"
    block = [begin, *content.splitlines(), end]
    lines = text.splitlines()
    if begin in lines and end in lines[lines.index(begin) :]:
        first = lines.index(begin)
        last = lines.index(end, first)
        return "\n".join([*lines[:first], *block, *lines[last + 1 :]]) + "\n"
    return "\n".join([*lines, *block]) + "\n"


def write(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, flush it to disk and move it there; in place where the path is a mount."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
            sink.write(text)
            sink.flush()
            os.fsync(sink.fileno())
        if os.path.ismount(path):
            path.write_text(text, encoding="utf-8")
        else:
            if path.exists():
                shutil.copymode(path, name)
            Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


class Entry:
    """One item of the list: compares with what is there and changes it unless ``check``."""

    def __init__(self, item: dict[str, Any], check: bool) -> None:
        self.item = item
        self.path = Path(item["path"])
        self.check = check

    def apply(self) -> Change | None:
        """Bring the path into its state and return the change, or ``None`` when it was so already."""
        handlers = {"file": self._file, "directory": self._directory, "link": self._link, "absent": self._absent}
        state: str = self.item["state"]
        change = handlers[state]()
        if state in DEFAULT_MODES and self._permissions(DEFAULT_MODES[state]) and change is None:
            return Change(str(self.path), "", "")
        return change

    def _text(self) -> str:
        item = self.item
        text = item["content"] if item["content"] is not None else item["secret_content"]
        return line_ended(text or "")

    def _file(self) -> Change | None:
        exists = self.path.is_file()
        if exists and not self.item["replace"]:
            return None
        before = self.path.read_text(encoding="utf-8", errors="replace") if exists else ""
        after = with_block(before, self.item["block"], self._text()) if self.item["block"] else self._text()
        if exists and before == after:
            return None
        if not self.check:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(self.path, after)
        secret = self.item["content"] is None
        return Change(str(self.path), "" if secret else before, "" if secret else after)

    def _directory(self) -> Change | None:
        if self.path.is_dir():
            return None
        if not self.check:
            self.path.mkdir(parents=True)
        return Change(str(self.path), "", "directory\n")

    def _link(self) -> Change | None:
        target: str = self.item["target"]
        before = str(self.path.readlink()) if self.path.is_symlink() else ""
        if before == target:
            return None
        if not self.check:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{self.path.name}.new")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(self.path)
        return Change(str(self.path), line_ended(before), line_ended(target))

    def _absent(self) -> Change | None:
        if not os.path.lexists(self.path):
            return None
        if not self.check:
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink()
        return Change(str(self.path), "present\n", "")

    def _permissions(self, default: int) -> bool:
        """Set mode and owner; ``True`` when something differed. A path that check mode did not make is left out."""
        if not self.path.exists():
            return False
        found = self.path.stat()
        mode = int(self.item["mode"], 8) if self.item["mode"] else default
        owner = (pwd.getpwnam(self.item["owner"]).pw_uid, grp.getgrnam(self.item["group"]).gr_gid)
        if stat.S_IMODE(found.st_mode) == mode and (found.st_uid, found.st_gid) == owner:
            return False
        if not self.check:
            os.chown(self.path, *owner)
            self.path.chmod(mode)
        return True


def apply(items: list[dict[str, Any]], check: bool) -> list[Change]:
    """Bring every wanted item into its state, or with ``check`` only tell; returns what changes, in order.

    Raises ``FilesError`` naming the path that could not be managed.
    """
    changes: list[Change] = []
    for item in items:
        if not item["wanted"]:
            continue
        try:
            change = Entry(item, check).apply()
        except (OSError, KeyError, ValueError) as error:
            raise FilesError(f"{item['path']}: {error}") from error
        if change is not None:
            changes.append(change)
    return changes


def differences(changes: list[Change]) -> list[dict[str, str]]:
    """Changes as Ansible shows them with ``--diff``."""
    return [
        {"before_header": change.path, "after_header": change.path, "before": change.before, "after": change.after}
        for change in changes
    ]
