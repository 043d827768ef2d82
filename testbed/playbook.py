"""Run an Ansible playbook: one live line on the terminal, the whole output in a log, failures by host and task."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml
from rich.markup import escape

from testbed import console
from testbed.errors import CHECK_FAILED, WRONG_USAGE, DeepError
from testbed.paths import collections_path, repo_root
from testbed.run import stream

if TYPE_CHECKING:
    from rich.progress import Progress

PLAY = re.compile(r"^PLAY \[(?P<name>.*)\] \**$")
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*)\] \**$")
FATAL = re.compile(r"^(?P<kind>fatal|failed): \[(?P<host>[^\]\s]+)[^\]]*\]: ?(?P<rest>.*)$")
ITEM = re.compile(r"^failed: \[(?P<host>[^\]\s]+)[^\]]*\] \((?P<rest>.*)\) => ?$")
RECAP = re.compile(r"^(?P<host>\S+)\s+: (?P<counts>ok=\d+.*)$")
ERROR = re.compile(r"^\[ERROR\]: (?P<message>.*)$")
IGNORED = "...ignoring"
ITEMS_SUMMARY = "One or more items failed"
NEXT = " Next: "


@dataclass(frozen=True)
class Failure:
    """One task that failed on one host, in the words of the task."""

    host: str
    task: str
    message: str


@dataclass(frozen=True)
class PlaybookResult:
    """What a finished playbook did; ``hosts`` maps each host to its counts (ok, changed, failed, ...)."""

    playbook: str
    ok: bool
    seconds: float
    log: Path
    tasks: int
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    @property
    def changed(self) -> int:
        """Number of changed results over all hosts."""
        return sum(counts.get("changed", 0) for counts in self.hosts.values())

    def as_dict(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            **asdict(self),
            "log": str(self.log),
            "changed": self.changed,
            "failures": [asdict(f) for f in self.failures],
        }


class Listener(Protocol):
    """Told about each play and task as Ansible announces them."""

    def play(self, name: str) -> None:
        """A play starts."""

    def task(self, number: int, name: str) -> None:
        """Task ``number`` (from 1, handlers included) starts."""


class OutputReader:
    """Follow the text output of ``ansible-playbook`` line by line and keep what a summary needs.

    Reads the default callback with ``callback_result_format = yaml``: a ``fatal:`` line is followed by an
    indented YAML block that ends with the first line that is not indented.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self.tasks = 0
        self.hosts: dict[str, dict[str, int]] = {}
        self.failures: list[Failure] = []
        self.error = ""
        self._play = ""
        self._task = ""
        self._open: tuple[str, str] | None = None
        self._block: list[str] = []

    def feed(self, line: str) -> None:
        """Take one line of output, without its line feed."""
        if self._open and (line.startswith("    ") or (self._block and not line.strip())):
            self._block.append(line)
            return
        self._close()
        if match := PLAY.match(line):
            self._play = match["name"]
        elif match := TASK.match(line):
            self._announce_task(match["name"])
        elif match := ITEM.match(line) or FATAL.match(line):
            self._open = (match["host"], match["rest"])
        elif line == IGNORED and self.failures:
            # The task was allowed to fail; another one says what it means.
            self.failures.pop()
        elif match := RECAP.match(line):
            self.hosts[match["host"]] = _counts(match["counts"])
        elif not self.error and (match := ERROR.match(line)):
            self.error = match["message"]

    def finish(self) -> None:
        """The output has ended."""
        self._close()

    def _announce_task(self, name: str) -> None:
        self.tasks += 1
        self._task = name
        if self.listener:
            # Not before: a play without hosts has no task.
            if self._play:
                self.listener.play(self._play)
            self.listener.task(self.tasks, name)
        self._play = ""

    def _close(self) -> None:
        if self._open is None:
            return
        host, rest = self._open
        message = _message(self._block) or rest.removesuffix(" =>").strip()
        # A loop reports each failed item and then says so once more without a reason.
        known = any(f.host == host and f.task == self._task for f in self.failures)
        if not (known and message.startswith(ITEMS_SUMMARY)):
            self.failures.append(Failure(host, self._task, message))
        self._open, self._block = None, []


def _counts(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in (pair.split("=") for pair in text.split())}


def _message(block: list[str]) -> str:
    """The reason in a result block: ``msg``, with the program's last words where it ran one."""
    try:
        result = yaml.safe_load("\n".join(block))
    except yaml.YAMLError:
        return " ".join(line.strip() for line in block)
    if not isinstance(result, dict):
        return str(result or "")
    message = result.get("msg", "")
    text = (
        message
        if isinstance(message, str)
        else "; ".join(map(str, message))
        if isinstance(message, list)
        else str(message)
    )
    said = str(result.get("stderr") or result.get("module_stderr") or result.get("stdout") or "").strip()
    return f"{text.strip()}: {said.splitlines()[-1]}" if said else text.strip()


class _Live:
    """One rich line that follows the tasks; plain lines per play where no terminal shows it."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._id = progress.add_task(escape(title), total=None)

    def play(self, name: str) -> None:
        """Show the play's name where there is no live line."""
        if not console.err.is_terminal:
            console.err.print(f"{escape(self._title)}: {escape(name)}")

    def task(self, number: int, name: str) -> None:
        """Put the task's name on the live line."""
        self._progress.update(self._id, description=f"{escape(self._title)} [dim]\\[{number}][/] {escape(name)}")


