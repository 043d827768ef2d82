"""Which sites can take a deployment, in which order they are tried, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Ask(BaseModel):
    """What a deployment needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    organisation: str
    gpus: int = Field(default=0, ge=0)
    gpu_model: str | None = None
    cpus: float = Field(default=0, ge=0)
    memory_mib: int = Field(default=0, ge=0)
    image: str | None = None
    # A site that has the data, if there is one.
    near: str | None = None


class Agreement(BaseModel):
    """What a site has promised to an organisation (SLA): how much at most, and which site comes first (the lowest).

    What is left of the organisation's quota now; None: not limited.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: int = 100
    gpus: int | None = None
    gpus_left: int | None = None
    cpus_left: float | None = None
    memory_mib_left: int | None = None
    pods_left: int | None = None


class Gpus(BaseModel):
    """GPUs of one model at a site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None
    total: int
    free: int
    simulated: bool = False


class Room(BaseModel):
    """What one machine has free at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int
    gpu_model: str | None = None
    cpus: float
    memory_mib: int

    def fits(self, ask: Ask) -> bool:
        """Whether a deployment has room there."""
        right = not ask.gpus or not ask.gpu_model or ask.gpu_model == self.gpu_model
        return right and ask.gpus <= self.gpus and ask.cpus <= self.cpus and ask.memory_mib <= self.memory_mib


class Offer(BaseModel):
    """What a site has, as its information provider publishes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    gpus_total: int = 0
    gpus_free: int = 0
    gpu_model: str | None = None
    # By model, where it is known; empty: they are all of gpu_model.
    gpus: tuple[Gpus, ...] = ()
    cpus_free: float = 0
    memory_mib_free: int = 0
    # The largest that its single machines have; None: not known.
    rooms: tuple[Room, ...] | None = None
    # None: it takes any.
    images: frozenset[str] | None = None
    agreements: dict[str, Agreement] = Field(default_factory=dict)
    # Why nothing is known of it; empty where something is.
    unknown: str = ""

    def of(self, model: str | None) -> Gpus:
        """GPUs of a model, or all of them."""
        kinds = self.gpus or (Gpus(model=self.gpu_model, total=self.gpus_total, free=self.gpus_free),)
        found = [kind for kind in kinds if model in (None, kind.model)]
        total, free = sum(kind.total for kind in found), sum(kind.free for kind in found)
        return Gpus(model=model, total=total, free=free, simulated=any(kind.simulated for kind in found))

    @property
    def models(self) -> list[str]:
        """Names of the models that it has."""
        names = [kind.model for kind in self.gpus] or [self.gpu_model]
        return sorted({name for name in names if name})


class Candidate(BaseModel):
    """What was decided about one site. ``rank``: its place in the order, from 1; None where it cannot take it."""

    model_config = ConfigDict(frozen=True)

    site: str
    rank: int | None
    reasons: list[str]


def obstacles(ask: Ask, offer: Offer) -> list[str]:
    """Why a site cannot take a deployment, each with what was asked and what is there; empty where it can."""
    if offer.unknown:
        return [offer.unknown]
    agreement = offer.agreements.get(ask.organisation)
    if agreement is None:
        return [f"has no agreement with {ask.organisation}"]
    found = [*gpu_obstacles(ask, offer), *limits(ask, agreement)]
    if ask.cpus > offer.cpus_free:
        found.append(f"{ask.cpus:g} CPUs asked, {offer.cpus_free:g} free")
    if ask.memory_mib > offer.memory_mib_free:
        found.append(f"{ask.memory_mib} MiB of memory asked, {offer.memory_mib_free} free")
    if ask.image and offer.images is not None and ask.image not in offer.images:
        found.append(f"has no image {ask.image}")
    if not found and offer.rooms is not None and not any(room.fits(ask) for room in offer.rooms):
        asked = f"{ask.gpus} GPUs, {ask.cpus:g} CPUs and {ask.memory_mib} MiB of memory"
        found.append(f"{asked} asked, free on several machines only")
    return found


def gpu_obstacles(ask: Ask, offer: Offer) -> list[str]:
    """What is wrong with the GPUs of a site."""
    if ask.gpus and ask.gpu_model and ask.gpu_model not in offer.models:
        has = ", ".join(offer.models) or "none that it names"
        return [f"GPU {ask.gpu_model} asked, has {has}"]
    there = offer.of(ask.gpu_model if ask.gpus else None)
    which = f"{ask.gpus} GPUs {there.model}" if there.model and len(offer.models) > 1 else f"{ask.gpus} GPUs"
    return [f"{which} asked, {there.free} of {there.total} free"] if ask.gpus > there.free else []


def limits(ask: Ask, agreement: Agreement) -> list[str]:
    """What an organisation may not have, though it be there."""
    found = []
    if agreement.gpus is not None and ask.gpus > agreement.gpus:
        found.append(f"{ask.gpus} GPUs asked, {agreement.gpus} agreed with {ask.organisation}")
    for asked, left, what in (
        (ask.gpus, agreement.gpus_left, "GPUs"),
        (ask.cpus, agreement.cpus_left, "CPUs"),
        (ask.memory_mib, agreement.memory_mib_left, "MiB of memory"),
        (1, agreement.pods_left, "pods"),
    ):
        if left is not None and asked > left:
            found.append(f"{asked:g} {what} asked, {left:g} left of the quota of {ask.organisation}")
    return found


def usable(ask: Ask, offer: Offer) -> int:
    """GPUs that the organisation can have there now: what is free, and no more than its quota leaves."""
    left = offer.agreements[ask.organisation].gpus_left
    free = offer.of(ask.gpu_model if ask.gpus else None).free
    return free if left is None else min(free, left)


def order(ask: Ask, offers: Iterable[Offer], failures: Mapping[str, int]) -> list[Candidate]:
    """Every site with its rank or what stands in the way; those that can take it come first, in the order to try them.

    What counts, in this order: the priority agreed, failures of late (fewer first), the site that has the data, GPUs
    that the organisation can have, the name.
    """
    able, unable = [], []
    for offer in offers:
        reasons = obstacles(ask, offer)
        if reasons:
            unable.append(Candidate(site=offer.site, rank=None, reasons=reasons))
        else:
            able.append(offer)

    def key(offer: Offer) -> tuple[Any, ...]:
        priority = offer.agreements[ask.organisation].priority
        return priority, failures.get(offer.site, 0), offer.site != ask.near, -usable(ask, offer), offer.site

    ranked = [
        Candidate(site=offer.site, rank=rank, reasons=advantages(ask, offer, failures.get(offer.site, 0)))
        for rank, offer in enumerate(sorted(able, key=key), start=1)
    ]
    return ranked + sorted(unable, key=lambda candidate: candidate.site)


def advantages(ask: Ask, offer: Offer, failed: int) -> list[str]:
    """What the rank of a site comes from."""
    said = [f"priority {offer.agreements[ask.organisation].priority} agreed with {ask.organisation}"]
    said.append(f"{failed} attempts failed of late" if failed else "no failure of late")
    if ask.near == offer.site:
        said.append("has the data")
    if offer.gpus_total:
        there = offer.of(ask.gpu_model if ask.gpus else None)
        simulated = " (simulated)" if there.simulated else ""
        said.append(f"{there.free} of {there.total} GPUs free{simulated}")
    left = offer.agreements[ask.organisation].gpus_left
    if left is not None and ask.gpus:
        said.append(f"{left} GPUs left of the quota of {ask.organisation}")
    return said
