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
    """What a site has promised to an organisation (SLA): how much at most, and which site comes first (the lowest)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: int = 100
    gpus: int | None = None


class Offer(BaseModel):
    """What a site has, as its information provider publishes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    gpus_total: int = 0
    gpus_free: int = 0
    gpu_model: str | None = None
    cpus_free: float = 0
    memory_mib_free: int = 0
    # None: it takes any.
    images: frozenset[str] | None = None
    agreements: dict[str, Agreement] = Field(default_factory=dict)


class Candidate(BaseModel):
    """What was decided about one site. ``rank``: its place in the order, from 1; None where it cannot take it."""

    model_config = ConfigDict(frozen=True)

    site: str
    rank: int | None
    reasons: list[str]


def obstacles(ask: Ask, offer: Offer) -> list[str]:
    """Why a site cannot take a deployment, each with what was asked and what is there; empty where it can."""
    agreement = offer.agreements.get(ask.organisation)
    if agreement is None:
        return [f"has no agreement with {ask.organisation}"]
    found = []
    if ask.gpus > offer.gpus_free:
        found.append(f"{ask.gpus} GPUs asked, {offer.gpus_free} of {offer.gpus_total} free")
    if agreement.gpus is not None and ask.gpus > agreement.gpus:
        found.append(f"{ask.gpus} GPUs asked, {agreement.gpus} agreed with {ask.organisation}")
    if ask.gpus and ask.gpu_model and ask.gpu_model != offer.gpu_model:
        found.append(f"GPU {ask.gpu_model} asked, has {offer.gpu_model or 'none that it names'}")
    if ask.cpus > offer.cpus_free:
        found.append(f"{ask.cpus:g} CPUs asked, {offer.cpus_free:g} free")
    if ask.memory_mib > offer.memory_mib_free:
        found.append(f"{ask.memory_mib} MiB of memory asked, {offer.memory_mib_free} free")
    if ask.image and offer.images is not None and ask.image not in offer.images:
        found.append(f"has no image {ask.image}")
    return found


def order(ask: Ask, offers: Iterable[Offer], failures: Mapping[str, int]) -> list[Candidate]:
    """Every site with its rank or what stands in the way; those that can take it come first, in the order to try them.

    What counts, in this order: the priority agreed, failures of late (fewer first), the site that has the data, free
    GPUs, the name.
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
        return priority, failures.get(offer.site, 0), offer.site != ask.near, -offer.gpus_free, offer.site

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
        said.append(f"{offer.gpus_free} of {offer.gpus_total} GPUs free")
    return said