@contextmanager
def _live(title: str, quiet: bool) -> Iterator[Listener | None]:
    if quiet:
        yield None
        return
    # Every command that asks about a site comes by this module, and few show a live line.
    from rich import progress as rich

    columns = (rich.SpinnerColumn(), rich.TextColumn("{task.description}"), rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as progress:
        yield _Live(progress, title)


def playbook_names() -> list[str]:
    """Every playbook of the folder ``playbooks/``."""
    return sorted(path.stem for path in (repo_root() / "playbooks").glob("*.yml"))


def playbook_path(playbook: str | Path) -> Path:
    """``site`` or ``site.yml`` of the folder ``playbooks/``, or any path; raises ``DeepError`` where there is none."""
    wanted = Path(playbook)
    folder = repo_root() / "playbooks"
    for candidate in (wanted, folder / wanted, folder / f"{wanted}.yml"):
        if candidate.is_file():
            return candidate.resolve()
    raise DeepError(
        f"no playbook {playbook}",
        needed=f"one of: {', '.join(playbook_names())}",
        next_step="name one of the playbooks, or give a path",
    )


def tool(name: str) -> str:
    """The program ``name`` of this Python environment, else the one of the PATH."""
    own = Path(sys.executable).parent / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        raise DeepError(f"program not found: {name}", next_step="run 'make install'", exit_code=WRONG_USAGE)
    return found


def ansible_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which every Ansible program of the project runs: our configuration, text that can be read."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(repo_root() / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": ":".join(map(str, collections_path())),
        # Not beside the playbooks, which may be somebody else's: who wants facts to be kept says where.
        "ANSIBLE_CACHE_PLUGIN": "memory",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        # Else a task is announced with its first result, and a progress line would name what is over.
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def run_playbook(
    playbook: str | Path,
    inventory_args: Sequence[str],
    *,
    log: Path,
    extra_args: Sequence[str] = (),
    facts: Path | None = None,
    environment: Mapping[str, str] | None = None,
    title: str | None = None,
    quiet: bool = False,
    must_succeed: bool = True,
) -> PlaybookResult:
    """Run ``playbook`` (a name of ``playbooks/`` or a path) with ``-i``, vault and further arguments as given.

    The whole output is appended to ``log`` as it appears. ``facts`` is the folder of the fact cache: give each
    testbed its own, and remove it with the nodes, because two testbeds have hosts of the same names.
    ``environment`` is added to Ansible's. ``quiet`` shows no progress. Raises ``DeepError`` (exit code 1) that names
    host, task and message when a task fails and ``must_succeed`` is set; Ansible dies with this process, so
    no forgotten run goes on behind it.
    """
    path = playbook_path(playbook)
    argv = [tool("ansible-playbook"), *inventory_args, *extra_args, str(path)]
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts)} if facts else {}
    started = time.monotonic()
    with _live(title or path.stem, quiet) as listener:
        reader = OutputReader(listener)
        # Ansible takes its workers and connections along when it is asked to end.
        status = stream(
            argv,
            log=log,
            env=ansible_environment({**cache, **(environment or {})}),
            cwd=repo_root(),
            on_line=reader.feed,
            last_signal="TERM",
        )
        reader.finish()
    result = PlaybookResult(
        playbook=path.name,
        ok=status == 0,
        seconds=round(time.monotonic() - started, 2),
        log=log,
        tasks=reader.tasks,
        hosts=reader.hosts,
        failures=tuple(reader.failures),
    )
    if must_succeed and not result.ok:
        raise playbook_error(result, status, reader.error)
    return result


def playbook_error(result: PlaybookResult, status: int, first_error: str = "") -> DeepError:
    """The error of a failed run: the first failure that says what to do in full, the others by host and task."""
    if not result.failures:
        return DeepError(
            f"{result.playbook} stopped with exit status {status}: {first_error or 'see the log'}",
            next_step=f"read the whole log: {result.log}",
            exit_code=CHECK_FAILED,
        )
    told = [
        (failure.host, failure.task, *said)
        for failure in result.failures
        for said in sentences(failure.host, failure.message)
    ]
    # What knows a next step was said for people, often about a failure before it that a rescue has explained.
    # Hosts answer in any order; the same fault shall read the same each time.
    tasks = [failure.task for failure in result.failures]
    told.sort(key=lambda one: (not one[3], tasks.index(one[1]), one[0]))
    (host, task, message, advice), *others = told
    more = "".join(f"\n  also {name}: {what}: {text}{NEXT + step if step else ''}" for name, what, text, step in others)
    return DeepError(
        f"{task}: {message}{more}",
        host=host,
        next_step=f"{advice.rstrip('.') + '; ' if advice else ''}whole log: {result.log}",
        exit_code=CHECK_FAILED,
    )


def sentences(host: str, message: str) -> list[tuple[str, str]]:
    """(what is wrong, what to do) for each complaint; a precheck gives one ``HOST: ... Next: ...`` a line."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    complaints = lines if all(line.startswith(f"{host}: ") for line in lines) else [message.strip()]
    split = (complaint.removeprefix(f"{host}: ").partition(NEXT) for complaint in complaints)
    return [(text.strip(), advice.strip()) for text, _, advice in split] or [("failed without a word", "")]
