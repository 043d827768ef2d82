"""GLUE 2.1 in JSON, as EGI's cloud-info-provider renders it: lists of objects by the name of their class.

What GLUE has no name for (what is free, priorities, quotas) is in OtherInfo. CPUs are cores, memory is MiB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from deep_cloud_info.config import AgreementTerms, Configuration
from deep_cloud_info.resources import Gpus, Machine, Quota, Resources, Room, rooms

Json = dict[str, Any]
Document = dict[str, list[Json]]
TYPE = "org.deephdc.containers"
MIB = 1024**2


@dataclass(frozen=True)
class Images:
    """Images of a site, as published. ``fault``: why they are those of a publication before, or none."""

    objects: list[Json] = field(default_factory=list)
    fault: str = ""


class Writer:
    """Makes the objects of one publication."""

    def __init__(self, configuration: Configuration, now: datetime) -> None:
        self._configuration = configuration
        self._site = configuration.site
        self._made = now.isoformat(timespec="seconds")
        self.service, self.manager = f"{self._site}_service", f"{self._site}_manager"

    def object(self, identifier: str, name: str, *, other: Json | None = None, belongs: Json | None = None) -> Json:
        """What every object has."""
        found: Json = {
            "ID": identifier,
            "Name": name,
            "CreationTime": self._made,
            "Validity": self._configuration.validity_seconds,
        }
        return {**found, **({"OtherInfo": other} if other else {}), **({"Associations": belongs} if belongs else {})}

    def document(self, found: Resources, images: Images) -> Document:
        """Everything."""
        accelerators = self.accelerators(found.machines)
        shares = [self.share(terms, found.quotas) for terms in self._configuration.agreements]
        endpoints = self.endpoints(images.fault)
        return {
            "CloudComputingService": [self.service_object(found, shares, endpoints)],
            "CloudComputingManager": [self.manager_object(found)],
            "CloudComputingEndpoint": endpoints,
            "CloudComputingVirtualAccelerator": accelerators,
            "CloudComputingInstanceType": self.instance_types(rooms(found.machines)),
            "CloudComputingImage": images.objects,
            "Share": shares,
            "MappingPolicy": [self.mapping(terms) for terms in self._configuration.agreements],
            "AccessPolicy": self.access(endpoints),
        }

    def service_object(self, found: Resources, shares: list[Json], endpoints: list[Json]) -> Json:
        """The site."""
        registry = self._configuration.registry
        other = {
            "site": self._site,
            "middleware": found.product.lower(),
            "only_images_of_registry": bool(registry and registry.only),
        }
        return {
            **self.object(
                self.service, f"Containers at {self._site}", other=other, belongs={"AdminDomain": [self._site]}
            ),
            "Type": TYPE,
            "QualityLevel": self._configuration.quality,
            "Capability": ["executionmanagement.jobexecution"],
            "Complexity": f"endpointType={len(endpoints)},share={len(shares)}",
        }

    def manager_object(self, found: Resources) -> Json:
        """What there is, and what of it is free."""
        machines = found.machines
        other = {
            "cpus_total": cores(sum((one.cpus for one in machines), Decimal())),
            "cpus_free": cores(sum((one.cpus_free for one in machines), Decimal())),
            "memory_mib_free": sum(one.memory_mib_free for one in machines),
            "gpus_total": sum(one.gpus for one in machines),
            "gpus_free": sum(one.gpus_free for one in machines),
            "gpus_waiting": found.gpus_waiting,
            "machines": len(machines),
            "machines_usable": sum(one.usable for one in machines),
            "machines_with_infiniband": sum(one.infiniband for one in machines),
        }
        return {
            **self.object(self.manager, f"{found.product} at {self._site}", other=other, belongs=self.of_service()),
            "ProductName": found.product,
            "ProductVersion": found.version,
            "TotalCPUs": int(sum((one.cpus for one in machines), Decimal())),
            "TotalRAM": sum(one.memory_mib for one in machines),
        }

    def of_service(self) -> Json:
        """That something belongs to the site."""
        return {"CloudComputingService": [self.service]}

    def of_manager(self) -> Json:
        """That something belongs to what manages the machines."""
        return {"CloudComputingManager": [self.manager]}

    def endpoints(self, registry_fault: str) -> list[Json]:
        """Addresses for users."""
        registry = self._configuration.registry
        made = []
        for number, one in enumerate(self._configuration.endpoints):
            fault = registry_fault if registry and one.url == registry.url else ""
            asked = {self._configuration.kubernetes.server, *([registry.url] if registry else [])}
            made.append(
                {
                    **self.object(f"{self._site}_endpoint_{number}", one.interface, belongs=self.of_service()),
                    "URL": one.url,
                    "InterfaceName": one.interface,
                    **({"InterfaceVersion": one.version} if one.version else {}),
                    **({"Authentication": one.authentication} if one.authentication else {}),
                    "Technology": "webservice",
                    "QualityLevel": self._configuration.quality,
                    "ServingState": "production",
                    "HealthState": "critical" if fault else "ok" if one.url in asked else "unknown",
                    **({"HealthStateInfo": fault} if fault else {}),
                }
            )
        return made

    def accelerators(self, machines: Iterable[Machine]) -> list[Json]:
        """GPUs, one object for each kind."""
        kinds: dict[Gpus, list[Machine]] = {}
        for machine in machines:
            if machine.gpus:
                kinds.setdefault(machine.kind, []).append(machine)
        return [self.accelerator(number, kind, kinds[kind]) for number, kind in enumerate(sorted(kinds, key=repr))]

    def accelerator(self, number: int, kind: Gpus, machines: list[Machine]) -> Json:
        """GPUs of one kind."""
        other = {
            "free": sum(one.gpus_free for one in machines),
            "machines": len(machines),
            "simulated": kind.simulated,
            "driver": kind.driver,
            "cuda": kind.cuda,
            "sharing": kind.sharing,
        }
        name = f"{'simulated ' if kind.simulated else ''}{kind.model or 'GPU of a model that is not known'}"
        return {
            **self.object(f"{self._site}_gpu_{number}", name, other=other, belongs=self.of_manager()),
            "Type": "GPU",
            "Number": sum(one.gpus for one in machines),
            "Vendor": "NVIDIA",
            **({"Model": kind.model} if kind.model else {}),
            **({"Version": kind.driver} if kind.driver else {}),
            **({"Memory": kind.memory_mib} if kind.memory_mib else {}),
            **({"ComputeCapability": [kind.compute_capability]} if kind.compute_capability else {}),
        }

    def instance_types(self, found: list[Room]) -> list[Json]:
        """The largest containers that single machines have room for now."""
        return [self.instance_type(number, room) for number, room in enumerate(found)]

    def instance_type(self, number: int, room: Room) -> Json:
        """One of them."""
        other: Json = {"cpus": cores(room.cpus), "gpus": room.gpus}
        if room.gpus:
            other |= {"gpu_model": room.kind.model, "gpus_simulated": room.kind.simulated}
        name = f"up to {room.gpus} GPUs, {cores(room.cpus):g} CPUs and {room.memory_mib} MiB"
        return {
            **self.object(f"{self._site}_room_{number}", name, other=other, belongs=self.of_manager()),
            "Platform": room.platform,
            "CPU": int(room.cpus),
            "RAM": room.memory_mib,
            **({"NetworkInfo": "infiniband"} if room.infiniband else {}),
        }

    def image(self, name: str, digest: str) -> Json:
        """An image of the registry."""
        repository, _, tag = name.rpartition(":")
        return {
            **self.object(
                name, name, other={"repository": repository, "tag": tag, "digest": digest}, belongs=self.of_manager()
            ),
            "MarketplaceURL": f"https://{name}",
            "OSPlatform": "",
            "OSName": "linux",
            "AccessInfo": "none",
        }

    def share(self, terms: AgreementTerms, quotas: dict[str, Quota]) -> Json:
        """What one organisation may use, and what of it is left."""
        quota = quotas.get(terms.namespace or terms.organisation, Quota())
        other: Json = {
            "organisation": terms.organisation,
            "priority": terms.priority,
            "quota": {"hard": quota.hard, "used": quota.used, "left": left(quota)},
        }
        if terms.gpus is not None:
            other["gpus_agreed"] = terms.gpus
        return {
            **self.object(
                share_id(self._site, terms),
                f"{terms.organisation} at {self._site}",
                other=other,
                belongs=self.of_service(),
            ),
            "ProjectID": terms.namespace or terms.organisation,
            **({"SLA": terms.sla} if terms.sla else {}),
        }

    def mapping(self, terms: AgreementTerms) -> Json:
        """Who may use a share."""
        share = share_id(self._site, terms)
        belongs = {"Share": [share], "PolicyUserDomain": [terms.organisation]}
        return {**self.object(f"{share}_policy", terms.organisation, belongs=belongs), **policy([terms])}

    def access(self, endpoints: list[Json]) -> list[Json]:
        """Who may use the endpoints."""
        belongs = {"CloudComputingEndpoint": [one["ID"] for one in endpoints]}
        made = self.object(f"{self._site}_policy", f"organisations at {self._site}", belongs=belongs)
        return [{**made, **policy(self._configuration.agreements)}]


def policy(agreements: Iterable[AgreementTerms]) -> Json:
    """Virtual organisations as EGI writes them."""
    return {"Scheme": "org.glite.standard", "Rule": [f"VO:{terms.organisation}" for terms in agreements]}


def share_id(site: str, terms: AgreementTerms) -> str:
    """Identifier of an organisation's share."""
    return f"{site}_share_{terms.organisation}"


def left(quota: Quota) -> Json:
    """What a quota leaves, in the units of the document."""
    found: Json = {name: int(quota.left[name]) for name in ("gpu", "pods") if name in quota.left}
    if "cpu" in quota.left:
        found["cpus"] = cores(quota.left["cpu"])
    if "memory" in quota.left:
        found["memory_mib"] = int(quota.left["memory"] // MIB)
    return {{"gpu": "gpus"}.get(name, name): value for name, value in found.items()}


def cores(amount: Decimal) -> float:
    """CPUs to the thousandth, never more than there are."""
    return float(amount.quantize(Decimal("0.001"), rounding=ROUND_FLOOR))
