"""What steps do: ``sh`` really runs, results are really looked for, and what only Jenkins has is written down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = ("SUCCESS", "UNSTABLE", "FAILURE", "ABORTED")
# Steps that change nothing for what is in them, here.
AROUND = ("ansiColor", "lock", "node", "timeout", "timestamps")


class Event(NamedTuple):
    """Something that happened: a stage began, a step ran, somebody was asked."""

    kind: str
    what: str
    stage: str = ""


class FailedError(Exception):
    """A step failed, or was not let through; ``result`` is what the stage comes to."""

    def __init__(self, message: str, result: str = "FAILURE") -> None:
        super().__init__(message)
        self.result = result


@dataclass
class State:
    """What a stage, or the pipeline, has come to so far."""

    result: str = "SUCCESS"

    def worsen(self, result: str) -> None:
        """It comes to this where it was better."""
        self.result = max(self.result, result, key=RESULTS.index)


@dataclass(frozen=True)
class Where:
    """Where a step runs: environment, folder, names that it knows, its stage, and whether there is an agent."""

    env: Mapping[str, str]
    folder: Path
    names: Mapping[str, Any]
    state: State
    log: list[Event] = field(default_factory=list)
    stage: str = ""
    node: bool = False
    stopped: Callable[[], bool] = lambda: False

    def note(self, kind: str, what: str) -> None:
        """Remember that something happened."""
        self.log.append(Event(kind, what, self.stage))

    def with_env(self, more: Mapping[str, str]) -> Where:
        """The same with more variables."""
        env = {**self.env, **more}
        return replace(self, env=env, names={**self.names, **more, "env": env})


def shell(where: Where, script: str = "", **options: Any) -> Any:
    """Run a script as Jenkins does: ``sh -e`` in the folder of the step, ended by a status that is not 0."""
    if not where.node:
        raise FailedError(f"sh without an agent: {script}")
    where.folder.mkdir(parents=True, exist_ok=True)
    output = subprocess.PIPE if options.get("returnStdout") else None
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", script], cwd=where.folder, env=dict(where.env), stdin=subprocess.DEVNULL, stdout=output,
        text=True, check=False,
    )  # fmt: skip
    where.note("sh", script)
    if options.get("returnStatus"):
        return done.returncode
    if done.returncode:
        raise FailedError(f"{script}: ended with {done.returncode}")
    return done.stdout


def junit(where: Where, testResults: str = "", allowEmptyResults: bool = False, **_: Any) -> None:  # noqa: N803 # Jenkins' name
    """Tests that failed make the build unstable; no report at all is a failure."""
    found = list(_files(where, testResults))
    where.note("junit", testResults)
    if not found and not allowEmptyResults:
        raise FailedError(f"no report: {testResults}")
    if any("<failure" in said or "<error" in said for said in (file.read_text(encoding="utf-8") for file in found)):
        where.state.worsen("UNSTABLE")


def archive(where: Where, artifacts: str = "", allowEmptyArchive: bool = False, **_: Any) -> None:  # noqa: N803 # Jenkins' name
    """What is to be kept has to be there."""
    where.note("archiveArtifacts", artifacts)
    if not allowEmptyArchive and not any(_files(where, artifacts)):
        raise FailedError(f"nothing to keep: {artifacts}")


def _noted(name: str) -> Callable[..., None]:
    return lambda where, **given: where.note(name, ", ".join(f"{key}: {value}" for key, value in given.items()))


# Steps by what they do; some matter to Jenkins alone.
DONE: Mapping[str, Callable[..., Any]] = {
    "sh": shell,
    "junit": junit,
    "archiveArtifacts": archive,
    **{name: _noted(name) for name in ("checkout", "echo", "milestone", "publishHTML", "recordIssues")},
}


def _files(where: Where, patterns: str) -> Iterator[Path]:
    for pattern in patterns.split(","):
        whole = f"{pattern.strip()}/*" if pattern.strip().endswith("**") else pattern.strip()
        yield from (path for path in where.folder.glob(whole) if path.is_file())


def secret_file(folder: Path, name: str, content: str) -> str:
    """A file that only its owner reads; returns its path."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as sink:
        sink.write(content)
    return str(path)
