"""How long work is shown: one line per artefact on stderr, or nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from testbed.console import err


class Reporter(Protocol):
    """What a build tells about itself; the functions may be called from several threads."""

    def step(self, name: str, text: str) -> None:
        """Artefact ``name`` is now doing ``text``."""

    def amount(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` (bytes or packages) of the current step."""

    def finish(self, name: str, text: str) -> None:
        """Artefact ``name`` is ready; ``text`` says how."""


class Silent:
    """Shows nothing: for tests and for callers with a display of their own."""

    def step(self, name: str, text: str) -> None:
        """See ``Reporter``."""

    def amount(self, name: str, done: int, total: int) -> None:
        """See ``Reporter``."""

    def finish(self, name: str, text: str) -> None:
        """See ``Reporter``."""


class Display:
    """A live table of progress on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.fields[artifact]:<26}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=err,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if err.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if err.is_terminal:
            self._progress.stop()

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", artifact=name, total=None)
        return self._tasks[name]

    def step(self, name: str, text: str) -> None:
        """See ``Reporter``."""
        if err.is_terminal:
            self._progress.update(self._task(name), description=text, total=None, completed=0)
        else:
            err.print(f"{name}: {text}", markup=False)

    def amount(self, name: str, done: int, total: int) -> None:
        """See ``Reporter``."""
        if err.is_terminal:
            self._progress.update(self._task(name), completed=done, total=total)

    def finish(self, name: str, text: str) -> None:
        """See ``Reporter``."""
        if err.is_terminal:
            self._progress.update(self._task(name), description=text, total=1, completed=1)
        else:
            err.print(f"{name}: {text}", markup=False)
