"""What a testbed remembers between commands, and the lock that keeps two commands off the same one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from testbed.errors import DeepError
from testbed.files import exclusive, write_atomic
from testbed.paths import state_dir, testbeds_dir

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
FILE = "testbed.json"
PHASES = ("created", "nodes", "deploy", "verify")


@dataclass
class State:  # pylint: disable=too-many-instance-attributes # as many as the file has
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
    return sorted(file.parent.name for file in testbeds_dir().glob(f"*/{FILE}"))


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Keep every other command that changes testbed ``name``, or works on its nodes, out.

    The file goes with the testbed: it is removed where no state is left at the end.
    """
    path = testbeds_dir() / f"{name}.lock"
    with exclusive(path, f"testbed {name}", "wait for it to end, or use another --name"):
        try:
            yield
        finally:
            if not (state_dir(name) / FILE).is_file():
                path.unlink(missing_ok=True)


def as_dict(state: State) -> dict[str, Any]:
    """The state as a JSON object."""
    return {**asdict(state), "state_dir": str(state_dir(state.name))}
