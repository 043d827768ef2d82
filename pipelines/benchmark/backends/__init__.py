"""Where a specification runs: each back end submits it by the interface of its scheduler and brings the run back."""

from __future__ import annotations

import importlib
import json
import queue
import shlex
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from pipelines.benchmark.job import VARIABLE
from pipelines.benchmark.model import Run, Specification, Submission
from sqa import wrong
from sqa.standard import Strict
from testbed.errors import CHECK_FAILED, DeepError

# Where each is defined; imported when it is used.
BACKENDS: dict[str, str] = {
    "docker": "pipelines.benchmark.backends.docker:Docker",
    "kubernetes": "pipelines.benchmark.backends.kubernetes:Kubernetes",
    "slurm": "pipelines.benchmark.backends.slurm:Slurm",
    "deepaas": "pipelines.benchmark.backends.deepaas:Deepaas",
}
# How a job can end without a run.
Fate = Literal["failed", "out of memory", "out of time", "cancelled", "lost", "refused"]
FATES: dict[Fate, str] = {
    "failed": "failed",
    "out of memory": "ran out of memory",
    "out of time": "did not end in time",
    "cancelled": "was cancelled",
    "lost": "was lost",
    "refused": "was refused",
}
# Of containers: how the project's image is told to be a job, who it runs as, where it may write.
COMMAND = ("/usr/bin/python3", "/opt/deep-benchmark", "pipelines.benchmark.job")
USER = 65532
SCRATCH = "/tmp"  # nosec B108  # in a container, where nobody else writes
# What a refusal consists of.
FACTS = ("message", "host", "found", "needed", "next_step")
# How much is told of the last words of a job.
LONGEST_WORDS = 300
# Seconds of silence after which whoever reads lines looks at the time.
TICK = 2.0
Note = Callable[[str], None]
Clock = Callable[[], float]


def _split(text: Any) -> Any:
    """A command as a shell reads its words."""
    if not isinstance(text, str):
        return text
    try:
        words = shlex.split(text)
    except ValueError as broken:
        raise ValueError(f"found {text!r}, needed a command as a shell reads it: {broken}") from broken
    if not words:
        raise ValueError("found nothing, needed a command")
    return words


Command = Annotated[tuple[str, ...], BeforeValidator(_split)]


class End(NamedTuple):
    """How a job ended, and what the scheduler says of it."""

    fate: Fate
    reason: str


