"""What a testbed remembers between commands, and the lock that keeps two commands off the same one."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from testbed.errors import DeepError
from testbed.files import write_atomic
from testbed.paths import state_dir, state_root

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
FILE = "testbed.json"
PHASES = ("created", "nodes", "deploy", "verify")


@dataclass
class State:  # pylint: disable=too-many-instance-attributes
    """A testbed: what was asked for, and ``phase``, the last step that was finished.

    ``settings`` are variables of the site that this testbed sets for itself.
    """

    name: str
    profile: str
    image: str
    nodes: int
    phase: str = "created"
    subnet: str = ""
    gateway: str = ""
    artifact_mirror: str = ""
    control_path: str = ""
    made: str = ""
    verified: bool | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    def save(self) -> None:
        """Write the state in one step."""
        write_atomic(state_dir(self.name) / FILE, json.dumps(asdict(self), indent=2) + "\n")


def check_name(name: str) -> str:
    """``name`` if Docker, host names and control groups can all carry it."""
    if NAME.fullmatch(name) is None:
        raise DeepError(
            "not a name for a testbed",
            found=name,
            needed="up to 30 lower-case letters, digits and inner hyphens",
            next_step="choose another --name",
        )
    return name


def load(name: str) -> State | None:
    """The state of a testbed, ``None`` where there is none."""
    file = state_dir(name) / FILE
    try:
        return State(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as broken:
        raise DeepError(
            f"the state of testbed {name} cannot be read: {broken}",
            found=str(file),
            next_step=f"deep testbed down --name {name}",
        ) from broken


def need(name: str) -> State:
    """The state of a testbed that must exist."""
    found = load(check_name(name))
    if found is None:
        raise DeepError(
            f"there is no testbed {name}",
            found=f"testbeds: {', '.join(names()) or 'none'}",
            next_step=f"deep testbed up --name {name}",
        )
    return found


def names() -> list[str]:
    """Every testbed that has a state."""
    return sorted(file.parent.name for file in state_root().glob(f"*/{FILE}"))


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Keep every other command that changes testbed ``name`` out; the kernel frees it when this process ends.

    The file goes with the testbed: it is removed where no state is left at the end.
    """
    state_root().mkdir(parents=True, exist_ok=True)
    path = state_root() / f"{name}.lock"
    with _locked(path, name) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            if not (state_dir(name) / FILE).is_file():
                path.unlink(missing_ok=True)


def _locked(path: Path, name: str) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise DeepError(
                f"another command is working on testbed {name}",
                found=f"process {owner or 'unknown'}",
                needed="one command at a time",
                next_step="wait for it to end, or use another --name",
            ) from None
        # The command before may have removed the file between the two calls.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()


def as_dict(state: State) -> dict[str, Any]:
    """The state as a JSON object."""
    return {**asdict(state), "state_dir": str(state_dir(state.name))}
