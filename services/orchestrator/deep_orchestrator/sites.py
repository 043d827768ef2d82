"""What the orchestrator asks of a site, whatever software runs there."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4


class SiteError(Exception):
    """The site refuses, and would again: the text says why."""


class State(enum.StrEnum):
    """How far an infrastructure is."""

    PENDING = enum.auto()
    # Pending, and as things are it stays so.
    STUCK = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True)
class Look:
    """What a site says of an infrastructure; ``reason``: why it is not ready."""

    state: State
    reason: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)


class Site(Protocol):
    """A place for infrastructures.

    Each carries the name of its deployment: who was killed before it could note what it had made finds it again by it.
    So ``find`` has to know of what ``create`` has made as soon as it is there, also where nobody got its answer; where
    the site offers a key that makes a request count once, it is that name. Every method may raise SiteError, and
    anything else where the site is not reached, which is worth another try. Every method is told whose infrastructure
    it is, for what a site does it does with the owner's rights.
    """

    def find(self, deployment: str) -> list[str]:
        """Identifiers of every infrastructure of a deployment."""

    def create(self, deployment: str, template: str, parameters: dict[str, Any]) -> str:
        """Make an infrastructure and return its identifier; it is not ready yet."""

    def update(self, deployment: str, infrastructure: str, template: str, parameters: dict[str, Any]) -> None:
        """Make an infrastructure what a template says now."""

    def look(self, deployment: str, infrastructure: str) -> Look:
        """How far an infrastructure is."""

    def remove(self, deployment: str, infrastructure: str) -> None:
        """Take an infrastructure away; one that is not there is no error."""


class NullSite:
    """A site of which each infrastructure is a file of a folder, for measuring the orchestrator and for its tests.

    ``seconds`` until an infrastructure is ready; ``broken``: none ever gets ready.
    """

    def __init__(self, folder: Path, seconds: float = 0, *, broken: bool = False) -> None:
        self._folder, self._seconds, self._broken = folder, seconds, broken
        folder.mkdir(parents=True, exist_ok=True)

    def _all(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in self._folder.glob("*.json"):
            try:
                yield path, json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue

    def find(self, deployment: str) -> list[str]:
        """Identifiers of every infrastructure of a deployment."""
        return [path.stem for path, made in self._all() if made["deployment"] == deployment]

    def create(self, deployment: str, template: str, parameters: dict[str, Any]) -> str:
        """Make another one, whether or not there is one."""
        identifier = str(uuid4())
        made = {"deployment": deployment, "template": template, "parameters": parameters, "made": time.time()}
        self._write(identifier, made)
        return identifier

    def update(
        self,
        deployment: str,  # noqa: ARG002 # as every site is asked
        infrastructure: str,
        template: str,
        parameters: dict[str, Any],
    ) -> None:
        """Replace what was asked for."""
        path = self._folder / f"{infrastructure}.json"
        try:
            made = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SiteError(f"there is no infrastructure {infrastructure}") from None
        self._write(infrastructure, {**made, "template": template, "parameters": parameters})

    def _write(self, identifier: str, made: dict[str, Any]) -> None:
        """Write a file that others never see half."""
        new = self._folder / f".{identifier}"
        new.write_text(json.dumps(made), encoding="utf-8")
        new.rename(self._folder / f"{identifier}.json")

    def look(self, deployment: str, infrastructure: str) -> Look:  # noqa: ARG002 # as every site is asked
        """Ready once its seconds are over."""
        try:
            text = (self._folder / f"{infrastructure}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return Look(State.FAILED, "it is gone")
        made = json.loads(text)
        if time.time() < made["made"] + self._seconds:
            return Look(State.PENDING)
        if self._broken:
            return Look(State.FAILED, "nothing works at this site")
        return Look(State.READY, outputs={"endpoint": f"null:{infrastructure}"})

    def remove(self, deployment: str, infrastructure: str) -> None:  # noqa: ARG002 # as every site is asked
        """Remove the file."""
        (self._folder / f"{infrastructure}.json").unlink(missing_ok=True)
