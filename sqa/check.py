"""The contract of a check: what it declares, what it is given to look at, and what it reports.

A check is a module of ``sqa/checks`` (or of a repository's own folder, see ``sqa.yml``) with one ``CHECK``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from sqa.model import SEVERITIES, Finding
from sqa.tree import Tree, select, valid_patterns
from sqa.wrong import of_type

TIMEOUT = 900.0
# Settings that every check takes, with their types; the runner itself sees to them.
EVERY_CHECK_TAKES: Mapping[str, type | tuple[type, ...]] = {"exclude": list, "timeout": (int, float), "severity": str}
LONGEST_OUTPUT = 256 << 20  # bytes; a tool that says more has run wild


class InconclusiveError(Exception):
    """The check cannot say whether the tree is as it should be; the text says why, and what to do."""


@dataclass(frozen=True)
class Canary:
    """Two small trees by which an adapter shows that it works: file name to text.

    In ``bad`` it has to find ``rule``, having looked at the file, in ``good`` nothing, having looked at one. ``says``:
    passages that messages of ``rule`` have to hold, for a check that finds it in more than one way. ``prepare`` makes
    of the folder what files alone are not (a history, permissions).
    """

    rule: str
    bad: Mapping[str, str]
    good: Mapping[str, str]
    prepare: Callable[[Path], None] | None = None
    says: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a check saw. ``examined``: the files that the tool itself says it has looked at."""

    findings: Iterable[Finding] = ()
    examined: Iterable[str] = ()
    work: Mapping[str, str | int] = field(default_factory=dict)
    rules: Iterable[str] = ()


@dataclass(frozen=True)
class Said:
    """What a program said and how it ended."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Standard output as JSON; raises ``InconclusiveError`` where it is none."""
        try:
            return json.loads(self.stdout)
        except ValueError as broken:
            raise InconclusiveError(
                f"no JSON came back ({broken}): {(self.stdout or self.stderr).strip()[:300]}"
            ) from None


@dataclass(frozen=True)
class Look:
    """What a check is given: a copy of the files that it declares, and its tool.

    ``root``: a folder with these files alone, so that nothing else decides on a result and nothing written reaches the
    repository. ``files``: those to examine, relative to it. ``tree``: the repository itself, for checks of its history
    or of the whole of it. ``settings``: the check's part of ``sqa.yml``. ``programs``: where the tool's programs are.
    ``scratch``: a folder that outlives the run, for a tool's own cache. ``standards``: what the repository is held
    against.
    """

    check: str
    root: Path
    files: tuple[str, ...]
    tree: Tree
    settings: Mapping[str, Any]
    programs: Path | None
    scratch: Path
    network: bool = False
    timeout: float = TIMEOUT
    standards: tuple[str, ...] = ()

    def run(self, program: str, *arguments: str, statuses: Sequence[int] = (0,), **environment: str) -> Said:
        """Run a program of the tool, or of the system, in ``root``.

        Raises ``InconclusiveError`` where it is missing, takes too long, says too much, is killed, or ends with another
        status than ``statuses``.
        """
        found = shutil.which(program, path=str(self.programs)) if self.programs else shutil.which(program)
        if not found:
            raise InconclusiveError(f"{program} is not installed; next: deep sqa tools --install")
        said = self._finish(program, [found, *arguments], {**self._environment(), **environment})
        if said.status not in statuses:
            last = " ".join((said.stderr.strip() or said.stdout.strip()).splitlines()[-3:])[-600:]
            killed = said.status < 0
            how = f"was killed by {signal.Signals(-said.status).name}" if killed else f"ended with {said.status}"
            raise InconclusiveError(f"{program} {how}: {last}")
        return said

    def finding(self, path: str, line: int | None, rule: str, message: str, severity: str = "error") -> Finding:
        """A finding of this check; ``path`` may be absolute, in ``root``."""
        name = os.path.relpath(path, self.root) if os.path.isabs(path) else path.removeprefix("./")  # noqa: PTH117 # text
        return Finding(name, line or 0, self.check, rule, " ".join(message.split()), severity)

    def text(self, name: str) -> str:
        """The text of a file; bytes that are not UTF-8 are replaced."""
        return (self.root / name).read_text(encoding="utf-8", errors="replace")

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([*([str(self.programs)] if self.programs else []), "/usr/local/bin", "/usr/bin", "/bin"])
        own = {"PATH": path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if self.network:
            return {**os.environ, **own}
        return {**own, "HOME": str(self.scratch), "TMPDIR": tempfile.gettempdir()}

    def _finish(self, program: str, argv: list[str], environment: dict[str, str]) -> Said:
        with (
            tempfile.TemporaryFile(dir=self.scratch) as out,
            tempfile.TemporaryFile(dir=self.scratch) as err,
            subprocess.Popen(
                argv, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            ) as process,
        ):  # fmt: skip
            try:
                status = self._wait(program, process, (out, err))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            return Said(status, *(_text(file) for file in (out, err)))

    def _wait(self, program: str, process: subprocess.Popen[bytes], outputs: Sequence[IO[bytes]]) -> int:
        """Its exit status; raises ``InconclusiveError`` for a program that takes too long or says too much."""
        deadline = time.monotonic() + self.timeout
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(1.0, max(0.0, deadline - time.monotonic())))
            if max(os.fstat(file.fileno()).st_size for file in outputs) > LONGEST_OUTPUT:
                raise InconclusiveError(f"{program} said more than {LONGEST_OUTPUT >> 20} MiB")
            if time.monotonic() >= deadline:
                raise InconclusiveError(f"{program} did not end within {self.timeout:.0f} s")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


