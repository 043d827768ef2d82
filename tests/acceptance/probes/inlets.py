"""Ways into a cluster past the list of what listens on its hosts: forwarded ports, and pods in a host's own network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tests.acceptance.probes import declarations

# The port of a pod that shares its host's network: whatever it listens on.
HOST_NETWORK = "host-network"


@dataclass(frozen=True)
class Inlet:
    """A port of hosts that leads to a Service or a pod; ``port`` may be ``HOST_NETWORK``."""

    kind: str
    namespace: str
    name: str
    port: int | str
    how: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}: {self.how}"


def of_services(services: Iterable[Any]) -> Iterator[Inlet]:
    """The ports of Services that are reached from outside of the cluster: node ports and external addresses."""
    for one in services:
        outside = bool(one.spec.external_ips) or one.spec.type == "LoadBalancer"
        for port in one.spec.ports or []:
            if port.node_port:
                yield _of(one, "Service", port.node_port, f"{one.spec.type} port {port.node_port} of every node")
            if outside:
                yield _of(one, "Service", port.port, f"port {port.port} of an address outside of the cluster")
        if health := one.spec.health_check_node_port:
            yield _of(one, "Service", health, f"port {health} of nodes, for health checks")


def of_pods(pods: Iterable[Any]) -> Iterator[Inlet]:
    """The ports of hosts that pods take, and pods that share the network of their host."""
    for one in pods:
        if one.spec.host_network:
            yield _of(one, "Pod", HOST_NETWORK, f"the network of {one.spec.node_name or 'whichever host it is put on'}")
            continue
        for container in [*(one.spec.init_containers or []), *one.spec.containers]:
            for port in container.ports or []:
                if port.host_port:
                    yield _of(one, "Pod", port.host_port, f"port {port.host_port} of {one.spec.node_name or 'a host'}")


def _of(owner: Any, kind: str, port: int | str, how: str) -> Inlet:
    return Inlet(kind, owner.metadata.namespace, owner.metadata.name, port, how)


def undeclared(found: Iterable[Inlet], declared: Sequence[Mapping[str, Any]]) -> list[Inlet]:
    """Inlets that no declaration covers: ``{kind, namespace, name (or a pattern), port (or a list)}``.

    Raises ``ValueError`` for a declaration that says something else.
    """
    entries = declarations.read(declarations.Inlet, "inlets", declared)
    return [one for one in found if not any(_covers(entry, one) for entry in entries)]


def _covers(entry: declarations.Inlet, inlet: Inlet) -> bool:
    return (
        (entry.kind, entry.namespace) == (inlet.kind, inlet.namespace)
        and fnmatchcase(inlet.name, entry.name)
        and str(inlet.port) in map(str, entry.port)
    )
