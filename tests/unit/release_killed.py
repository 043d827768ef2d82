"""Kill a step of a release at each thing that it asks of the system, run it again, and compare with one left alone.

A program of its own, for it forks: `python -m tests.unit.release_killed < JOB`, and the answer is JSON too. What is
killed is the step itself; the programs that it starts are ended by the kernel with it.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.release.evidence import Trust
from pipelines.release.openpgp import Keyring
from pipelines.release.steps import Release
from pipelines.release.store import Store
from tests.unit.release_toys import NOW, contents

# What changes the disk, or starts a program that does.
CALLS = (
    (os, "rename"), (os, "replace"), (os, "link"), (os, "symlink"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"),
    (os, "fsync"), (os, "write"), (os, "ftruncate"), (os, "chmod"), (os, "utime"), (shutil, "copyfile"),
    (subprocess, "run"), (io, "open"),
)  # fmt: skip
# After these something is there that was not there before, for others to see.
BOUNDARIES = frozenset({"rename", "replace", "symlink", "write"})
NOT_COMPARED = frozenset({"journal.jsonl", "lock"})  # they tell of the attempts


def attempt(action: Callable[[], object], last: int) -> tuple[int, list[str]]:
    """Run ``action`` in a process that kills itself before call number ``last``; its status and the calls it made."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _counted(writing, last)
        try:
            action()
        except BaseException as wrong:  # pylint: disable=broad-exception-caught # nothing may go on as its parent
            sys.stderr.write(f"{wrong}\n")
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="ascii") as source:
        calls = source.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), calls


def _counted(told: int, last: int) -> None:
    """Have every call counted and told, and the process killed before number ``last``."""
    number, tell, kill = 0, os.write, os.kill

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            nonlocal number
            if name == "open" and not set(str([*arguments[1:2], named.get("mode", "")])) & set("wax+"):
                return call(*arguments, **named)
            number += 1
            if number == last:
                kill(os.getpid(), signal.SIGKILL)
            tell(told, f"{name} ".encode())
            return call(*arguments, **named)

        return instead

    for module, name in CALLS:
        setattr(module, name, wrapped(name, getattr(module, name)))


def compared(store: Path) -> dict[str, str]:
    return {name: said for name, said in contents(store).items() if name not in NOT_COMPARED}


def chosen(calls: list[str], every: int) -> list[int]:
    """The calls before which to kill: around each boundary, and of the others one in ``every``."""
    return [
        number for number, name in enumerate(calls, 1)
        if name in BOUNDARIES or calls[max(number - 2, 0)] in BOUNDARIES or number % every == 0
    ]  # fmt: skip


def main() -> None:
    """Do the job: for each step, from the store as it was before it."""
    job = json.load(sys.stdin)
    work = Path(job["work"])
    trust = Trust(Keyring(Path(job["home"])), (job["key"],), (job["key"],), Path(job["root"]))
    trust.refuse_dirty()  # what it imports and reads is then there for all
    answer = []
    for killing, step, *arguments in job["steps"]:
        before = work / "before"
        store = work / "store"

        def act(step: str = step, arguments: list[str] = arguments, store: Path = store) -> None:
            words = [Path(arguments[0])] if step == "stage" else arguments
            getattr(Release(Store(store), trust, clock=lambda: NOW), step)(*words)

        fresh(before, store)
        status, calls = attempt(act, 0)
        assert status == 0, "the step fails by itself"
        wanted = compared(store)
        shutil.copytree(store, work / "after", symlinks=True)
        randomly = random.Random(step)  # nosec B311 # the same in every run
        for number in chosen(calls, job["every"]) if killing else ():
            fresh(before, store)
            killed = attempt(act, number)[0]
            visible = broken(store)
            # It may be killed in the middle of repairing, too.
            twice = attempt(act, randomly.randrange(1, len(calls)))[0] if number % 3 == 0 else 0
            again = attempt(act, 0)[0]
            answer.append({
                "step": step, "call": f"{number} {calls[number - 1]}", "killed": killed, "twice": twice, "again": again,
                "broken": visible, "same": compared(store) == wanted, "ended": Store(store).journal.pending() is None,
            })  # fmt: skip
        shutil.rmtree(before, ignore_errors=True)
        (work / "after").rename(before)
    print(json.dumps(answer))


def fresh(before: Path, store: Path) -> None:
    """Have the store as it was."""
    shutil.rmtree(store, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, store, symlinks=True)


def broken(store: Path) -> list[str]:
    """Stages that a user would see half made: a link to nothing, or to a state that lacks something."""
    found = []
    for link in (store / "public").glob("*/deep-*"):
        if link.is_symlink():
            state = json.loads((link / "state.json").read_text()) if (link / "state.json").is_file() else {}
            names = {path.name for path in link.rglob("*")} if state else set()
            if not state or not {one["file"] for one in state["packages"]} | {"InRelease", "repomd.xml.asc"} <= names:
                found.append(str(link))
    return found


if __name__ == "__main__":
    main()