Related = Callable[[Tree, str], Iterable[str]]
Regards = Callable[[Tree, str], str]
Selects = Callable[[Tree, str], bool]
Environment = Callable[[Tree, Mapping[str, Any]], str]


@dataclass(frozen=True)
class Check:  # pylint: disable=too-many-instance-attributes # each is one thing that a check says of itself
    """What a check declares.

    ``files``: patterns of what it examines. ``tool``: its environment, a file ``sqa/tools/TOOL.txt``.
    ``configuration``: patterns of files that decide on its result. ``scope``: ``file`` where each file's result depends
    on that file, on the configuration and on ``related`` files alone; ``tree`` where it takes all of them together.
    ``regards``: of such a ``related`` file, what of its content decides; all of it where that is not given.
    ``support``: patterns of files that the tool needs beside those it examines. ``network``: it asks others, so its
    result is never remembered. ``of_repository``: it looks at the repository itself, not at a copy of files. ``split``:
    worth several processes. ``seconds``: about how long it takes, as long as nothing is known of it here.
    ``leaves``: patterns of what the tool leaves behind beside the files, and that decides on nothing.
    ``criteria``: those that it judges beside the ones that name it. ``selects``: says of a file that no pattern names
    whether it is examined all the same; it is asked for every such file in each run. ``environment``: of the repository
    and the check's settings, what decides on a result beside the files; raises ``InconclusiveError``. A check
    ``of_repository`` without it is never remembered. ``belongings``: files of the suite that are a part of the check
    beside its module. ``takes``: its settings in ``sqa.yml`` with their types, beside those that every check takes;
    nothing where it looks at them itself.
    """

    name: str
    title: str
    inspect: Callable[[Look], Report]
    files: tuple[str, ...]
    canary: Canary
    tool: str | None = None
    configuration: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    scope: Literal["file", "tree"] = "tree"
    related: Related | None = None
    regards: Regards | None = None
    network: bool = False
    of_repository: bool = False
    split: bool = False
    seconds: float = 5.0
    timeout: float = TIMEOUT
    leaves: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    selects: Selects | None = None
    environment: Environment | None = None
    belongings: tuple[Path, ...] = ()
    takes: Mapping[str, type] | None = None

    def refuse(self, settings: Mapping[str, Any]) -> None:
        """Raise ``InconclusiveError`` for a setting that the check does not take, or that is of another type."""
        known = EVERY_CHECK_TAKES if self.takes is None else {**EVERY_CHECK_TAKES, **self.takes}
        for key, value in settings.items():
            if key not in known and self.takes is not None:
                raise InconclusiveError(
                    f"sqa.yml: checks.{self.name}.{key}: no such setting; needed: one of {', '.join(sorted(known))}"
                )
            if key == "severity" and value not in SEVERITIES:
                raise InconclusiveError(
                    f"sqa.yml: checks.{self.name}.severity: {value!r}; needed: one of {', '.join(SEVERITIES)}"
                )
            if key in known and (
                not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool)
            ):
                raise InconclusiveError(
                    f"sqa.yml: checks.{self.name}.{key}: {of_type(value, known[key])}; next: correct it there"
                )
            if key == "exclude":
                try:
                    valid_patterns(value)
                except ValueError as wrong:
                    raise InconclusiveError(f"sqa.yml: checks.{self.name}.exclude: {wrong}; correct it there") from None

    def selected(self, tree: Tree, exclude: Sequence[str] = ()) -> tuple[str, ...]:
        """The files of ``tree`` that it examines, in order, without those that a pattern of ``exclude`` matches."""
        named = tree.matching(self.files)
        if self.selects:
            known = set(named)
            named = tuple(name for name in tree.files if name in known or self.selects(tree, name))
        dropped = set(select(named, exclude)) if exclude else set()
        return tuple(name for name in named if name not in dropped)