class Backend(Strict, ABC):
    """One way to run a specification somewhere else; its fields are what a user may set with ``--option``.

    ``timeout``: seconds from the submission until the run has to be here.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: ClassVar[str]
    timeout: float = Field(default=3600.0, gt=0)

    @abstractmethod
    def submit(self, specification: Specification) -> str:
        """Have it run; returns what the scheduler calls the job. Raises ``DeepError`` where it is not taken."""

    @abstractmethod
    def lines(self, job: str) -> Iterator[str | None]:
        """What the job says on its standard output, line by line until it has ended.

        ``None`` at least every few seconds, so that the caller can look at the time.
        """

    @abstractmethod
    def end(self, job: str) -> End:
        """How a job ended that has said nothing of a run."""

    @abstractmethod
    def remove(self, job: str) -> None:
        """End the job where it still runs, and leave nothing of it."""


def load(name: str, options: dict[str, str]) -> Backend:
    """The back end of this name with these options; raises ``DeepError`` for what it does not know."""
    module, _, found = BACKENDS[name].partition(":")
    kind: type[Backend] = getattr(importlib.import_module(module), found)
    try:
        return kind.model_validate(options)
    except ValidationError as refused:
        raise DeepError(
            f"the back end {name} does not take these options", found=wrong.explained(refused, kind),
            next_step="--option NAME=VALUE for each that is named",
        ) from refused  # fmt: skip


def run(
    backend: Backend, specification: Specification, note: Note = lambda _: None, clock: Clock = time.monotonic
) -> Run:
    """The run that a back end brings back, with how long the way took.

    Raises ``DeepError`` where there is none: never is a figure made of a job that ended otherwise than it should.
    """
    submitted = clock()
    with _interrupts() as allow:
        job = backend.submit(specification)
        try:
            allow()
            note(f"{backend.name}: submitted {job}")
            said, waited = _followed(backend, job, submitted, note, clock)
        finally:
            _remove(backend, job, note)
    found, elapsed = _read(backend, job, said, specification), clock() - submitted
    measured = (found.ended - found.started).total_seconds()
    submission = Submission(backend=backend.name, job=job, waited=waited, overhead=max(0.0, elapsed - measured))
    return found.model_copy(update={"submission": submission})


def _followed(backend: Backend, job: str, submitted: float, note: Note, clock: Clock) -> tuple[Any, float]:
    waited: float | None = None
    for line in backend.lines(job):
        if clock() - submitted > backend.timeout:
            raise _without(backend, job, End("out of time", f"nothing after {backend.timeout:g} s"))
        said = document(line)
        if said is None:
            continue
        waited = clock() - submitted if waited is None else waited
        if "note" in said:
            note(said["note"])
        elif "error" in said:
            raise _refused(backend, job, said["error"])
        else:
            return said["run"], waited
    raise _without(backend, job, backend.end(job))


def _refused(backend: Backend, job: str, facts: Any) -> DeepError:
    """What the job has refused, in its own words as far as they are known here."""
    known = {name: facts[name] for name in FACTS if facts.get(name)} if isinstance(facts, dict) else {}
    return DeepError(**{"message": str(facts)[:LONGEST_WORDS], "host": f"{backend.name} {job}", **known})


def _read(backend: Backend, job: str, found: Any, specification: Specification) -> Run:
    """The run, where it is of this version and the one that was asked for: whatever a job says comes from elsewhere."""
    try:
        run = Run.model_validate(found)
    except ValidationError as refused:
        raise DeepError(
            "the run is none that this version knows", host=f"{backend.name} {job}",
            found=wrong.explained(refused, Run), needed="the same version there and here",
            next_step="take the image or module of this version", exit_code=CHECK_FAILED,
        ) from refused  # fmt: skip
    plan, names = specification.plan, [one.workload for one in run.results]
    pairs = [(name, getattr(plan, name), getattr(run, name)) for name in ("seed", "label", "repeats", "processes")]
    pairs += [("workloads", list(dict.fromkeys(specification.workloads)) or names, names)]
    if not names:
        pairs.append(("workloads", "at least one", names))
    if plan.device == "gpu":
        gpus = [one.model for one in run.machine.gpus if not one.simulated]
        pairs.append(("GPUs", gpus or "a real one", [one.model for one in run.machine.gpus]))
    for what, asked, brought in pairs:
        if asked != brought:
            raise DeepError(
                "the job has brought another run than the one that was asked for", host=f"{backend.name} {job}",
                found=f"{what} {brought}", needed=str(asked), exit_code=CHECK_FAILED,
            )  # fmt: skip
    return run


def _without(backend: Backend, job: str, ended: End) -> DeepError:
    return DeepError(
        f"there are no figures: the job {FATES[ended.fate]}", host=f"{backend.name} {job}", found=ended.reason,
        next_step="--option timeout=SECONDS" if ended.fate == "out of time" else None, exit_code=CHECK_FAILED,
    )  # fmt: skip


def _remove(backend: Backend, job: str, note: Note) -> None:
    """Have the job removed; where that fails, neither a run nor the reason why there is none is lost over it."""
    try:
        backend.remove(job)
    except DeepError as failed:
        note(f"{backend.name}: {job} may be left behind: {failed}")


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C, and SIGTERM with which continuous integration ends a build, interrupt from when the yielded is called on.

    Until then the first is kept: a job that is just being submitted has no name yet by which to remove it.
    """
    allowed, kept = threading.Event(), threading.Event()

    def handle(*_: object) -> None:
        if allowed.is_set() or kept.is_set():
            raise KeyboardInterrupt
        kept.set()

    def allow() -> None:
        allowed.set()
        if kept.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield allow
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield allow
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment(specification: Specification) -> dict[str, str]:
    """The variables of a job that runs in a container, where only the scratch space can be written to."""
    return {VARIABLE: specification.model_dump_json(), "HOME": SCRATCH}


def last_words(text: str) -> str:
    """The last line that is not the job's own document; that of a traceback says what was raised."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and document(line) is None]
    return lines[-1][-LONGEST_WORDS:] if lines else ""


def ticking(blocks: Iterable[bytes], tick: float = TICK) -> Iterator[str | None]:
    """The lines of a stream, and ``None`` whenever it was silent for ``tick`` seconds; a line cut short is none.

    The stream is read by a thread of its own, which ends when the stream does. What it raises is raised here.
    """
    arrived: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for block in blocks:
                arrived.put(block)
        except Exception as broken:  # pylint: disable=broad-exception-caught  # it is raised by whoever waits
            arrived.put(broken)
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while True:
        try:
            block = arrived.get(timeout=tick)
        except queue.Empty:
            yield None
            continue
        if block is None:
            return
        if isinstance(block, Exception):
            raise block
        *lines, rest = (rest + block).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def document(line: str | None) -> dict[str, Any] | None:
    """One of the job's own documents; anything else that a line may be is none."""
    try:
        said = json.loads(line or "")
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.keys() & {"note", "run", "error"} else None
