"""What any kind of site has, before it becomes GLUE. A kind of site is one class that looks and returns these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True)
class Gpus:
    """What the GPUs of a machine are, as far as is known. ``memory_mib``: of each; ``driver``, ``cuda``: versions."""

    model: str = ""
    simulated: bool = False
    driver: str = ""
    cuda: str = ""
    memory_mib: int = 0
    compute_capability: str = ""
    sharing: str = ""


@dataclass(frozen=True)
class Machine:
    """A machine, with what is there and what is free now. One that takes nothing new has nothing free."""

    usable: bool
    platform: str = "amd64"
    cpus: Decimal = Decimal()
    cpus_free: Decimal = Decimal()
    memory_mib: int = 0
    memory_mib_free: int = 0
    gpus: int = 0
    gpus_free: int = 0
    kind: Gpus = field(default_factory=Gpus)
    infiniband: bool = False


@dataclass(frozen=True)
class Quota:
    """Limits of one organisation: what it may use at most, what it uses, and what is left, by resource.

    ``left`` has CPUs, bytes and pieces under the names ``cpu``, ``memory``, ``gpu`` and ``pods``; what is not limited
    is not in it.
    """

    hard: dict[str, str] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    left: dict[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class Resources:
    """All that a look at a site found. ``gpus_waiting``: GPUs that what is in the queue asks for."""

    product: str
    version: str
    machines: list[Machine]
    quotas: dict[str, Quota] = field(default_factory=dict)
    gpus_waiting: int = 0


class Provider(Protocol):
    """A kind of site."""

    def look(self) -> Resources:
        """What is there now. Raises CloudInfoError, saying what is missing."""


@dataclass(frozen=True)
class Room:
    """What one machine has free at once: a single container can have that much and no more."""

    platform: str
    cpus: Decimal
    memory_mib: int
    gpus: int
    kind: Gpus
    infiniband: bool

    def holds(self, other: Room) -> bool:
        """Whether whatever fits into the other fits here too."""
        same_gpus = not other.gpus or (self.kind.model, self.kind.simulated) == (other.kind.model, other.kind.simulated)
        enough = self.gpus >= other.gpus and self.cpus >= other.cpus and self.memory_mib >= other.memory_mib
        return same_gpus and enough and self.platform == other.platform and self.infiniband >= other.infiniband


def rooms(machines: Iterable[Machine]) -> list[Room]:
    """The largest rooms of a site: those that no other one holds. They answer whether something fits, and are few."""
    every = [
        Room(one.platform, one.cpus_free, one.memory_mib_free, one.gpus_free, one.kind, one.infiniband)
        for one in machines
        if one.usable
    ]
    largest: list[Room] = []
    # The one that holds another comes before it.
    for room in sorted(every, key=lambda one: (one.infiniband, one.gpus, one.cpus, one.memory_mib), reverse=True):
        if not any(other.holds(room) for other in largest):
            largest.append(room)
    return largest
